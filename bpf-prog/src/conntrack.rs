//! Flows: lookup, judging again after a change of policy, and their lifetimes.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_jiffies64};
use palisade_abi::{
    commit::CommitWord,
    conntrack::{CtEntry, Judged, flags},
    direction, proto,
    table::column,
};

use crate::{
    family::Family,
    maps::SETTINGS,
    packet::{L4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, l4_state},
    verdict,
};

/// `TCP_LISTEN` of the kernel's socket states.
const LISTEN: u32 = 10;

/// A flow that was found, and where.
#[derive(Clone, Copy)]
pub struct Found {
    pub entry: *mut CtEntry,
    pub in_half: bool,
}

/// Looks a flow up: seen from both sides first. An expired entry is no entry, and
/// hides none.
#[inline(always)]
pub fn find<F: Family>(key: &F::Key, now: u64) -> Option<Found> {
    find_full::<F>(key, now).or_else(|| find_half::<F>(key, now))
}

/// Among the flows that were seen from both sides.
#[inline(always)]
pub fn find_full<F: Family>(key: &F::Key, now: u64) -> Option<Found> {
    alive(F::full().get_ptr_mut(key)?, false, now)
}

/// Among the flows that were seen from one side.
#[inline(always)]
pub fn find_half<F: Family>(key: &F::Key, now: u64) -> Option<Found> {
    alive(F::half().get_ptr_mut(key)?, true, now)
}

#[inline(always)]
fn alive(entry: *mut CtEntry, in_half: bool, now: u64) -> Option<Found> {
    // SAFETY: a non-null pointer from a map lookup.
    if unsafe { (*entry).expires_jiffies } <= now {
        None
    } else {
        Some(Found { entry, in_half })
    }
}

/// Now, in the unit of `CtEntry::expires_jiffies`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }
}

/// A SYN that opens (not the answer to one).
#[inline(always)]
pub fn is_opening(l4: &L4) -> bool {
    l4.proto == proto::TCP
        && l4.state == l4_state::TRACKED
        && l4.tcp_flags_or_type & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN
}

/// Key of the verdict columns for a packet that goes to `port`.
#[inline(always)]
pub fn column_of<F: Family>(proto: u8, port: u16, icmp_type: u8) -> (u32, u16) {
    match proto {
        proto::TCP => (column::TCP, u16::from_be(port)),
        proto::UDP => (column::UDP, u16::from_be(port)),
        proto::SCTP => (column::SCTP, u16::from_be(port)),
        other if other == F::ICMP => (column::OTHER, F::ICMP_COLUMN as u16 + u16::from(icmp_type)),
        other => (
            column::OTHER,
            column::OTHER_PROTOCOL as u16 + u16::from(other),
        ),
    }
}

/// Who opened a TCP flow, by the kernel's sockets: `Some(direction)` if a live
/// socket exists; a listener on its local port means that the peer did.
#[inline(always)]
pub fn opener_by_socket<F: Family>(skb: *mut __sk_buff, key: &F::Key) -> Option<u32> {
    let state = F::socket_state(skb, key, false);
    if state == 0 || state == LISTEN {
        return None;
    }
    if F::socket_state(skb, key, true) == LISTEN {
        Some(direction::INGRESS)
    } else {
        Some(direction::EGRESS)
    }
}

/// The verdict of an entry and its epoch, which belong together.
#[inline(always)]
pub fn judged(entry: &CtEntry) -> Judged {
    // SAFETY: a field; volatile, so that it is loaded whole (see `Judged`).
    unsafe { (&raw const entry.judged).read_volatile() }
}

/// Direction in which a flow was opened.
#[inline(always)]
pub fn opened(bits: u32) -> u32 {
    if bits & flags::OPENED_EGRESS != 0 {
        direction::EGRESS
    } else {
        direction::INGRESS
    }
}

/// Judges a running flow again, in its own direction, whichever packet asks.
/// The result is kept in the entry for this decision epoch.
#[inline(always)]
pub fn judge_again<F: Family>(
    skb: *mut __sk_buff,
    word: CommitWord,
    key: &F::Key,
    entry: &mut CtEntry,
) {
    let (proto, local_port, remote_port) = F::key_ports(key);
    let mut bits = entry.flags;
    if bits & flags::GUESSED != 0 && proto == proto::TCP {
        if let Some(opener) = opener_by_socket::<F>(skb, key) {
            bits &= !(flags::GUESSED | flags::OPENED_EGRESS);
            if opener == direction::EGRESS {
                bits |= flags::OPENED_EGRESS;
            }
        }
    }
    let direction = opened(bits);
    let mut cell = verdict::UNENFORCED;
    let mut identity = 0;
    if word.asks(direction) {
        let peer = F::peer(F::key_remote(key), word.slot());
        let port = if direction == direction::INGRESS {
            local_port
        } else {
            remote_port
        };
        let (class, key) = column_of::<F>(proto, port, F::ECHO_REQUEST);
        cell = verdict::lookup(word.slot(), direction, peer.index, class, key);
        identity = peer.identity;
    }
    entry.flags = bits;
    entry.identity = identity;
    // SAFETY: a field; volatile, so that it is stored whole (see `Judged`).
    unsafe { (&raw mut entry.judged).write_volatile(Judged::new(word.epoch(), cell)) };
}

/// Lifetime of a new flow, in jiffies.
#[inline(always)]
pub fn lifetime(slot: u32, proto: u8, established: bool) -> u64 {
    let Some(settings) = SETTINGS.get_ptr(slot) else {
        return 0;
    };
    // SAFETY: a non-null pointer from a lookup; settings of the current slot
    // are not written.
    let settings = unsafe { &*settings };
    u64::from(if proto != proto::TCP {
        settings.other_jiffies
    } else if established {
        settings.tcp_established_jiffies
    } else {
        settings.tcp_syn_jiffies
    })
}

/// Notes a packet of a flow: TCP state, lifetime, accounting.
#[inline(always)]
pub fn refresh(entry: &mut CtEntry, slot: u32, l4: &L4, forward: bool, now: u64, bytes: u32) {
    let mut bits = entry.flags;
    if !forward {
        bits |= flags::SEEN_REPLY;
    }
    if l4.proto == proto::TCP && l4.state == l4_state::TRACKED {
        let tcp = l4.tcp_flags_or_type;
        if tcp & TCP_SYN == 0 {
            bits |= flags::SEEN_NON_SYN;
        }
        if tcp & TCP_RST != 0 {
            bits |= flags::CLOSING_BOTH;
        } else if tcp & TCP_FIN != 0 {
            bits |= if forward {
                flags::CLOSING_FORWARD
            } else {
                flags::CLOSING_REPLY
            };
        }
    }
    let closing = bits & flags::CLOSING_BOTH == flags::CLOSING_BOTH;
    if !closing {
        let expires = now + lifetime(slot, l4.proto, bits & flags::SEEN_NON_SYN != 0);
        if entry.expires_jiffies != expires {
            entry.expires_jiffies = expires;
        }
    } else if entry.flags & flags::CLOSING_BOTH != flags::CLOSING_BOTH {
        if let Some(settings) = SETTINGS.get_ptr(slot) {
            // SAFETY: as in `lifetime`.
            entry.expires_jiffies = now + u64::from(unsafe { (*settings).tcp_close_jiffies });
        }
    }
    if entry.flags != bits {
        entry.flags = bits;
    }
    if forward {
        entry.packets[0] += 1;
        entry.bytes[0] += u64::from(bytes);
    } else {
        entry.packets[1] += 1;
        entry.bytes[1] += u64::from(bytes);
    }
}
