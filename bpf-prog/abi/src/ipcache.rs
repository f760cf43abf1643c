//! The ipcache of IPv4: address -> identity, by ranges instead of by prefixes.
//!
//! Each slot has a table of its own, in elements of two `BPF_F_MMAPABLE` arrays:
//!
//! ```text
//! word = BUCKETS[slot][address >> 16]
//! a meaning: that of all 65,536 addresses
//! a place:   POOL[slot][base]      = what the ranges mean that the chunk leaves open
//!            POOL[slot][base + 1..] = entries: first address of a range, meaning
//! ```
//! A lookup is one load and, for a place, a search in a sorted chunk that asks
//! three entries at once: its rounds grow with the ranges of one /16 (2 for 16,
//! 8 for 65,536), not with the number of prefixes, and it has no branch that
//! depends on what it finds.
//!
//! A range that no prefix longer than /16 covers is left open in its chunk, and
//! a bucket that no prefix but /0 covers is left open as a whole: so a short
//! prefix is written once for a bucket, and /0 once for the slot ([`DEFAULT`]).
//!
//! | bits of a word | entry or meaning | place |
//! |---|---|---|
//! | 0..26 | identity + 1; 0 = open | 3..24: base, in words of the pool |
//! | 26..43 | index of the identity | 27..42: first stride, in entries |
//! | 43..48 | length of the prefix - 1 | 45..60: window, in entries |
//! | 48..64 | entry: first address, low half | 63: 1 (in a meaning 0) |
//!
//! The fields of a place stand where a mask, or a shift and a mask, give bytes.
//! The length of the prefix is for user space, which lists a table as prefixes.

use crate::SLOTS;
use crate::table::{IDENTITIES_MAX, IPCACHE_MAX};

/// Buckets of a slot: the values of the high half of an address.
pub const BUCKETS: usize = 65_536;
/// Place behind the buckets: what /0 means.
pub const DEFAULT: usize = BUCKETS;
/// Words of all chunks of one slot.
pub const POOL_WORDS: usize = 1 << 21;
/// Words of one element of the pool's array, 4 MiB: kernels before 6.0 refuse
/// larger ones. No chunk stands in two of them.
pub const SEGMENT_WORDS: usize = 1 << 19;
/// Elements of one slot.
pub const SEGMENTS: u32 = (POOL_WORDS / SEGMENT_WORDS) as u32;
/// Elements of the pool's array, those of slot A first.
pub const POOL_ELEMENTS: u32 = SEGMENTS * SLOTS as u32;
/// Most entries of a chunk: each address differs from the one before it.
pub const ENTRIES_MAX: usize = 65_536;
/// Largest window, and the rounds of a search that begins with it.
const WINDOW_MAX: u32 = 16_384;
pub const ROUNDS_MAX: u32 = 1 + WINDOW_MAX.ilog2() / 2;

/// Value of the buckets' array.
pub type Buckets = [u64; BUCKETS + 1];
/// Value of the pool's array.
pub type Segment = [u64; SEGMENT_WORDS];

/// What a range of addresses means; 0 = no prefix says anything.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Meaning(pub u64);

const IDENTITY_BITS: u32 = 26;
const INDEX_BITS: u32 = 17;
const LENGTH_SHIFT: u32 = IDENTITY_BITS + INDEX_BITS;
const FIRST_SHIFT: u32 = 48;
const IDENTITY_MASK: u64 = (1 << IDENTITY_BITS) - 1;
const MEANING_MASK: u64 = (1 << FIRST_SHIFT) - 1;

impl Meaning {
    /// No prefix says anything.
    pub const OPEN: Self = Self(0);
    /// Largest identity number; the identities of all scopes are below.
    pub const IDENTITY_MAX: u32 = (1 << IDENTITY_BITS) - 2;

    /// Of a prefix of 1 to 32 bits. `identity` must not exceed
    /// [`Self::IDENTITY_MAX`], `index` must be below [`IDENTITIES_MAX`].
    #[must_use]
    pub const fn new(identity: u32, index: u32, length: u8) -> Self {
        Self(
            (identity as u64 + 1)
                | (index as u64) << IDENTITY_BITS
                | (length as u64 - 1) << LENGTH_SHIFT,
        )
    }
    /// Whether no prefix says anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & IDENTITY_MASK == 0
    }
    /// Identity number; only where a prefix says something.
    #[inline(always)]
    #[must_use]
    pub const fn identity(self) -> u32 {
        (self.0 & IDENTITY_MASK) as u32 - 1
    }
    /// Index of the identity, the key of the verdict tables.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 >> IDENTITY_BITS) as u32 & (IDENTITIES_MAX as u32 - 1)
    }
    /// Length of the prefix.
    #[must_use]
    pub const fn length(self) -> u8 {
        (self.0 >> LENGTH_SHIFT & 31) as u8 + 1
    }
}

/// One range of a chunk: it ends where the next one begins.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Entry(pub u64);

impl Entry {
    #[must_use]
    pub const fn new(first: u16, meaning: Meaning) -> Self {
        Self((first as u64) << FIRST_SHIFT | meaning.0)
    }
    /// Low half of the first address.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> u16 {
        (self.0 >> FIRST_SHIFT) as u16
    }
    #[inline(always)]
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        Meaning(self.0 & MEANING_MASK)
    }
}

/// How a chunk is searched: the first round asks the entries at one, two and
/// three times `first` and leaves `window` entries, a power of four; each later
/// round leaves a quarter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strides {
    pub first: u32,
    pub window: u32,
}

impl Strides {
    /// For at least so many ranges, 1 to [`ENTRIES_MAX`]. (0 is as 1: memory that
    /// somebody edited may say so.)
    #[must_use]
    pub const fn of(ranges: u32) -> Self {
        let mut window = 1;
        while window * 4 <= ranges && window < WINDOW_MAX {
            window *= 4;
        }
        Self {
            first: ranges.saturating_sub(window).div_ceil(3),
            window,
        }
    }
    /// Entries of the chunk: up to two more than ranges, which repeat the last.
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.window + 3 * self.first
    }
}

/// Where the chunk of a bucket stands, and how it is searched.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u64);

const PLACE: u64 = 1 << 63;
/// Largest offset in a segment, in bytes.
pub const OFFSET_MASK: u64 = (SEGMENT_WORDS as u64 - 1) * 8;
const SEGMENT_SHIFT: u32 = SEGMENT_WORDS.ilog2() + 3;
const STRIDE_MASK: u64 = 0x7fff * 8;
const FIRST_STRIDE_SHIFT: u32 = POOL_WORDS.ilog2() + 3;
const WINDOW_SHIFT: u32 = FIRST_STRIDE_SHIFT + 18;

impl Place {
    /// Of a chunk that begins at the word `base` of the pool.
    #[must_use]
    pub const fn new(base: u32, strides: Strides) -> Self {
        Self(
            PLACE
                | (base as u64) << 3
                | (strides.first as u64) << (FIRST_STRIDE_SHIFT + 3)
                | (strides.window as u64) << (WINDOW_SHIFT + 3),
        )
    }
    /// Whether a bucket's word is a place, not a meaning.
    #[inline(always)]
    #[must_use]
    pub const fn is_one(word: u64) -> bool {
        word & PLACE != 0
    }
    /// Element of the pool's array.
    #[inline(always)]
    #[must_use]
    pub const fn element(self, slot: u32) -> u32 {
        slot * SEGMENTS + ((self.0 >> SEGMENT_SHIFT) as u32 & (SEGMENTS - 1))
    }
    /// Offset in it, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }
    /// In bytes.
    #[inline(always)]
    #[must_use]
    pub const fn first_stride(self) -> u64 {
        self.0 >> FIRST_STRIDE_SHIFT & STRIDE_MASK
    }
    /// The window after the first round, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn window(self) -> u64 {
        self.0 >> WINDOW_SHIFT & STRIDE_MASK
    }
    /// Word of the pool at which the chunk begins.
    #[must_use]
    pub const fn base(self) -> usize {
        (self.0 >> 3) as usize & (POOL_WORDS - 1)
    }
    /// How the chunk is searched.
    #[must_use]
    pub const fn strides(self) -> Strides {
        Strides {
            first: (self.first_stride() / 8) as u32,
            window: (self.window() / 8) as u32,
        }
    }
    /// Words of the chunk: what it leaves open, and its entries.
    #[must_use]
    pub const fn words(self) -> usize {
        1 + self.strides().entries() as usize
    }
}

const _: () = assert!(size_of::<Segment>() == 4 << 20);
const _: () = assert!(ENTRIES_MAX < SEGMENT_WORDS);
const _: () = assert!(IDENTITIES_MAX == 1 << INDEX_BITS);
const _: () = assert!(LENGTH_SHIFT + 5 == FIRST_SHIFT);
const _: () = assert!(WINDOW_SHIFT + 18 < 63);
const _: () =
    assert!((WINDOW_MAX as u64) * 8 <= STRIDE_MASK && WINDOW_MAX as usize * 4 == ENTRIES_MAX);
// Whatever the prefixes, they fit: each makes at most two ranges more, and each
// chunk has a first range, a word for what it leaves open and two repetitions.
// At the end of a segment less than the largest chunk is lost.
const _: () = assert!(
    2 * IPCACHE_MAX as usize + 4 * BUCKETS + SEGMENTS as usize * (ENTRIES_MAX + 1) <= POOL_WORDS
);
const _: () = assert!(Strides::of(ENTRIES_MAX as u32).entries() as usize == ENTRIES_MAX);
