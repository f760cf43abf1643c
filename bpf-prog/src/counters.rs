//! Per-CPU counters: every exit of the programs increments exactly one reason.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::reason::counter_index;

use crate::{
    maps::{COUNTERS, CT_EVICTED, LOST, RULES},
    packet::{NEXT, SHOT},
};

#[inline(always)]
fn count(skb: *mut __sk_buff, reason: u8, direction: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(reason, direction)) {
        // SAFETY: the pointer comes from a lookup in a per-CPU map and no other
        // program runs on this CPU's element at the same time.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from((*skb).len);
        }
    }
}

/// Counts and lets the packet go on.
#[inline(always)]
pub fn pass(skb: *mut __sk_buff, reason: u8, direction: u32) -> i32 {
    count(skb, reason, direction);
    NEXT
}

/// Counts and drops. Callers have checked that the direction is enforced.
#[inline(always)]
pub fn drop(skb: *mut __sk_buff, reason: u8, direction: u32) -> i32 {
    count(skb, reason, direction);
    SHOT
}

/// Counts a packet that rule `number` decided (0: none did).
#[inline(always)]
pub fn rule(skb: *mut __sk_buff, number: u32) {
    if number == 0 {
        return;
    }
    if let Some(counter) = RULES.get_ptr_mut(number) {
        // SAFETY: as in `count`.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from((*skb).len);
        }
    }
}

/// Counts an event that could not be sent; `cause` of `palisade_abi::event::lost`.
#[inline(always)]
pub fn lost(cause: u32) {
    if let Some(counter) = LOST.get_ptr_mut(cause) {
        // SAFETY: as in `count`.
        unsafe { *counter += 1 };
    }
}

/// Counts a flow that had to make room for another while it lived.
#[inline(always)]
pub fn evicted(kind: u64) {
    if let Some(counter) = CT_EVICTED.get_ptr_mut(kind as u32) {
        // SAFETY: as in `count`.
        unsafe { *counter += 1 };
    }
}
