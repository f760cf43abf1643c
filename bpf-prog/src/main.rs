//! The eBPF programs of Palisade.
//!
//! A packet's way: [`entry`] (commit word, L2, VLAN) -> tail call into the
//! slot's program -> [`flow`] (headers, conntrack, is it ours, identity,
//! verdict) -> [`counters`] and [`events`]. Layouts live in `palisade_abi`.
#![no_std]
#![no_main]
// Atomic operations, and the search of the IPv4 ipcache, which must not become
// branches.
#![feature(asm_experimental_arch)]

mod atomic;
mod branchless;
mod conntrack;
mod control;
mod counters;
mod entry;
mod events;
mod exit;
mod family;
mod first;
mod flow;
mod flows;
mod ipcache4;
mod ipcache6;
mod kernel;
mod known;
mod maps;
mod packet;
mod transport;
mod v4;
mod v6;
mod verdict;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use palisade_abi::direction::{EGRESS, INGRESS};

use crate::{entry::raw, family::Packet, v4::V4, v6::V6};

/// Length of an Ethernet header; tun and WireGuard devices have none.
const ETHERNET: u32 = 14;

/// Ingress of an Ethernet device.
#[classifier]
pub fn pal_from_netdev(context: TcContext) -> i32 {
    entry::entry::<INGRESS, ETHERNET>(&context)
}

/// Egress of an Ethernet device.
#[classifier]
pub fn pal_to_netdev(context: TcContext) -> i32 {
    entry::entry::<EGRESS, ETHERNET>(&context)
}

/// Ingress of a device without L2 header.
#[classifier]
pub fn pal_from_l3dev(context: TcContext) -> i32 {
    entry::entry::<INGRESS, 0>(&context)
}

/// Egress of a device without L2 header.
#[classifier]
pub fn pal_to_l3dev(context: TcContext) -> i32 {
    entry::entry::<EGRESS, 0>(&context)
}

#[classifier]
pub fn pal_in4(context: TcContext) -> i32 {
    flow::judge::<V4, INGRESS>(raw(&context))
}

#[classifier]
pub fn pal_in6(context: TcContext) -> i32 {
    flow::judge::<V6, INGRESS>(raw(&context))
}

#[classifier]
pub fn pal_eg4(context: TcContext) -> i32 {
    flow::judge::<V4, EGRESS>(raw(&context))
}

#[classifier]
pub fn pal_eg6(context: TcContext) -> i32 {
    flow::judge::<V6, EGRESS>(raw(&context))
}

// What follows are global functions: the verifier looks at each once, with
// arguments of which it knows nothing but the type, so that what a caller's
// packets may be does not multiply what theirs may be. The programs stay small
// to it, and load in milliseconds.

/// The protocol behind a packet's tags: `entry::untag`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_untag(skb: *mut __sk_buff, slot: u32, l2: u32) -> u32 {
    entry::untag(skb, slot, l2)
}

/// Who has an IPv4 address (network byte order): a packed `Peer`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_peer4(address: u32, slot: u32) -> u64 {
    ipcache4::lookup(address, slot).pack()
}

/// Who has an IPv6 address (network byte order): a packed `Peer`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_peer6(address: *const v6::Address, slot: u32) -> u64 {
    // SAFETY: the verifier lets no caller pass anything else.
    match unsafe { address.as_ref() } {
        Some(address) => ipcache6::lookup(address, slot).pack(),
        None => 0,
    }
}

/// The cell for a packed `Table`, the index of an identity and a value of the class.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_verdict(table: u32, index: u32, value: u32) -> u32 {
    verdict::search(verdict::Table::unpack(table), index, value as u16).0
}

/// The way of a set that may hold the flow of a hash.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_way(tags: *const flows::SetTags, hash: u64) -> u32 {
    flows::way_by(tags, hash)
}

/// The way of a set that a new flow may take, below its rank and how many flows live.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_room(tags: *const flows::SetTags, hash: u64, now: u64) -> u64 {
    flows::room(tags, hash, now)
}

/// Enters the flow that a packet opens: 1, or 0 where its way was taken meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_enter4(packet: *const Packet<V4>, life: u64, kind: u64) -> u32 {
    flows::enter(packet, life, kind)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_enter6(packet: *const Packet<V6>, life: u64, kind: u64) -> u32 {
    flows::enter(packet, life, kind)
}

/// Whether a flow is the agent's own: `control::is_own`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_own(first: u64, second: u64, place: u64, packet_mark: u32) -> u32 {
    u32::from(control::find(first, second, place, packet_mark).is_some())
}

/// Headers of an IPv4 packet. 0, or the reason to drop it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_parse4(skb: *mut __sk_buff, packet: *mut Packet<V4>) -> u32 {
    family::parse(skb, packet)
}

/// Headers of an IPv6 packet. 0, or the reason to drop it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_parse6(skb: *mut __sk_buff, packet: *mut Packet<V6>) -> u32 {
    family::parse(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_known_in4(skb: *mut __sk_buff, packet: *mut Packet<V4>) -> u32 {
    known::judge::<V4, INGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_known_in6(skb: *mut __sk_buff, packet: *mut Packet<V6>) -> u32 {
    known::judge::<V6, INGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_known_eg4(skb: *mut __sk_buff, packet: *mut Packet<V4>) -> u32 {
    known::judge::<V4, EGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_known_eg6(skb: *mut __sk_buff, packet: *mut Packet<V6>) -> u32 {
    known::judge::<V6, EGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_first_in4(skb: *mut __sk_buff, packet: *mut Packet<V4>) -> u32 {
    first::judge::<V4, INGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_first_in6(skb: *mut __sk_buff, packet: *mut Packet<V6>) -> u32 {
    first::judge::<V6, INGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_first_eg4(skb: *mut __sk_buff, packet: *mut Packet<V4>) -> u32 {
    first::judge::<V4, EGRESS>(skb, packet)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pal_first_eg6(skb: *mut __sk_buff, packet: *mut Packet<V6>) -> u32 {
    first::judge::<V6, EGRESS>(skb, packet)
}

/// Not attached: by a test run the agent reads the low 32 bits of the jiffies,
/// and from two runs the kernel's HZ.
#[classifier]
pub fn pal_clock(_context: TcContext) -> i32 {
    kernel::now() as i32
}

/// The kernel's helpers reserved for GPL-compatible programs need this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: no path of these programs panics; the verifier refuses a program
    // in which this could be reached.
    unsafe { core::hint::unreachable_unchecked() }
}
