//! IPv4: headers, keys, routing and sockets.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup, bpf_sock_tuple},
    maps::{Array, LruHashMap},
};
use palisade_abi::{
    conntrack::{CtKey4, FragKey4, FragValue},
    direction::INGRESS,
    flows::{Set, hash4},
    proto, reason,
    table::class,
};

use crate::{
    family::{Family, Inner, Packet},
    kernel,
    maps::{CT4, FRAG4},
    packet::{glance, l4_state, read},
    transport::{self, Place},
    verdict::Peer,
};

/// `AF_INET`.
const AF_INET: u8 = 2;
const HEADER: u32 = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Destination unreachable, and its code for path MTU.
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// The fixed IPv4 header, RFC 791.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    proto: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// Where an IP packet of `total` octets ends. A length of 0 is a segment larger
/// than 64 KiB on its way to the device (BIG TCP).
#[inline(always)]
fn end_of(l3: u32, total: u32) -> u32 {
    if total == 0 {
        u32::MAX >> 1
    } else {
        l3 + total
    }
}

/// The IPv4 family.
pub struct V4;

impl Family for V4 {
    type Addr = u32;
    type Key = CtKey4;
    type FragmentKey = FragKey4;

    const NUMBER: u8 = 4;
    const ICMP: u8 = proto::ICMP;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const ICMP_KEYS: u32 = class::OTHER_ICMP;
    const NOWHERE: Self::Addr = 0;
    const NO_KEY: Self::Key = CtKey4 {
        local: 0,
        remote: 0,
        local_port: 0,
        remote_port: 0,
        proto: 0,
        kind: 0,
        pad: 0,
    };

    #[inline(always)]
    fn any_key(word: u32) -> CtKey4 {
        CtKey4 {
            local: word,
            remote: word,
            local_port: word as u16,
            remote_port: word as u16,
            proto: word as u8,
            kind: word as u8,
            pad: 0,
        }
    }

    #[inline(always)]
    fn parse(skb: *mut __sk_buff, l3: u32, packet: &mut Packet<Self>) -> Result<(), u8> {
        let header = read::<Header>(skb, l3).ok_or(reason::INVALID_PACKET)?;
        let header_length = u32::from(header.version_ihl & 0x0f) * 4;
        let total = u32::from(u16::from_be(header.total_length));
        if header.version_ihl >> 4 != 4
            || header_length < HEADER
            || (total != 0 && total < header_length)
        {
            return Err(reason::INVALID_PACKET);
        }
        let end = end_of(l3, total);
        let offset = l3 + header_length;
        let fragment = u16::from_be(header.fragment);
        packet.source = header.source;
        packet.destination = header.destination;
        packet.l4 = if fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0 {
            transport::parse::<Self>(skb, header.proto, offset, end)
        } else {
            let key = FragKey4 {
                source: header.source,
                destination: header.destination,
                id: header.id,
                proto: header.proto,
                pad: 0,
            };
            let place = Place {
                start: offset,
                offset: u32::from(fragment & FRAGMENT_OFFSET) * 8,
            };
            transport::parse_fragment::<Self>(skb, header.proto, offset, end, place, &key)
        };
        Ok(())
    }

    #[inline(always)]
    fn parse_apart(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        crate::pal_parse4(skb, packet)
    }

    #[inline(always)]
    unsafe fn glance(skb: *mut __sk_buff, l3: u32, packet: *mut Packet<Self>) -> Option<()> {
        let header = glance::<Header>(skb, l3)?;
        let fragment = u16::from_be(header.fragment) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
        if header.version_ihl != 0x45 || fragment != 0 {
            return None;
        }
        let end = end_of(l3, u32::from(u16::from_be(header.total_length)));
        let l4 = transport::glance::<Self>(skb, header.proto, l3 + HEADER, end)?;
        // SAFETY: the caller's word.
        unsafe {
            (*packet).source = header.source;
            (*packet).destination = header.destination;
            (*packet).l4 = l4;
        }
        Some(())
    }

    #[inline(always)]
    fn judge_known<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        if DIRECTION == INGRESS {
            crate::pal_known_in4(skb, packet)
        } else {
            crate::pal_known_eg4(skb, packet)
        }
    }

    #[inline(always)]
    fn judge_first<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        if DIRECTION == INGRESS {
            crate::pal_first_in4(skb, packet)
        } else {
            crate::pal_first_eg4(skb, packet)
        }
    }

    #[inline(always)]
    fn parse_plain(skb: *mut __sk_buff, l3: u32) -> Option<Packet<Self>> {
        let header = read::<Header>(skb, l3)?;
        let fragment = u16::from_be(header.fragment) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
        if header.version_ihl != 0x45 || fragment != 0 {
            return None;
        }
        let l4 = transport::parse::<Self>(skb, header.proto, l3 + HEADER, u32::MAX >> 1);
        Some(Packet {
            source: header.source,
            destination: header.destination,
            l4,
            ..Packet::NOTHING
        })
    }

    #[inline(always)]
    fn classify_icmp(message_type: u8, code: u8) -> u8 {
        match message_type {
            UNREACHABLE if code == FRAGMENTATION_NEEDED => l4_state::PASS_RELATED,
            UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => l4_state::ICMP_ERROR,
            _ => l4_state::UNTRACKED,
        }
    }

    #[inline(always)]
    fn parse_inner(skb: *mut __sk_buff, offset: u32) -> Option<Inner<Self>> {
        let header = read::<Header>(skb, offset)?;
        if header.version_ihl >> 4 != 4 || u16::from_be(header.fragment) & FRAGMENT_OFFSET != 0 {
            return None;
        }
        let length = u32::from(header.version_ihl & 0x0f) * 4;
        if length < HEADER {
            return None;
        }
        Some(Inner {
            source: header.source,
            destination: header.destination,
            proto: header.proto,
            offset: offset + length,
        })
    }

    #[inline(always)]
    fn key(
        local: u32,
        remote: u32,
        local_port: u16,
        remote_port: u16,
        proto: u8,
        kind: u8,
    ) -> CtKey4 {
        CtKey4 {
            local,
            remote,
            local_port,
            remote_port,
            proto,
            kind,
            pad: 0,
        }
    }
    #[inline(always)]
    fn key_remote(key: &CtKey4) -> u32 {
        key.remote
    }
    #[inline(always)]
    fn key_ports(key: &CtKey4) -> (u8, u16, u16) {
        (key.proto, key.local_port, key.remote_port)
    }

    #[inline(always)]
    fn flows() -> &'static Array<Set<CtKey4>> {
        &CT4
    }
    #[inline(always)]
    fn hash(key: &CtKey4, seed: u32) -> u64 {
        hash4(key, seed)
    }
    #[inline(always)]
    fn enter(packet: &Packet<Self>, life: u64, kind: u64) -> u32 {
        crate::pal_enter4(packet, life, kind)
    }
    #[inline(always)]
    unsafe fn is_at(key: &CtKey4, place: *const CtKey4) -> bool {
        let (key, place): (*const u64, *const u64) = ((&raw const *key).cast(), place.cast());
        // SAFETY: a key is 2 long words, and flows stand at multiples of one.
        unsafe { (0..2).all(|at| *key.add(at) == *place.add(at)) }
    }
    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragKey4, FragValue> {
        &FRAG4
    }

    #[inline(always)]
    fn peer(address: &u32, slot: u32) -> Peer {
        Peer::unpack(crate::pal_peer4(*address, slot))
    }

    #[inline(always)]
    fn is_forwarded(skb: *mut __sk_buff, packet: &Packet<Self>) -> bool {
        // SAFETY: all-zero bytes are a valid parameter block.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = AF_INET;
        parameters.l4_protocol = packet.l4.proto;
        parameters.__bindgen_anon_3.ipv4_src = packet.source;
        parameters.__bindgen_anon_4.ipv4_dst = packet.destination;
        kernel::is_forwarded(skb, &mut parameters)
    }

    #[inline(always)]
    fn socket_state(skb: *mut __sk_buff, key: &CtKey4, listeners_only: bool) -> u32 {
        // SAFETY: all-zero bytes are a valid tuple.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        // SAFETY: writes to the IPv4 member of a union of plain words.
        unsafe {
            let ipv4 = &mut tuple.__bindgen_anon_1.ipv4;
            ipv4.daddr = key.local;
            ipv4.dport = key.local_port;
            if !listeners_only {
                ipv4.saddr = key.remote;
                ipv4.sport = key.remote_port;
            }
        }
        // The size of the IPv4 member selects the family.
        kernel::socket_state(skb, &mut tuple, 12)
    }

    #[inline(always)]
    unsafe fn store(address: u32, place: *mut [u32; 4]) {
        let place: *mut u32 = place.cast();
        // SAFETY: the caller's word. Volatile, or three zeros become a call.
        unsafe {
            place.write_volatile(address);
            place.add(1).write_volatile(0);
            place.add(2).write_volatile(0);
            place.add(3).write_volatile(0);
        }
    }

    #[inline(always)]
    fn words(address: u32) -> [u32; 4] {
        [address, 0, 0, 0]
    }
}
