//! The family programs: what happens to an IPv4 or IPv6 packet.
//!
//! Order (DESIGN: the packet's way): headers, what always passes, conntrack;
//! on a miss: is it ours, is its source a lie, who is the peer, the verdict.
//! Nothing is dropped in a direction that is not enforced; a direction that is
//! watched reports its verdicts all the same.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    cb,
    commit::CommitWord,
    conntrack::{CtEntry, flags},
    direction::{EGRESS, INGRESS},
    event, identity, proto, reason,
    table::{Cell, action, column},
};

use crate::{
    conntrack::{self, Found},
    counters,
    events::{Decision, emit},
    family::{Family, Packet},
    packet::{L4, PACKET_HOST, PACKET_OTHERHOST, TCP_RST, l4_state},
    transport::REFUSED,
    verdict::{self, Peer, UNENFORCED},
};

/// How a packet leaves: the reason that is counted, and what is reported.
#[derive(Clone, Copy)]
struct Exit {
    /// Counter; a drop from `reason::DROP_MIN` on.
    reason: u8,
    /// None: nothing was decided that was not reported before.
    event: Option<u8>,
    /// Reason in the event: for audit, why it would have been dropped.
    event_reason: u8,
    /// Bits of `event::flags`.
    flags: u8,
    /// Deciding rule, 0 if none.
    rule: u32,
    /// Identity of the peer, 0 if it was not needed.
    identity: u32,
}

impl Exit {
    /// Leaves with a counter and nothing else.
    #[inline(always)]
    fn silent(reason: u8) -> Self {
        Self {
            reason,
            event: None,
            event_reason: 0,
            flags: 0,
            rule: 0,
            identity: 0,
        }
    }

    /// Drops for a reason that is no verdict, where the direction is enforced.
    #[inline(always)]
    fn refused(word: CommitWord, direction: u32, reason: u8, identity: u32) -> Self {
        if !word.enforced(direction) {
            return Self::silent(reason::NOT_ENFORCED);
        }
        let event = Some(event::kind::DROP);
        Self {
            reason,
            event,
            event_reason: reason,
            flags: 0,
            rule: 0,
            identity,
        }
    }

    /// Leaves by a verdict; `report` asks for an event of what passes (what is
    /// dropped is always reported).
    #[inline(always)]
    fn judged(
        word: CommitWord,
        direction: u32,
        cell: Cell,
        identity: u32,
        flags: u8,
        report: bool,
    ) -> Self {
        let denial = match cell.action() {
            action::ALLOW => 0,
            action::DENY => reason::POLICY_DENY,
            action::FRAGMENT => reason::FRAGMENT_NOT_FOUND,
            _ => reason::POLICY,
        };
        let (reason, kind) = if denial == 0 {
            (reason::FORWARDED, event::kind::ALLOW)
        } else if cell.audit() {
            (reason::AUDITED, event::kind::AUDIT)
        } else if word.enforced(direction) {
            (denial, event::kind::DROP)
        } else {
            return Self::silent(reason::NOT_ENFORCED);
        };
        let event = if report || reason >= reason::DROP_MIN {
            Some(kind)
        } else {
            None
        };
        Self {
            reason,
            event,
            event_reason: denial,
            flags,
            rule: cell.rule(),
            identity,
        }
    }
}

/// Judges one packet. The entry program has left the commit word and the
/// offset of the IP header in `skb->cb`.
#[inline(always)]
pub fn judge<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: `skb` is the program's context.
    let (word, l3) = unsafe {
        (
            CommitWord::from_halves((*skb).cb[cb::COMMIT_LOW], (*skb).cb[cb::GENERATION]),
            (*skb).cb[cb::L3_OFFSET] & 0x3f,
        )
    };
    let packet = match F::parse(skb, l3) {
        Ok(packet) => packet,
        Err(reason) if word.enforced(DIRECTION) => return counters::drop(skb, reason, DIRECTION),
        Err(_) => return counters::pass(skb, reason::NOT_ENFORCED, DIRECTION),
    };
    let exit = decide::<F, DIRECTION>(skb, word, &packet);
    if let Some(kind) = exit.event {
        let decision = Decision {
            kind,
            reason: exit.event_reason,
            flags: exit.flags,
            rule: exit.rule,
            identity: exit.identity,
        };
        emit::<F>(skb, word, DIRECTION, &packet, decision);
    }
    counters::rule(skb, exit.rule);
    if exit.reason >= reason::DROP_MIN {
        counters::drop(skb, exit.reason, DIRECTION)
    } else {
        counters::pass(skb, exit.reason, DIRECTION)
    }
}

#[inline(always)]
fn decide<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
) -> Exit {
    let mut shadowed = false;
    match packet.l4.state {
        l4_state::PASS_RELATED => return Exit::silent(reason::RELATED),
        l4_state::PASS_CONTROL => return Exit::silent(reason::ICMPV6_BYPASS),
        l4_state::ICMP_ERROR => {
            if is_related::<F, DIRECTION>(skb, word, packet) {
                return Exit::silent(reason::RELATED);
            }
        }
        l4_state::TRACKED | l4_state::FRAGMENT_KNOWN => {
            let key = packet.key::<DIRECTION>();
            let now = conntrack::now();
            if let Some(found) = conntrack::find::<F>(&key, now) {
                if belongs::<DIRECTION>(skb, &packet.l4, found) {
                    return established::<F, DIRECTION>(skb, word, packet, &key, found, now);
                }
                shadowed = !found.in_half;
            }
        }
        _ => {}
    }
    first_packet::<F, DIRECTION>(skb, word, packet, shadowed)
}

/// Whether a packet belongs to the flow of its key, or opens another one.
#[inline(always)]
fn belongs<const DIRECTION: u32>(skb: *mut __sk_buff, l4: &L4, found: Found) -> bool {
    // SAFETY: `found.entry` comes from a lookup, `skb` is the context.
    let (bits, ingress_ifindex) = unsafe { ((*found.entry).flags, (*skb).ingress_ifindex) };
    if DIRECTION == EGRESS && bits & flags::UNJUDGED != 0 && ingress_ifindex == 0 {
        // The host itself reuses the tuple of a masqueraded flow.
        return false;
    }
    if !conntrack::is_opening(l4) {
        return true;
    }
    let forward = conntrack::opened(bits) == DIRECTION;
    bits & flags::CLOSING_BOTH == 0
        && (forward || bits & (flags::SEEN_NON_SYN | flags::SEEN_REPLY) == 0)
}

/// A packet of a known flow: its entry's verdict, judged again if it is old.
#[inline(always)]
fn established<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    key: &F::Key,
    found: Found,
    now: u64,
) -> Exit {
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &mut *found.entry };
    let mut cell = Cell(entry.cell);
    let mut forward = conntrack::opened(entry.flags) == DIRECTION;
    let old = entry.epoch != word.epoch() && entry.flags & flags::UNJUDGED == 0;
    if old {
        cell = Cell(conntrack::judge_again::<F>(skb, word.0, key, found.entry));
        // A guess at the opener may have been corrected.
        forward = conntrack::opened(entry.flags) == DIRECTION;
    }
    if cell.passes() {
        // SAFETY: `skb` is the context.
        let bytes = unsafe { (*skb).len };
        conntrack::refresh(entry, word.slot(), &packet.l4, forward, now, bytes);
        if found.in_half && !forward {
            // Both sides were seen: out of the reach of one-sided floods.
            let copy = *entry;
            if F::full().insert(key, copy, 0).is_ok() {
                let _ = F::half().remove(key);
            }
        }
    }
    let mut bits = if old { event::flags::REJUDGED } else { 0 };
    if !forward {
        bits |= event::flags::REPLY;
    }
    let report = old && cell.action() != action::ALLOW;
    let mut exit = Exit::judged(word, DIRECTION, cell, entry.identity, bits, report);
    if exit.reason == reason::AUDITED && !forward {
        // What would be dropped is the opener's packet; its answer only follows.
        exit.reason = reason::FORWARDED;
    }
    exit
}

/// An ICMP error passes with the flow it is about.
#[inline(always)]
fn is_related<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
) -> bool {
    let Some(inner) = F::parse_inner(skb, packet.l4.offset + 8) else {
        return false;
    };
    // The error quotes at least 8 octets of the transport header (RFC 792).
    let l4 = crate::transport::parse_quoted::<F>(skb, inner.proto, inner.offset);
    let inner = Packet::<F> {
        source: inner.source,
        destination: inner.destination,
        l4,
    };
    // What is quoted went the other way.
    let key = if DIRECTION == INGRESS {
        inner.key::<EGRESS>()
    } else {
        inner.key::<INGRESS>()
    };
    let Some(found) = conntrack::find::<F>(&key, conntrack::now()) else {
        return false;
    };
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &*found.entry };
    if entry.flags & flags::UNJUDGED != 0 {
        return true;
    }
    if entry.epoch == word.epoch() {
        return Cell(entry.cell).passes();
    }
    Cell(conntrack::judge_again::<F>(skb, word.0, &key, found.entry)).passes()
}

/// A packet without an entry: is it ours, and what does policy say?
/// `shadowed`: the main map holds an older flow of the same key, which a new
/// flow replaces, but a denied packet must not touch.
#[inline(always)]
fn first_packet<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    shadowed: bool,
) -> Exit {
    let (local, remote, _, _) = packet.sides::<DIRECTION>();
    if !is_ours::<F, DIRECTION>(skb, word, packet) {
        if DIRECTION == EGRESS
            && packet.l4.state == l4_state::TRACKED
            && F::peer(local, word.slot()).identity == identity::HOST
        {
            // Masqueraded: not judged, but its answers must pass.
            let bits = flags::UNJUDGED | flags::OPENED_EGRESS;
            create::<F, DIRECTION>(skb, word, packet, UNENFORCED, 0, bits);
        }
        return Exit::silent(reason::NOT_OURS);
    }
    let peer = F::peer(remote, word.slot());
    if packet.l4.state == REFUSED {
        return Exit::refused(word, DIRECTION, packet.l4.icmp_code, peer.identity);
    }
    if DIRECTION == INGRESS && peer.identity == identity::HOST {
        return Exit::refused(word, DIRECTION, reason::INVALID_SOURCE, peer.identity);
    }
    let (cell, bits) = judge_first::<F, DIRECTION>(skb, word, packet, peer);
    let reply = conntrack::opened(bits) != DIRECTION;
    if cell.passes() && is_trackable::<F, DIRECTION>(skb, &packet.l4) {
        if shadowed {
            let _ = F::full().remove(&packet.key::<DIRECTION>());
        }
        let created = create::<F, DIRECTION>(skb, word, packet, cell, peer.identity, bits);
        // Where nothing is dropped, the verdict is reported even so.
        if !created && !word.watched(DIRECTION) {
            return Exit::refused(word, DIRECTION, reason::CT_INSERT, peer.identity);
        }
    }
    let event = if reply { event::flags::REPLY } else { 0 };
    let report = word.asks(DIRECTION);
    Exit::judged(word, DIRECTION, cell, peer.identity, event, report)
}

/// Verdict of a first packet, and the flags of its entry.
///
/// A TCP packet in mid-stream may belong to a flow that is older than we are or
/// whose entry was evicted: where enforced policy does not simply allow it, the
/// kernel's sockets tell who opened the flow, and it is judged in that direction.
#[inline(always)]
fn judge_first<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    peer: Peer,
) -> (Cell, u32) {
    let l4 = &packet.l4;
    let mut cell = UNENFORCED;
    if word.asks(DIRECTION) {
        cell = verdict_of::<F>(word.slot(), DIRECTION, peer, l4, l4.destination_port);
    }
    let mut bits = if DIRECTION == EGRESS {
        flags::OPENED_EGRESS
    } else {
        0
    };
    let mid_stream =
        l4.proto == proto::TCP && l4.state == l4_state::TRACKED && !conntrack::is_opening(l4);
    if !mid_stream {
        return (cell, bits);
    }
    bits |= flags::GUESSED;
    if word.enforced(DIRECTION) && cell.action() == action::ALLOW {
        return (cell, bits);
    }
    let key = packet.key::<DIRECTION>();
    let Some(opener) = conntrack::opener_by_socket::<F>(skb, &key) else {
        return (cell, bits);
    };
    bits = flags::SEEN_REPLY | flags::SEEN_NON_SYN;
    if opener == EGRESS {
        bits |= flags::OPENED_EGRESS;
    }
    if opener != DIRECTION {
        // The other direction's server port is this packet's source port.
        cell = UNENFORCED;
        if word.asks(opener) {
            cell = verdict_of::<F>(word.slot(), opener, peer, l4, l4.source_port);
        }
    }
    (cell, bits)
}

/// Whether the packet is from or to the host itself. In doubt it is.
#[inline(always)]
fn is_ours<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
) -> bool {
    // SAFETY: `skb` is the context.
    let (pkt_type, ingress_ifindex) = unsafe { ((*skb).pkt_type, (*skb).ingress_ifindex) };
    if DIRECTION == EGRESS {
        return ingress_ifindex == 0;
    }
    match pkt_type {
        PACKET_HOST => !F::is_forwarded(skb, packet),
        // For another station (bridge port, macvlan, promiscuous mode).
        PACKET_OTHERHOST => F::peer(packet.destination, word.slot()).identity == identity::HOST,
        _ => true,
    }
}

/// Whether conntrack can answer for the rest of the flow.
#[inline(always)]
fn is_trackable<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, l4: &L4) -> bool {
    if l4.state != l4_state::TRACKED {
        return false;
    }
    if l4.proto == F::ICMP && l4.tcp_flags_or_type != F::ECHO_REQUEST {
        return false;
    }
    if l4.proto == proto::TCP && l4.tcp_flags_or_type & TCP_RST != 0 {
        return false;
    }
    // Answers to broadcast and multicast come from other addresses.
    // SAFETY: `skb` is the context.
    DIRECTION == EGRESS || unsafe { (*skb).pkt_type } == PACKET_HOST
}

/// The verdict on a packet to `port` of a peer, in one direction.
#[inline(always)]
fn verdict_of<F: Family>(slot: u32, direction: u32, peer: Peer, l4: &L4, port: u16) -> Cell {
    let (class, key) = if l4.state == l4_state::FRAGMENT_UNKNOWN {
        (column::OTHER, column::OTHER_FRAGMENT as u16)
    } else {
        conntrack::column_of::<F>(l4.proto, port, l4.tcp_flags_or_type)
    };
    verdict::lookup(slot, direction, peer.index, class, key)
}

/// Creates the entry of a new flow. False: there was no room.
#[inline(always)]
fn create<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    cell: Cell,
    identity: u32,
    bits: u32,
) -> bool {
    let key = packet.key::<DIRECTION>();
    let opening = conntrack::is_opening(&packet.l4);
    let forward = conntrack::opened(bits) == DIRECTION;
    // SAFETY: `skb` is the context.
    let bytes = u64::from(unsafe { (*skb).len });
    let life = conntrack::lifetime(word.slot(), packet.l4.proto, !opening);
    let entry = CtEntry {
        expires_jiffies: conntrack::now() + life,
        flags: if opening {
            bits
        } else {
            bits | flags::SEEN_NON_SYN
        },
        epoch: word.epoch(),
        cell: cell.0,
        identity,
        packets: if forward { [1, 0] } else { [0, 1] },
        bytes: if forward { [bytes, 0] } else { [0, bytes] },
    };
    if bits & flags::SEEN_REPLY != 0 {
        F::full().insert(&key, entry, 0).is_ok()
    } else {
        F::half().insert(&key, entry, 0).is_ok()
    }
}
