//! The family programs: what happens to an IPv4 or IPv6 packet.
//!
//! The usual packet is one of a flow that was judged in the current epoch:
//! headers, one conntrack lookup, out. All else goes on in [`crate::known`] and [`crate::first`],
//! functions that the verifier looks at by themselves.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    cb,
    commit::CommitWord,
    conntrack::{Judged, flags},
    direction::EGRESS,
    reason,
    table::action,
};

use crate::{
    conntrack, counters, events,
    exit::Exit,
    family::{Family, Packet, hint},
    flows, kernel,
};

/// Judges one packet. The entry program has left the commit word and the
/// offset of the IP header in `skb->cb`.
#[inline(always)]
pub fn judge<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: `skb` is the program's context.
    let (word, l3) = unsafe {
        (
            CommitWord::from_halves((*skb).cb[cb::COMMIT_LOW], (*skb).cb[cb::GENERATION]),
            (*skb).cb[cb::L3_OFFSET] & cb::L3_BITS,
        )
    };
    // Not initialised as a whole: that would cost the usual packet more than its
    // headers do.
    let mut packet = MaybeUninit::<Packet<F>>::uninit();
    let packet = packet.as_mut_ptr();
    // SAFETY: a glance writes addresses and `l4`; until `complete` or `parse_apart`
    // has written all nothing else is read.
    let packet = unsafe {
        if F::glance(skb, l3, packet).is_some() {
            let Some(hints) = pass_known::<F, DIRECTION>(skb, word, packet) else {
                return counters::pass(skb, reason::FORWARDED, DIRECTION);
            };
            Packet::complete(packet, skb, hints);
        } else {
            Packet::begin(packet, skb);
            let refused = F::parse_apart(skb, &mut *packet) as u8;
            if refused != 0 {
                return if word.enforced(DIRECTION) {
                    counters::drop(skb, refused, DIRECTION)
                } else {
                    counters::pass(skb, reason::NOT_ENFORCED, DIRECTION)
                };
            }
        }
        &mut *packet
    };
    decide_apart::<F, DIRECTION>(skb, packet);
    leave::<F, DIRECTION>(skb, word, packet)
}

/// The usual packet: its flow's entry says that it passes. None: it does, and is
/// noted there; else what was found out.
///
/// # Safety
/// Addresses and `l4` of `packet` are written.
#[inline(always)]
unsafe fn pass_known<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: *mut Packet<F>,
) -> Option<u32> {
    // SAFETY: the caller's word; entries come from a lookup, `skb` is the context.
    unsafe {
        let l4 = (*packet).l4;
        if conntrack::is_opening(&l4) {
            return Some(0);
        }
        let key = (*packet).key::<DIRECTION>();
        let Some(found) = flows::glance::<F>(&key, kernel::now()) else {
            return Some(hint::NO_ENTRY);
        };
        let entry = &*found.entry;
        let judged = conntrack::judged(entry);
        let bits = (&raw const entry.flags).read_volatile();
        if !found.holds() || !answers::<DIRECTION>(skb, word, judged, bits) {
            return Some(0);
        }
        conntrack::refresh::<DIRECTION>(found, word.slot(), &l4, (*skb).len);
        counters::rule(skb, judged.cell().rule());
        None
    }
}

/// Decides about a packet that no entry answers for at a glance.
#[inline(always)]
fn decide_apart<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<F>) {
    let new = packet.opens.flags & hint::NO_ENTRY != 0 || conntrack::is_opening(&packet.l4);
    if !new && F::judge_known::<DIRECTION>(skb, packet) != NO_FLOW {
        return;
    }
    if F::judge_first::<DIRECTION>(skb, packet) == REPEATS {
        if F::judge_known::<DIRECTION>(skb, packet) == NO_FLOW {
            // Evicted in this very moment; policy has allowed the packet.
            packet.exit = Exit::silent(reason::FORWARDED);
        }
    }
}

/// Counts, reports, and goes on or drops.
#[inline(always)]
fn leave<F: Family, const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    packet: &Packet<F>,
) -> i32 {
    let exit = packet.exit;
    if exit.event != 0 {
        events::emit::<F>(skb, word, DIRECTION, packet);
    }
    counters::rule(skb, exit.rule);
    if exit.reason >= reason::DROP_MIN {
        counters::drop(skb, exit.reason, DIRECTION)
    } else {
        counters::pass(skb, exit.reason, DIRECTION)
    }
}

/// Answers of [`crate::known`] and [`crate::first`]: the packet's exit is set.
pub const DECIDED: u32 = 0;
/// The packet belongs to no flow.
pub const NO_FLOW: u32 = 1;
/// The packet opens a flow that is open already.
pub const REPEATS: u32 = 2;

/// What a function of its own gets: the commit word that the entry program left,
/// and the packet.
#[inline(always)]
pub fn open<'a, F: Family>(
    skb: *mut __sk_buff,
    packet: *mut Packet<F>,
) -> Option<(CommitWord, &'a mut Packet<F>)> {
    if packet.is_null() {
        return None;
    }
    // SAFETY: `skb` is the program's context; `packet` is not null, and the
    // verifier has checked the caller's memory behind it.
    unsafe {
        let word = CommitWord::from_halves((*skb).cb[cb::COMMIT_LOW], (*skb).cb[cb::GENERATION]);
        Some((word, &mut *packet))
    }
}

/// Whether an entry says of this epoch that its flow passes.
#[inline(always)]
fn answers<const DIRECTION: u32>(
    skb: *mut __sk_buff,
    word: CommitWord,
    judged: Judged,
    bits: u32,
) -> bool {
    if judged.cell().action() != action::ALLOW {
        return false;
    }
    if bits & flags::UNJUDGED == 0 {
        return judged.epoch() == word.epoch();
    }
    // Masqueraded: not judged. The host itself may reuse the tuple.
    // SAFETY: `skb` is the context.
    DIRECTION != EGRESS || unsafe { (*skb).ingress_ifindex } != 0
}
