//! The first packet of a flow, as far as we know: is it ours, is its source a
//! lie, who is the peer, the verdict (DESIGN: the packet's way).
//!
//! A TCP packet that opens a flow comes here before conntrack is asked: a denied
//! one changes nothing there. Nothing is dropped in a direction that is not
//! enforced; a direction that is watched reports its verdicts all the same.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    commit::CommitWord,
    conntrack::flags,
    direction::{EGRESS, INGRESS},
    event,
    flows::{ANSWERED, ONE_SIDED},
    identity, proto, reason,
    table::{Cell, action, class},
};

use crate::{
    conntrack,
    control::{self, Claim},
    exit::Exit,
    family::{Family, Opens, Packet},
    flow::{DECIDED, REPEATS, open},
    flows::{self, Found},
    kernel,
    packet::{L4, PACKET_HOST, PACKET_OTHERHOST, TCP_RST, l4_state},
    transport::REFUSED,
    verdict::{self, Peer, UNENFORCED},
};

/// Decides how the packet leaves; [`REPEATS`] where an opening packet belongs to a
/// flow that is open already.
#[inline(always)]
pub fn judge<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, packet: *mut Packet<F>) -> u32 {
    let Some((word, packet)) = open(skb, packet) else {
        return DECIDED;
    };
    match decide::<F, DIRECTION>(skb, word, packet) {
        Some(exit) => {
            packet.exit = exit;
            DECIDED
        }
        None => REPEATS,
    }
}

#[inline(always)]
fn decide<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &mut Packet<F>,
) -> Option<Exit> {
    let ours = u32::from(is_ours::<F, DIRECTION>(skb, word, packet));
    if packet.forget(ours) == 0 {
        if DIRECTION == EGRESS
            && packet.l4.state == l4_state::TRACKED
            && F::peer(packet.local::<DIRECTION>(), word.slot()).identity == identity::HOST
        {
            // Masqueraded: not judged, but its answers must pass.
            let bits = flags::UNJUDGED | flags::OPENED_EGRESS;
            let life = note::<F, DIRECTION>(skb, word, packet, UNENFORCED, 0, bits);
            create::<F, DIRECTION>(packet, life);
        }
        return Some(Exit::silent(reason::NOT_OURS));
    }
    let peer = F::peer(packet.remote::<DIRECTION>(), word.slot());
    let peer = Peer {
        identity: packet.forget(peer.identity),
        index: packet.forget(peer.index),
    };
    if packet.l4.state == REFUSED {
        let reason = packet.l4.icmp_code;
        return Some(Exit::refused(word, DIRECTION, reason, peer.identity));
    }
    if DIRECTION == INGRESS && peer.identity == identity::HOST {
        let reason = reason::INVALID_SOURCE;
        return Some(Exit::refused(word, DIRECTION, reason, peer.identity));
    }
    let (cell, bits) = judge_first::<F, DIRECTION>(skb, word, packet, peer);
    let (cell, bits) = (Cell(packet.forget(cell.0)), packet.forget(bits));
    let (cell, bits) = if DIRECTION == EGRESS {
        let own = own_flag(skb, packet, bits);
        match packet.forget(own) {
            0 => (cell, bits),
            own if cell.action() == action::ALLOW => (cell, bits | own),
            own => (UNENFORCED, packet.forget(bits | own)),
        }
    } else {
        (cell, bits)
    };
    if cell.passes() && is_trackable::<F, DIRECTION>(skb, &packet.l4) {
        let life = note::<F, DIRECTION>(skb, word, packet, cell, peer.identity, bits);
        match create::<F, DIRECTION>(packet, life) {
            Created::Yes => {}
            Created::Repeats => return None,
            // Where nothing is dropped, the verdict is reported even so.
            Created::NoRoom if word.watched(DIRECTION) => {}
            Created::NoRoom => {
                let reason = reason::CT_INSERT;
                return Some(Exit::refused(word, DIRECTION, reason, peer.identity));
            }
        }
    }
    let reply = conntrack::opened(bits) != DIRECTION;
    let event = if reply { event::flags::REPLY } else { 0 };
    let report = word.asks(DIRECTION);
    let mut exit = Exit::judged(word, DIRECTION, cell, peer.identity, event, report);
    if DIRECTION == EGRESS && bits & flags::OWN != 0 {
        exit.reason = reason::OWN;
    }
    Some(exit)
}

/// The flag of a flow that is the agent's own: a packet goes out and opens it.
/// Nearly none has a mark.
#[inline(always)]
fn own_flag<F: Family>(skb: *mut __sk_buff, packet: &Packet<F>, bits: u32) -> u32 {
    // SAFETY: `skb` is the context.
    let mark = unsafe { (*skb).mark };
    if mark == 0 || bits & flags::OPENED_EGRESS == 0 {
        return 0;
    }
    let (port, proto) = (packet.l4.destination_port, packet.l4.proto);
    let claim = Claim::OPENS_MARKED;
    control::is_own::<F>(packet.destination, port, proto, claim, mark) * flags::OWN
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
        // The routing table knows best, but asking it costs more than all else
        // of the way; an address of ours needs no question.
        PACKET_HOST => {
            F::peer(&packet.destination, word.slot()).identity == identity::HOST
                || !F::is_forwarded(skb, packet)
        }
        // For another station (bridge port, macvlan, promiscuous mode).
        PACKET_OTHERHOST => F::peer(&packet.destination, word.slot()).identity == identity::HOST,
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
        (class::OTHER, class::OTHER_FRAGMENT as u16)
    } else {
        conntrack::key_of::<F>(l4.proto, port, l4.tcp_flags_or_type)
    };
    verdict::lookup(slot, direction, peer.index, class, key)
}

/// Notes the entry of a new flow; answers how many jiffies it lives.
#[inline(always)]
fn note<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &mut Packet<F>,
    cell: Cell,
    identity: u32,
    bits: u32,
) -> u64 {
    let forward = conntrack::opened(bits) == DIRECTION;
    let opening = conntrack::is_opening(&packet.l4);
    let mut bits = bits;
    if !opening {
        bits |= flags::SEEN_NON_SYN;
    }
    let mut life = 0;
    if let Some(settings) = conntrack::settings(word.slot()) {
        life = conntrack::lifetime_of(settings, packet.l4.proto, !opening);
        if settings.ordered_stores != 0 {
            bits |= Opens::ORDERED;
        }
    }
    // SAFETY: `skb` is the context.
    let bytes = unsafe { (*skb).len };
    packet.opens = Opens {
        epoch: word.epoch(),
        cell,
        flags: bits,
        identity,
        bytes: if forward {
            bytes | Opens::FORWARD
        } else {
            bytes
        },
    };
    u64::from(life)
}

/// What became of a new flow's entry.
enum Created {
    Yes,
    NoRoom,
    /// The packet belongs to a flow that was open already.
    Repeats,
}

/// Enters a new flow. An older one of the same key makes room for it, unless the
/// packet belongs to that one.
#[inline(always)]
fn create<F: Family, const DIRECTION: u32>(packet: &mut Packet<F>, life: u64) -> Created {
    let key = packet.key::<DIRECTION>();
    if conntrack::is_opening(&packet.l4)
        && let Some(found) = flows::find::<F>(&key, kernel::now())
    {
        if repeats::<DIRECTION>(found) {
            return Created::Repeats;
        }
        found.remove();
    }
    packet.scratch_key = key;
    let kind = if packet.opens.flags & flags::SEEN_REPLY != 0 {
        ANSWERED
    } else {
        ONE_SIDED
    };
    let mut entered = F::enter(packet, life, kind);
    if entered == 0 {
        // Another CPU was as fast. Once more, it would have to be so again.
        entered = F::enter(packet, life, kind);
    }
    if packet.forget(entered) != 0 {
        Created::Yes
    } else {
        Created::NoRoom
    }
}

/// Whether an opening packet (SYN) belongs to a flow that is open already: it is
/// repeated, or both sides open at once.
#[inline(always)]
fn repeats<const DIRECTION: u32>(found: Found) -> bool {
    // SAFETY: `found.entry` comes from a lookup.
    let bits = unsafe { (*found.entry).flags };
    let forward = conntrack::opened(bits) == DIRECTION;
    bits & flags::CLOSING_BOTH == 0
        && (forward || bits & (flags::SEEN_NON_SYN | flags::SEEN_REPLY) == 0)
}
