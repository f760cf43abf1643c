//! One record per decision, within a budget per CPU.
//!
//! Records are submitted without a wake-up: the reader polls on a timer, so a
//! flood of denied packets never pays for waking it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ktime_get_ns,
};
use palisade_abi::{
    commit::CommitWord,
    event::{Event, flags, kind, lost},
};

use crate::{
    counters,
    family::{Family, Packet},
    kernel,
    maps::{BUDGET, EVENTS, SETTINGS},
    packet::l4_state,
};

#[inline(always)]
fn within_budget(slot: u32, kind: u8) -> bool {
    let index = if kind == kind::DROP { 0 } else { 1 };
    let (Some(budget), Some(settings)) = (BUDGET.get_ptr_mut(index), SETTINGS.get_ptr(slot)) else {
        return false;
    };
    // SAFETY: per-CPU element and read-only settings, both from lookups.
    unsafe {
        let now = kernel::now();
        if now.wrapping_sub((*budget).interval_start) >= u64::from((*settings).event_refill_jiffies)
        {
            (*budget).interval_start = now;
            (*budget).used = 0;
        }
        if (*budget).used >= (*settings).event_budget {
            return false;
        }
        (*budget).used += 1;
    }
    true
}

/// Sends the record of what was decided about a packet.
#[inline(always)]
pub fn emit<F: Family>(skb: *mut __sk_buff, word: CommitWord, direction: u32, packet: &Packet<F>) {
    let exit = packet.exit;
    if !within_budget(word.slot(), exit.event) {
        counters::lost(lost::BUDGET);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        counters::lost(lost::RING_FULL);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: `event` points to a reserved record of the right size; every
    // field is written before it is submitted.
    unsafe {
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).kind = exit.event;
        (*event).reason = exit.event_reason;
        (*event).direction = direction as u8;
        (*event).family = F::NUMBER;
        (*event).proto = packet.l4.proto;
        (*event).tcp_flags_or_type = packet.l4.tcp_flags_or_type;
        (*event).icmp_code = packet.l4.icmp_code;
        let mut bits = exit.flags;
        if packet.l4.state == l4_state::FRAGMENT_KNOWN
            || packet.l4.state == l4_state::FRAGMENT_UNKNOWN
        {
            bits |= flags::FRAGMENT;
        }
        (*event).flags = bits;
        (*event).generation = word.generation();
        (*event).ifindex = (*skb).ifindex;
        (*event).len = (*skb).len;
        (*event).rule = exit.rule;
        (*event).peer_identity = exit.identity;
        (*event).source_port = u16::from_be(packet.l4.source_port);
        (*event).destination_port = u16::from_be(packet.l4.destination_port);
        F::store(packet.source, &raw mut (*event).source);
        F::store(packet.destination, &raw mut (*event).destination);
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
