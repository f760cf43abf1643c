//! The IPv6 ipcache: the address space as ranges, in a tree of two levels, a tree for
//! each slot.
//!
//! A range begins at an address and ends where the next one begins; what it means
//! is the longest prefix around it. So whatever the lengths of the prefixes, an
//! address is found by the same two searches:
//!
//! ```text
//! piece   = last entry of INDEX[slot] that does not begin behind the address
//! meaning = last entry of CHUNKS[slot, piece] that does not begin behind it
//! ```
//! Both are searched by halves. The entries in use are the first ones; those behind
//! them, up to the next power of two, begin at the last address and mean what the last
//! one means.
//!
//! Chunks are elements of a hash that is not allocated before: what is not used takes
//! no memory. No chunk and no entry of the slot in use is ever written.

use crate::table::{IDENTITIES_MAX, IPCACHE_MAX};

/// Entries of a chunk, and how many of them a new one has at most: there is room for
/// a change.
pub const CHUNK_ENTRIES: usize = 64;
pub const CHUNK_FILL: usize = 48;
/// Chunks of a slot.
pub const CHUNKS: usize = 32_768;

/// The beginning of a range, as two numbers, and what it means: a [`Meaning`], or in
/// the index the number of a chunk.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Range {
    pub network: u64,
    pub host: u64,
    pub word: u64,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk(pub [Range; CHUNK_ENTRIES]);

/// The index of a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// Entries that a search looks at: a power of two, or 0 where there is none.
    pub window: u64,
    /// Entries in use.
    pub count: u64,
    pub pad: u64,
    pub entries: [Range; CHUNKS],
}

/// Key of a chunk.
#[inline(always)]
#[must_use]
pub const fn chunk_key(slot: u32, number: u32) -> u32 {
    slot * CHUNKS as u32 + number
}

/// What a range means: the identity, its index and the length of the prefix.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meaning(pub u64);

const INDEX_SHIFT: u32 = 32;
const LENGTH_SHIFT: u32 = INDEX_SHIFT + IDENTITIES_MAX.ilog2();
const KNOWN: u64 = 1 << 63;

impl Meaning {
    /// No prefix is around.
    pub const OPEN: Self = Self(0);

    #[must_use]
    pub const fn new(identity: u32, index: u32, length: u8) -> Self {
        let index = index as u64 % IDENTITIES_MAX as u64;
        Self(KNOWN | (length as u64) << LENGTH_SHIFT | index << INDEX_SHIFT | identity as u64)
    }
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & KNOWN == 0
    }
    #[inline(always)]
    #[must_use]
    pub const fn identity(self) -> u32 {
        self.0 as u32
    }
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 >> INDEX_SHIFT) as u32 % IDENTITIES_MAX as u32
    }
    #[must_use]
    pub const fn length(self) -> u8 {
        (self.0 >> LENGTH_SHIFT) as u8
    }
}

const _: () = assert!(size_of::<Range>() == 24);
const _: () = assert!(LENGTH_SHIFT + 8 < 63);
const _: () = assert!(CHUNK_ENTRIES.is_power_of_two() && CHUNKS.is_power_of_two());
// Every set of prefixes fits: each begins a range and ends one.
const _: () = assert!(2 * (IPCACHE_MAX as usize) < CHUNKS * CHUNK_FILL);
