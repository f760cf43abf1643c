//! The family programs: what happens to an IPv4 or IPv6 packet.
//!
//! The usual packet is one of a flow that has answers and was judged in the
//! current epoch: headers, one conntrack lookup, out. All else goes on in
//! [`crate::known`] and [`crate::first`], functions that the verifier looks at
//! by themselves.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{
    cb,
    commit::CommitWord,
    conntrack::{CtEntry, flags},
    direction::EGRESS,
    reason,
    table::{Cell, action},
};

use crate::{
    conntrack, counters,
    family::{Family, Packet, hint},
    packet::l4_state,
};

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
    let mut packet = Packet::<F>::NOTHING;
    if F::glance(skb, l3, &mut packet).is_none() {
        let refused = F::parse_apart(skb, &mut packet) as u8;
        if refused != 0 {
            return if word.enforced(DIRECTION) {
                counters::drop(skb, refused, DIRECTION)
            } else {
                counters::pass(skb, reason::NOT_ENFORCED, DIRECTION)
            };
        }
    }
    if packet.l4.state == l4_state::TRACKED && !conntrack::is_opening(&packet.l4) {
        let key = packet.key::<DIRECTION>();
        if let Some(entry) = F::full().get_ptr_mut(packet.forget_key(key)) {
            // SAFETY: a non-null pointer from a map lookup.
            let entry = unsafe { &mut *entry };
            let now = conntrack::now();
            if answers::<DIRECTION>(skb, word, entry, now) {
                let forward = conntrack::opened(entry.flags) == DIRECTION;
                // SAFETY: `skb` is the context.
                let bytes = unsafe { (*skb).len };
                conntrack::refresh(entry, word.slot(), &packet.l4, forward, now, bytes);
                counters::rule(skb, Cell(entry.cell).rule());
                return counters::pass(skb, reason::FORWARDED, DIRECTION);
            }
        } else {
            packet.hints = hint::NO_FULL;
        }
    }
    decide_apart::<F, DIRECTION>(skb, &mut packet);
    packet.exit.leave(skb, word, DIRECTION, &packet)
}

/// Decides about a packet that no entry answers for at a glance.
#[inline(always)]
fn decide_apart<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<F>) {
    if !conntrack::is_opening(&packet.l4) && F::judge_known::<DIRECTION>(skb, packet) != NO_FLOW {
        return;
    }
    if F::judge_first::<DIRECTION>(skb, packet) == REPEATS {
        // Where the entry was evicted in this very moment: policy has allowed
        // the packet, and the exit still says so.
        F::judge_known::<DIRECTION>(skb, packet);
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
    entry: &CtEntry,
    now: u64,
) -> bool {
    if entry.expires_jiffies <= now || Cell(entry.cell).action() != action::ALLOW {
        return false;
    }
    if entry.flags & flags::UNJUDGED == 0 {
        return entry.epoch == word.epoch();
    }
    // Masqueraded: not judged. The host itself may reuse the tuple.
    // SAFETY: `skb` is the context.
    DIRECTION != EGRESS || unsafe { (*skb).ingress_ifindex } != 0
}
