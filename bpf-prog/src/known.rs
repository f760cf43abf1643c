//! A packet that its flow's entry cannot answer for at a glance: the entry is of
//! an older decision epoch, was seen from one side only, denies or audits; or
//! the packet is an ICMP error about a flow.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    commit::CommitWord,
    conntrack::flags,
    direction::{EGRESS, INGRESS},
    event, reason,
    table::action,
};

use crate::{
    conntrack,
    exit::Exit,
    family::{Family, Packet},
    flow::{DECIDED, NO_FLOW, open},
    flows::{self, Found},
    kernel,
    packet::l4_state,
};

/// Decides by the packet's flow how it leaves; [`NO_FLOW`] where it has none.
#[inline(always)]
pub fn judge<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, packet: *mut Packet<F>) -> u32 {
    let Some((word, packet)) = open(skb, packet) else {
        return NO_FLOW;
    };
    match decide::<F, DIRECTION>(skb, word, packet) {
        Some(exit) => {
            packet.exit = exit;
            DECIDED
        }
        None => NO_FLOW,
    }
}

#[inline(always)]
fn decide<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &mut Packet<F>,
) -> Option<Exit> {
    let related = match packet.l4.state {
        l4_state::PASS_RELATED => return Some(Exit::silent(reason::RELATED)),
        l4_state::PASS_CONTROL => return Some(Exit::silent(reason::ICMPV6_BYPASS)),
        l4_state::TRACKED | l4_state::FRAGMENT_KNOWN => 0,
        l4_state::ICMP_ERROR => 1,
        _ => return None,
    };
    let related = packet.forget(related) != 0;
    let key = if related {
        quoted_key::<F, DIRECTION>(skb, packet)?
    } else {
        packet.key::<DIRECTION>()
    };
    let now = kernel::now();
    let found = flows::find::<F>(&key, now)?;
    if !related && is_reused::<DIRECTION>(skb, found) {
        found.remove();
        return None;
    }
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &mut *found.entry };
    let judged = conntrack::judged(entry);
    let mut old = judged.epoch() != word.epoch() && entry.flags & flags::UNJUDGED == 0;
    if DIRECTION == EGRESS {
        old |= !judged.cell().passes() && is_marked(skb);
        old = packet.forget(u32::from(old)) != 0;
    }
    if old {
        conntrack::judge_again::<F, DIRECTION>(skb, word, packet, &key, entry);
    }
    if related {
        // An ICMP error passes with the flow it is about.
        return conntrack::judged(entry)
            .cell()
            .passes()
            .then(|| Exit::silent(reason::RELATED));
    }
    Some(established::<F, DIRECTION>(skb, word, packet, found, old))
}

/// Whether the packet carries some mark: its flow may be the agent's own, though a
/// packet without has had it denied in this epoch.
#[inline(always)]
fn is_marked(skb: *mut __sk_buff) -> bool {
    // SAFETY: `skb` is the context.
    unsafe { (*skb).mark != 0 }
}

/// Whether an entry is that of a masqueraded flow whose tuple the host itself
/// uses now.
#[inline(always)]
fn is_reused<const DIRECTION: u32>(skb: *mut __sk_buff, found: Found) -> bool {
    // SAFETY: `found.entry` comes from a lookup, `skb` is the context.
    let (bits, ingress_ifindex) = unsafe { ((*found.entry).flags, (*skb).ingress_ifindex) };
    DIRECTION == EGRESS && bits & flags::UNJUDGED != 0 && ingress_ifindex == 0
}

/// A packet of a known flow, whose entry says what becomes of it. `old`: it has
/// just been judged again.
#[inline(always)]
fn established<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
    found: Found,
    old: bool,
) -> Exit {
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &*found.entry };
    let cell = conntrack::judged(entry).cell();
    let forward = conntrack::opened(entry.flags) == DIRECTION;
    if cell.passes() {
        // SAFETY: `skb` is the context.
        let bytes = unsafe { (*skb).len };
        conntrack::refresh::<DIRECTION>(found, word.slot(), &packet.l4, bytes);
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

/// The key of the flow that an ICMP error is about.
#[inline(always)]
fn quoted_key<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    packet: &Packet<F>,
) -> Option<F::Key> {
    let inner = F::parse_inner(skb, packet.l4.offset + 8)?;
    // The error quotes at least 8 octets of the transport header (RFC 792).
    let l4 = crate::transport::parse_quoted::<F>(skb, inner.proto, inner.offset)?;
    let inner = Packet::<F> {
        source: inner.source,
        destination: inner.destination,
        l4,
        ..Packet::NOTHING
    };
    // What is quoted went the other way.
    Some(if DIRECTION == INGRESS {
        inner.key::<EGRESS>()
    } else {
        inner.key::<INGRESS>()
    })
}
