//! The table of flows: sets of seven, each with a line of tags before them.
//!
//! A key belongs into one of two sets, its first and its other one. A lookup
//! reads one cache line of tags and one flow; a new flow writes as much. No list
//! orders the flows: a new one takes a free or expired way of its first set, or of
//! the other one if the first is crowded and the other less so. (Of two places the
//! emptier: so sets fill evenly, and none is full before nearly all are.) Where no
//! way is free, it takes that of the flow seen from one side that dies first; only
//! if both sets hold nothing but answered flows, that of the one of them that dies
//! first. So a flood of flows seen from one side evicts nothing but its like.
//!
//! The tag is the way's lock: it changes by compare-and-exchange, from the value that
//! was looked at. A way is written while its tag says [`BUSY`]; who wrote it stores
//! the new tag behind all else. What was read of a flow counts if the tag is still
//! that of the flow afterwards.

use crate::conntrack::{CtEntry, CtKey4, CtKey6};

/// Flows of a set: with the tags' cache line, 512 octets in IPv4.
pub const WAYS: usize = SET_FLOWS as usize;
/// The same, to count with.
#[cfg(not(feature = "older"))]
pub const SET_FLOWS: u32 = 7;
/// Sets of another version.
#[cfg(feature = "older")]
pub const SET_FLOWS: u32 = 6;

// What a tag says of its way.

/// Holds no flow.
pub const FREE: u64 = 0;
/// Seen from one side only.
pub const ONE_SIDED: u64 = 1;
/// Answered, and the opener went on after the answer.
pub const ANSWERED: u64 = 2;
/// Being written.
pub const BUSY: u64 = 3;

/// Index of the per-CPU array of flows that had to make room while they lived: the
/// kind of the flow.
pub mod evicted {
    pub const ONE_SIDED: u32 = 1;
    pub const ANSWERED: u32 = 2;
    pub const COUNT: u32 = 3;
}

/// A lifetime is kept in units of 2^4 jiffies (64 ms at 250 Hz), 30 bits of them:
/// all times up to half of that from now (99 days at 1,000 Hz) can be told.
const UNIT_BITS: u32 = 4;
const TIME_BITS: u32 = 30;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const TIME_HALF: u64 = 1 << (TIME_BITS - 1);
const KIND_BITS: u32 = 2;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
const HASH_MASK: u64 = !(u32::MAX as u64);

/// Longest lifetime of a flow, in jiffies.
pub const LIFETIME_MAX: u64 = (TIME_HALF - 2) << UNIT_BITS;

/// Ranks of [`Tag::rank`] from here on: a flow that lives.
pub const RANK_ALIVE: u64 = ONE_SIDED << TIME_BITS;
/// One that was answered, too.
pub const RANK_ANSWERED: u64 = ANSWERED << TIME_BITS;
/// Not to be taken.
pub const RANK_NEVER: u64 = BUSY << TIME_BITS;

/// Tag of a way: the high half of its flow's hash, when the flow dies, and one of
/// [`FREE`], [`ONE_SIDED`], [`ANSWERED`] and [`BUSY`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub u64);

impl Tag {
    pub const FREE: Self = Self(FREE);

    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, expires_jiffies: u64, kind: u64) -> Self {
        let unit = (expires_jiffies >> UNIT_BITS) & TIME_MASK;
        Self((hash & HASH_MASK) | (unit << KIND_BITS) | kind)
    }

    /// Whether the way may hold the flow of this hash.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(self, hash: u64) -> bool {
        self.0 >> 32 == hash >> 32
    }

    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u64 {
        self.0 & KIND_MASK
    }

    /// Whether the way holds a flow, dead or alive.
    #[inline(always)]
    #[must_use]
    pub const fn is_flow(self) -> bool {
        self.kind() == ONE_SIDED || self.kind() == ANSWERED
    }

    /// Units until it dies; from [`TIME_HALF`] on it is dead, and so is 0.
    #[inline(always)]
    const fn left(self, now_jiffies: u64) -> u64 {
        (self.0 >> KIND_BITS).wrapping_sub(now_jiffies >> UNIT_BITS) & TIME_MASK
    }

    /// Whether its time has not come; says nothing about a free way.
    #[inline(always)]
    #[must_use]
    pub const fn is_timely(self, now_jiffies: u64) -> bool {
        self.left(now_jiffies).wrapping_sub(1) < TIME_HALF - 1
    }

    /// Whether the way holds a flow that lives.
    #[inline(always)]
    #[must_use]
    pub const fn is_alive(self, now_jiffies: u64) -> bool {
        self.is_flow() && self.is_timely(now_jiffies)
    }

    /// Jiffies until it dies; 0 if it is dead.
    #[must_use]
    pub const fn jiffies_left(self, now_jiffies: u64) -> u64 {
        if self.is_timely(now_jiffies) {
            self.left(now_jiffies) << UNIT_BITS
        } else {
            0
        }
    }

    /// The same flow with another time to die and another kind.
    #[inline(always)]
    #[must_use]
    pub const fn renewed(self, expires_jiffies: u64, kind: u64) -> Self {
        Self::new(self.0, expires_jiffies, kind)
    }

    /// The same flow and time, of another kind.
    #[inline(always)]
    #[must_use]
    pub const fn of_kind(self, kind: u64) -> Self {
        Self((self.0 & !KIND_MASK) | kind)
    }

    /// Of two ways the one with the lower rank is given to a new flow: what is free
    /// or dead, then what dies first of its kind. A dead flow of the same hash comes
    /// before all, so that it never hides the new one.
    #[inline(always)]
    #[must_use]
    pub const fn rank(self, hash: u64, now_jiffies: u64) -> u64 {
        let left = self.left(now_jiffies);
        if self.kind() != FREE && self.is_timely(now_jiffies) {
            (self.kind() << TIME_BITS) | left
        } else if self.is_of(hash) {
            0
        } else {
            left
        }
    }

    /// The same without a branch: `if_less(value, limit, then)` is `then` where the
    /// value is less than the limit, else 0.
    #[inline(always)]
    pub fn rank_by(self, hash: u64, now_jiffies: u64, if_less: fn(u64, u64, u64) -> u64) -> u64 {
        let left = self.left(now_jiffies);
        // One less; 0 becomes the most.
        let before = (left + TIME_MASK) & TIME_MASK;
        let kind = if_less(before, TIME_HALF - 1, self.kind() << TIME_BITS);
        let is_dead = if_less(kind, 1, u64::MAX);
        let hides = if_less((self.0 ^ hash) >> 32, 1, is_dead);
        (kind | left) & !hides
    }
}

/// One flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow<K> {
    pub key: K,
    pub entry: CtEntry,
}

/// Flows that live in a set from which on a new one asks for its other set.
const CROWDED: u64 = 5;

/// Whether a new flow asks for its other set, by how many flows live in the first.
#[inline(always)]
#[must_use]
pub const fn asks_elsewhere(alive: u64) -> bool {
    alive >= CROWDED
}

/// Whether it goes there: (flows that live, rank of the way it would take) of both.
#[inline(always)]
#[must_use]
pub const fn goes_elsewhere(here: (u64, u64), there: (u64, u64)) -> bool {
    there.0 < here.0 || (here.0 == WAYS as u64 && there.1 < here.1)
}

/// The tags of a set.
pub type Tags = [u64; WAYS];

/// One set; begins on a cache line of its own.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Set<K> {
    /// How many flows of this set were put into their other one since this was 0:
    /// a flow that is not found here may stand there.
    pub overflowed: u64,
    pub tags: Tags,
    pub flows: [Flow<K>; WAYS],
}

/// What places the keys: written once, when the tables are made. The programs use
/// the first two words; the others tell agents of other versions how to read it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    /// Sets of each table.
    pub sets: u32,
    /// A secret: who knows it could fill the sets of others.
    pub seed: u32,
    /// Flows of a set.
    pub ways: u32,
    /// Octets of an entry ([`CtEntry`]); whatever is new in one comes last.
    pub entry_octets: u32,
}

/// Octets of a set of so many flows, each with a key of so many octets.
#[must_use]
pub const fn set_octets(ways: usize, key_octets: usize) -> usize {
    let flow = key_octets + size_of::<CtEntry>();
    (8 * (1 + ways) + ways * flow).next_multiple_of(64)
}

impl Space {
    /// Index of the set that a key belongs into.
    #[inline(always)]
    #[must_use]
    pub const fn first(self, hash: u64) -> u32 {
        (((hash & 0xffff_ffff) * self.sets as u64) >> 32) as u32
    }

    /// Index of the set that takes it when the first one is full.
    #[inline(always)]
    #[must_use]
    pub const fn other(self, hash: u64) -> u32 {
        ((((hash >> 16) & 0xffff_ffff) * self.sets as u64) >> 32) as u32
    }
}

/// Mixes a word into a hash. The constant is 2^64 divided by the golden ratio.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

#[inline(always)]
const fn ports(local_port: u16, remote_port: u16, proto: u8, kind: u8) -> u64 {
    local_port as u64
        | ((remote_port as u64) << 16)
        | ((proto as u64) << 32)
        | ((kind as u64) << 40)
}

#[inline(always)]
const fn start(seed: u32) -> u64 {
    ((seed as u64) << 32) | seed as u64
}

/// Hash of an IPv4 flow. Its high half is the tag's, its low one places it.
#[inline(always)]
#[must_use]
pub const fn hash4(key: &CtKey4, seed: u32) -> u64 {
    let addresses = key.local as u64 | (key.remote as u64) << 32;
    let hash = mix(start(seed), addresses);
    let ports = ports(key.local_port, key.remote_port, key.proto, key.kind);
    mix(mix(hash, ports), start(seed))
}

/// Hash of an IPv6 flow. Strangers do not choose the local address: it needs
/// no round of its own.
#[inline(always)]
#[must_use]
pub const fn hash6(key: &CtKey6, seed: u32) -> u64 {
    let local = (key.local[0] ^ key.local[2]) as u64 | ((key.local[1] ^ key.local[3]) as u64) << 32;
    let high = key.remote[0] as u64 | (key.remote[1] as u64) << 32;
    let low = key.remote[2] as u64 | (key.remote[3] as u64) << 32;
    let hash = mix(mix(start(seed) ^ local, high), low);
    let ports = ports(key.local_port, key.remote_port, key.proto, key.kind);
    mix(mix(hash, ports), start(seed))
}

const _: () = assert!(evicted::ONE_SIDED as u64 == ONE_SIDED);
const _: () = assert!(evicted::ANSWERED as u64 == ANSWERED);
const _: () = assert!(size_of::<Set<CtKey4>>() == set_octets(WAYS, 16));
const _: () = assert!(size_of::<Set<CtKey6>>() == set_octets(WAYS, 40));
const _: () = assert!(set_octets(7, 16) == 512 && set_octets(7, 40) == 704);

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
