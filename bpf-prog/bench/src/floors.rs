//! One program per operation. Each returns `FAILED` when the operation did not
//! do what its name says, so that no figure is that of an error.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, maps::lpm_trie::Key, programs::TcContext};
use palisade_abi::event::Event;

use crate::{
    family::Family,
    layout::walk as word,
    maps::RING,
    walk::{self, FAILED, NEXT},
};

/// What an LRU hash keeps of a flow here: a cache line.
pub type Entry = [u64; 8];
pub const FLOW: Entry = [u64::MAX, 1, 2, 1, 0, 54, 0, 0];

/// A longest-prefix match that finds something.
#[inline(always)]
pub fn trie<F: Family>(_context: &TcContext) -> i32 {
    let Some((_, tuple)) = walk::next() else {
        return FAILED;
    };
    match F::trie().get(Key::new(F::BITS, F::address(tuple))) {
        // SAFETY: a reference from a lookup; read so that the value's memory
        // is touched, as every user of it would.
        Some(value) if unsafe { (&raw const value.identity[0]).read_volatile() } != 0 => NEXT,
        _ => FAILED,
    }
}

/// A lookup among the flows, which finds one or does not.
#[inline(always)]
pub fn flow<F: Family, const FINDS: bool>(_context: &TcContext) -> i32 {
    let Some((state, tuple)) = walk::next() else {
        return FAILED;
    };
    let key = F::key(tuple, state[word::LOCAL_PORT] as u16);
    let found = match F::flows().get_ptr(&key) {
        // SAFETY: a non-null pointer from a lookup.
        Some(entry) => unsafe { entry.cast::<u64>().read_volatile() != 0 },
        None => false,
    };
    if found == FINDS { NEXT } else { FAILED }
}

/// A flow that was not there before.
#[inline(always)]
pub fn insert<F: Family>(_context: &TcContext) -> i32 {
    let Some((state, tuple)) = walk::next() else {
        return FAILED;
    };
    let key = F::key(tuple, state[word::LOCAL_PORT] as u16);
    match F::new_flows().insert(&key, FLOW, 0) {
        Ok(()) => NEXT,
        Err(_) => FAILED,
    }
}

/// A record of the size of an event, without a wake-up.
#[inline(always)]
pub fn record(_context: &TcContext) -> i32 {
    let Some(mut record) = RING.reserve::<Event>(0) else {
        return FAILED;
    };
    // SAFETY: the reserved bytes are ours; all of them are written, as an
    // event's are.
    unsafe {
        record
            .as_mut_ptr()
            .cast::<[u64; 9]>()
            .write_volatile([1; 9])
    };
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
    NEXT
}

const _: () = assert!(size_of::<Event>() == size_of::<[u64; 9]>());
