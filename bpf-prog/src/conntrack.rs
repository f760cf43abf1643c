//! Flows: lookup, judging again after a change of policy, and their lifetimes.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    commit::CommitWord,
    conntrack::{CtEntry, Judged, flags},
    direction, flows, proto,
    settings::Settings,
    table::{Cell, action, class},
};

use crate::{
    atomic,
    control::{self, Claim},
    family::{Family, Packet},
    flows::Found,
    kernel,
    maps::SETTINGS,
    packet::{L4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, l4_state},
    verdict,
};

/// `TCP_LISTEN` of the kernel's socket states.
const LISTEN: u32 = 10;

/// A SYN that opens (not the answer to one).
#[inline(always)]
pub fn is_opening(l4: &L4) -> bool {
    l4.proto == proto::TCP
        && l4.state == l4_state::TRACKED
        && l4.tcp_flags_or_type & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN
}

/// Class and key in the verdict tables of a packet that goes to `port`.
#[inline(always)]
pub fn key_of<F: Family>(proto: u8, port: u16, icmp_type: u8) -> (u32, u16) {
    match proto {
        proto::TCP => (class::TCP, u16::from_be(port)),
        proto::UDP => (class::UDP, u16::from_be(port)),
        proto::SCTP => (class::SCTP, u16::from_be(port)),
        other if other == F::ICMP => (class::OTHER, F::ICMP_KEYS as u16 + u16::from(icmp_type)),
        other => (
            class::OTHER,
            class::OTHER_PROTOCOL as u16 + u16::from(other),
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
pub fn judge_again<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &mut Packet<F>,
    key: &F::Key,
    entry: &mut CtEntry,
) {
    let (proto, local_port, remote_port) = F::key_ports(key);
    let before = self::judged(entry);
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
        let remote = F::key_remote(key);
        let peer = F::peer(&remote, word.slot());
        let port = if direction == direction::INGRESS {
            local_port
        } else {
            remote_port
        };
        let (class, key) = key_of::<F>(proto, port, F::ECHO_REQUEST);
        cell = verdict::lookup(word.slot(), direction, peer.index, class, key);
        // SAFETY: `skb` is the context. Of what comes in, the mark is not the agent's.
        let mark = if DIRECTION == direction::EGRESS {
            unsafe { (*skb).mark }
        } else {
            0
        };
        identity = peer.identity;
        if cell.action() != action::ALLOW
            && direction == direction::EGRESS
            && control::is_own::<F>(remote, port, proto, Claim::of_flow(bits), mark) != 0
        {
            bits |= flags::OWN;
            cell = verdict::UNENFORCED;
        }
    }
    let cell = Cell(packet.forget(cell.0));
    entry.flags = bits;
    entry.identity = identity;
    let judged = (&raw mut entry.judged).cast();
    let new = Judged::new(word.epoch(), cell);
    // SAFETY: a field, aligned. Should the way hold another flow by now, its verdict
    // is not the one that was read, and stays.
    unsafe { atomic::exchange_if(judged, before.bits(), new.bits()) };
}

/// Settings of the current slot.
#[inline(always)]
pub fn settings<'a>(slot: u32) -> Option<&'a Settings> {
    let settings = SETTINGS.get_ptr(slot)?;
    // SAFETY: a non-null pointer from a lookup; settings of the current slot are not
    // written.
    Some(unsafe { &*settings })
}

/// Lifetime of a flow, in jiffies.
#[inline(always)]
pub fn lifetime_of(settings: &Settings, proto: u8, established: bool) -> u32 {
    if proto != proto::TCP {
        settings.other_jiffies
    } else if established {
        settings.tcp_established_jiffies
    } else {
        settings.tcp_syn_jiffies
    }
}

/// Notes a packet of a flow: TCP state, lifetime, accounting.
#[inline(always)]
pub fn refresh<const DIRECTION: u32>(found: Found, slot: u32, l4: &L4, bytes: u32) {
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &mut *found.entry };
    let before = entry.flags;
    // 0 the opener's, 1 the other one.
    let side = (before & flags::OPENED_EGRESS) ^ DIRECTION;
    let mut bits = before;
    if side != 0 {
        bits |= flags::SEEN_REPLY;
    }
    if l4.proto == proto::TCP && l4.state == l4_state::TRACKED {
        bits |= seen_of_tcp(l4.tcp_flags_or_type, side);
    }
    // A flow that both sides have closed keeps the time that it got then.
    if before & flags::CLOSING_BOTH != flags::CLOSING_BOTH {
        let kind = if side == 0 && has_answer(bits, l4.proto) {
            flows::ANSWERED
        } else {
            found.tag.kind()
        };
        if let Some(settings) = settings(slot) {
            let life = if bits & flags::CLOSING_BOTH == flags::CLOSING_BOTH {
                settings.tcp_close_jiffies
            } else {
                lifetime_of(settings, l4.proto, bits & flags::SEEN_NON_SYN != 0)
            };
            // Asked again: cheaper than kept.
            let expires = kernel::now() + u64::from(life);
            found.renew(found.tag.renewed(expires, kind));
        }
        if before != bits {
            entry.flags = bits;
        }
    }
    let side = side as usize;
    // SAFETY: `side` is 0 or 1.
    unsafe {
        *(&raw mut entry.packets).cast::<u64>().add(side) += 1;
        *(&raw mut entry.bytes).cast::<u64>().add(side) += u64::from(bytes);
    }
}

/// What a TCP packet of one side (0 the opener's) says of its flow.
#[inline(always)]
fn seen_of_tcp(tcp: u8, side: u32) -> u32 {
    if tcp & (TCP_SYN | TCP_FIN | TCP_RST) == 0 {
        return flags::SEEN_NON_SYN;
    }
    let mut bits = if tcp & TCP_SYN == 0 {
        flags::SEEN_NON_SYN
    } else {
        0
    };
    if tcp & TCP_RST != 0 {
        bits |= flags::CLOSING_BOTH;
    } else if tcp & TCP_FIN != 0 {
        bits |= flags::CLOSING_FORWARD << side;
    }
    bits
}

/// Whether the flow was answered and its opener, who has seen that, goes on: no
/// forged address. Such flows stand out of the reach of floods.
#[inline(always)]
fn has_answer(bits: u32, proto: u8) -> bool {
    bits & flags::SEEN_REPLY != 0
        && bits & flags::CLOSING_BOTH == 0
        && (proto != proto::TCP || bits & flags::SEEN_NON_SYN != 0)
}
