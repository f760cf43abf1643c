//! The IPv4 ipcache: address -> identity, by a search in the ranges of its /16.

use palisade_abi::ipcache::{DEFAULT, Entry, Meaning, OFFSET_MASK, Place, ROUNDS_MAX};

use crate::{
    branchless::{if_less, low_half},
    maps::{BUCKETS4, IPCACHE4},
    verdict::Peer,
};

/// Bytes of one word.
const WORD: u64 = 8;

/// Who has an address, in network byte order.
#[inline(always)]
pub fn lookup(address: u32, slot: u32) -> Peer {
    let Some(buckets) = BUCKETS4.get_ptr(slot) else {
        return Peer::UNKNOWN;
    };
    let buckets = buckets.cast::<u64>();
    let address = u64::from(u32::from_be(address));
    // SAFETY: the half of an address numbers a bucket.
    let word = unsafe { *buckets.add(low_half(address >> 16) as usize) };
    let mut meaning = Meaning(word);
    if Place::is_one(word) {
        let place = Place(word);
        let Some(segment) = IPCACHE4.get_ptr(place.element(slot)) else {
            return Peer::UNKNOWN;
        };
        let segment = segment.cast::<u8>();
        meaning = search(segment, place, address & 0xffff);
        if meaning.is_open() {
            meaning = Meaning(read(segment, place.offset()));
        }
    }
    if meaning.is_open() {
        // SAFETY: the word behind the buckets.
        meaning = unsafe { Meaning(*buckets.add(DEFAULT)) };
        if meaning.is_open() {
            return Peer::UNKNOWN;
        }
    }
    Peer {
        identity: meaning.identity(),
        index: meaning.index(),
    }
}

/// The meaning of the last entry of a chunk that does not begin after `low`.
#[inline(always)]
fn search(segment: *const u8, place: Place, low: u64) -> Meaning {
    let end = low + 1;
    let mut at = place.offset() + WORD;
    let mut stride = place.first_stride();
    let mut window = place.window();
    for _ in 0..ROUNDS_MAX {
        // Three loads that do not wait for each other.
        let one = begins_before(segment, at + stride, end, stride);
        let two = begins_before(segment, at + 2 * stride, end, stride);
        let three = begins_before(segment, at + 3 * stride, end, stride);
        at += one + two + three;
        window >>= 2;
        stride = window;
        if stride < WORD {
            break;
        }
    }
    Entry(read(segment, at)).meaning()
}

#[inline(always)]
fn read(segment: *const u8, offset: u64) -> u64 {
    // SAFETY: the offset is masked to the segment, and a multiple of a word.
    unsafe { *segment.add((offset & OFFSET_MASK) as usize).cast() }
}

/// `stride` if the entry at `offset` begins before `end`, else 0.
#[inline(always)]
fn begins_before(segment: *const u8, offset: u64, end: u64, stride: u64) -> u64 {
    if_less(u64::from(Entry(read(segment, offset)).first()), end, stride)
}
