//! The IPv6 ipcache: address -> identity, by two searches among ranges.

use palisade_abi::ipcache6::{CHUNK_ENTRIES, CHUNKS, Chunk, Index, Meaning, Range, chunk_key};

use crate::{
    branchless::masked,
    maps::{INDEX6, IPCACHE6},
    v6::Address,
    verdict::Peer,
};

const RANGE: u64 = size_of::<Range>() as u64;

/// Who has an address, in network byte order.
#[inline(always)]
pub fn lookup(address: &Address, slot: u32) -> Peer {
    let address = address.map(u64::from_be);
    let Some(index) = INDEX6.get_ptr(slot) else {
        return Peer::UNKNOWN;
    };
    let entries = index
        .cast::<u8>()
        .wrapping_add(core::mem::offset_of!(Index, entries));
    // SAFETY: a non-null pointer from a lookup.
    let window = unsafe { (*index).window };
    let piece = search::<{ CHUNKS as u64 - 1 }>(entries, window, address);
    let Some(chunk) = IPCACHE6.get_ptr(chunk_key(slot & 1, piece as u32)) else {
        return Peer::UNKNOWN;
    };
    let chunk: *const Chunk = chunk;
    const WINDOW: u64 = CHUNK_ENTRIES as u64;
    let meaning = Meaning(search::<{ WINDOW - 1 }>(chunk.cast(), WINDOW, address));
    Peer {
        identity: meaning.identity(),
        index: meaning.index(),
    }
}

/// The word of the last of `window` entries that does not begin behind an address. By
/// branches: where they are guessed, nothing waits for memory.
#[inline(always)]
fn search<const MASK: u64>(entries: *const u8, window: u64, [network, host]: [u64; 2]) -> u64 {
    let mut at = 0;
    let mut stride = window;
    for _ in 0..MASK.count_ones() {
        stride >>= 1;
        let probe = masked(at + stride, MASK);
        let high = read(entries, probe, 0);
        let is_behind = high > network || (high == network && read(entries, probe, 1) > host);
        // Of both the verifier knows the mask alone, so that paths join again.
        at = masked(if is_behind { at } else { probe }, MASK);
        if stride <= 1 {
            break;
        }
    }
    read(entries, masked(at, MASK), 2)
}

#[inline(always)]
fn read(entries: *const u8, at: u64, word: u64) -> u64 {
    let offset = at * RANGE + word * 8;
    // SAFETY: the number of the entry is masked to how many there are.
    unsafe { *entries.add(offset as usize).cast() }
}
