//! The family programs: what happens to an IPv4 or IPv6 packet.
//!
//! Order (DESIGN: the packet's way): headers, what always passes, conntrack;
//! on a miss: is it ours, is its source a lie, who is the peer, the verdict.
//! Nothing is dropped in a direction that is not enforced.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    cb,
    commit::CommitWord,
    conntrack::{CtEntry, flags, kind},
    direction::{EGRESS, INGRESS},
    event, identity, proto, reason,
    table::{Cell, action, column},
};

use crate::{
    conntrack::{self, Found},
    counters,
    events::{Decision, emit},
    family::Family,
    packet::{L4, PACKET_HOST, PACKET_OTHERHOST, TCP_RST, l4_state},
    transport::REFUSED,
    verdict::{self, Peer},
};

/// A packet's addresses and transport header.
pub struct Packet<F: Family> {
    pub source: F::Addr,
    pub destination: F::Addr,
    pub l4: L4,
}

impl<F: Family> Packet<F> {
    /// Local address, remote address, local port, remote port.
    #[inline(always)]
    pub fn sides<const DIRECTION: u32>(&self) -> (F::Addr, F::Addr, u16, u16) {
        let l4 = &self.l4;
        if DIRECTION == INGRESS {
            (
                self.destination,
                self.source,
                l4.destination_port,
                l4.source_port,
            )
        } else {
            (
                self.source,
                self.destination,
                l4.source_port,
                l4.destination_port,
            )
        }
    }

    /// The key of the packet's flow.
    #[inline(always)]
    pub fn key<const DIRECTION: u32>(&self) -> F::Key {
        let (local, remote, local_port, remote_port) = self.sides::<DIRECTION>();
        let kind = if self.l4.proto != F::ICMP {
            kind::TUPLE
        } else if (self.l4.tcp_flags_or_type == F::ECHO_REQUEST) == (DIRECTION == EGRESS) {
            kind::ECHO_LOCAL
        } else {
            kind::ECHO_REMOTE
        };
        F::key(local, remote, local_port, remote_port, self.l4.proto, kind)
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
    match packet.l4.state {
        l4_state::PASS_RELATED => return counters::pass(skb, reason::RELATED, DIRECTION),
        l4_state::PASS_CONTROL => return counters::pass(skb, reason::ICMPV6_BYPASS, DIRECTION),
        l4_state::ICMP_ERROR => {
            if is_related::<F, DIRECTION>(skb, word, &packet) {
                return counters::pass(skb, reason::RELATED, DIRECTION);
            }
        }
        l4_state::TRACKED | l4_state::FRAGMENT_KNOWN => {
            let key = packet.key::<DIRECTION>();
            let now = conntrack::now();
            if let Some(found) = conntrack::find::<F>(&key, now) {
                if belongs::<DIRECTION>(skb, &packet.l4, found) {
                    return established::<F, DIRECTION>(skb, word, &packet, &key, found, now);
                }
                if !found.in_half {
                    // Opened anew: the old entry must not shadow the new one.
                    let _ = F::full().remove(&key);
                }
            }
        }
        _ => {}
    }
    first_packet::<F, DIRECTION>(skb, word, &packet)
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
) -> i32 {
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &mut *found.entry };
    let mut cell = Cell(entry.cell);
    let old = entry.epoch != word.epoch() && entry.flags & flags::UNJUDGED == 0;
    if old {
        cell = Cell(conntrack::judge_again::<F>(skb, word.0, key, found.entry));
    }
    if !cell.passes() {
        if !word.enforced(DIRECTION) {
            return counters::pass(skb, reason::NOT_ENFORCED, DIRECTION);
        }
        let peer = Peer {
            identity: entry.identity,
            index: 0,
        };
        return deny::<F, DIRECTION>(skb, word, packet, cell, peer, old);
    }
    let forward = conntrack::opened(entry.flags) == DIRECTION;
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
    counters::rule(skb, cell.rule());
    if cell.action() == action::ALLOW {
        return counters::pass(skb, reason::FORWARDED, DIRECTION);
    }
    if old {
        report::<F, DIRECTION>(skb, word, packet, cell, entry.identity, true);
    }
    counters::pass(skb, reason::AUDITED, DIRECTION)
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
#[inline(always)]
fn first_packet<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
) -> i32 {
    let (local, remote, local_port, remote_port) = packet.sides::<DIRECTION>();
    if !is_ours::<F, DIRECTION>(skb, word, packet) {
        if DIRECTION == EGRESS
            && packet.l4.state == l4_state::TRACKED
            && F::peer(local, word.slot()).identity == identity::HOST
        {
            // Masqueraded: not judged, but its answers must pass.
            let allow = Cell::new(action::ALLOW, false, 0);
            create::<F, DIRECTION>(
                skb,
                word,
                packet,
                allow,
                0,
                flags::UNJUDGED | flags::OPENED_EGRESS,
            );
        }
        return counters::pass(skb, reason::NOT_OURS, DIRECTION);
    }
    let peer = F::peer(remote, word.slot());
    if packet.l4.state == REFUSED {
        return refuse::<F, DIRECTION>(skb, word, packet, packet.l4.icmp_code, peer);
    }
    if DIRECTION == INGRESS && peer.identity == identity::HOST {
        return refuse::<F, DIRECTION>(skb, word, packet, reason::INVALID_SOURCE, peer);
    }
    let enforced = word.enforced(DIRECTION);
    let mut cell = Cell::new(action::ALLOW, false, 0);
    if enforced {
        cell = verdict_of::<F>(
            word.slot(),
            DIRECTION,
            peer,
            &packet.l4,
            packet.l4.destination_port,
        );
    }
    let mut bits = if DIRECTION == EGRESS {
        flags::OPENED_EGRESS
    } else {
        0
    };
    if packet.l4.proto == proto::TCP
        && packet.l4.state == l4_state::TRACKED
        && !conntrack::is_opening(&packet.l4)
    {
        bits |= flags::GUESSED;
        if !enforced || cell.action() != action::ALLOW {
            let key = packet.key::<DIRECTION>();
            if let Some(opener) = conntrack::opener_by_socket::<F>(skb, &key) {
                bits = flags::SEEN_REPLY | flags::SEEN_NON_SYN;
                if opener == EGRESS {
                    bits |= flags::OPENED_EGRESS;
                }
                if opener != DIRECTION {
                    let port = if opener == INGRESS {
                        local_port
                    } else {
                        remote_port
                    };
                    cell = Cell::new(action::ALLOW, false, 0);
                    if word.enforced(opener) {
                        cell = verdict_of::<F>(word.slot(), opener, peer, &packet.l4, port);
                    }
                }
            }
        }
    }
    if !cell.passes() {
        if !enforced {
            return counters::pass(skb, reason::NOT_ENFORCED, DIRECTION);
        }
        return deny::<F, DIRECTION>(skb, word, packet, cell, peer, false);
    }
    if is_trackable::<F, DIRECTION>(skb, &packet.l4)
        && !create::<F, DIRECTION>(skb, word, packet, cell, peer.identity, bits)
    {
        return refuse::<F, DIRECTION>(skb, word, packet, reason::CT_INSERT, peer);
    }
    if enforced {
        report::<F, DIRECTION>(skb, word, packet, cell, peer.identity, false);
    }
    counters::rule(skb, cell.rule());
    let exit = if cell.action() == action::ALLOW {
        reason::FORWARDED
    } else {
        reason::AUDITED
    };
    counters::pass(skb, exit, DIRECTION)
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

/// Drops for a reason that is not a verdict, where the direction is enforced.
#[inline(always)]
fn refuse<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    reason: u8,
    peer: Peer,
) -> i32 {
    if !word.enforced(DIRECTION) {
        return counters::pass(skb, reason::NOT_ENFORCED, DIRECTION);
    }
    let decision = Decision {
        kind: event::kind::DROP,
        reason,
        rejudged: false,
        rule: 0,
        identity: peer.identity,
    };
    emit::<F>(skb, word, DIRECTION, packet, decision);
    counters::drop(skb, reason, DIRECTION)
}

/// Drops by verdict.
#[inline(always)]
fn deny<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    cell: Cell,
    peer: Peer,
    rejudged: bool,
) -> i32 {
    let reason = reason_of(cell);
    let decision = Decision {
        kind: event::kind::DROP,
        reason,
        rejudged,
        rule: cell.rule(),
        identity: peer.identity,
    };
    emit::<F>(skb, word, DIRECTION, packet, decision);
    counters::rule(skb, cell.rule());
    counters::drop(skb, reason, DIRECTION)
}

/// Reports a flow that passes: allowed, or denied in audit.
#[inline(always)]
fn report<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    cell: Cell,
    identity: u32,
    rejudged: bool,
) {
    let allowed = cell.action() == action::ALLOW;
    let decision = Decision {
        kind: if allowed {
            event::kind::ALLOW
        } else {
            event::kind::AUDIT
        },
        reason: if allowed {
            reason::FORWARDED
        } else {
            reason_of(cell)
        },
        rejudged,
        rule: cell.rule(),
        identity,
    };
    emit::<F>(skb, word, DIRECTION, packet, decision);
}

/// Drop reason of a denial.
#[inline(always)]
fn reason_of(cell: Cell) -> u8 {
    match cell.action() {
        action::DENY => reason::POLICY_DENY,
        action::FRAGMENT => reason::FRAGMENT_NOT_FOUND,
        _ => reason::POLICY,
    }
}
