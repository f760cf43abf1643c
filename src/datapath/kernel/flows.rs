//! The table of flows from outside: the same memory that the programs use, by
//! the same rules (`palisade_abi::flows`): a way belongs to whom changes its tag.
//!
//! The tables are large; a window of one is mapped at a time, so that a walk
//! does not make all of it memory of this process.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6};
use palisade_abi::flows::{
    BUSY, RANK_ALIVE, RANK_NEVER, Space, Tag, asks_elsewhere, goes_elsewhere, hash4, hash6,
};

use super::failsafe::octets;
use super::mapping::Mapping;
use super::maps::{Map, MapName, Maps, Plain, bytes_of, kernel, prefix_of, value_of};
use super::sys;
use crate::datapath::DatapathError;
use crate::limits::{CT_ENTER_TRIES_MAX, CT_WINDOW_SETS};

/// Long words of an entry: its flags share the second with the identity, then come
/// packets and octets of both sides.
const ENTRY: usize = size_of::<CtEntry>() / 8;
const FLAGS: usize = 1;
/// How long a way that is being written is left alone, in jiffies.
const BUSY_JIFFIES: u64 = 256;

/// Sets of a table for `entries` flows: a third more than would hold them, since sets
/// do not fill evenly to the last.
pub(crate) fn sets_for(entries: u32, ways: u32) -> u32 {
    let room = entries.saturating_add(entries.div_ceil(3));
    room.div_ceil(ways).max(1)
}

/// Entries that so many sets were made for.
pub(crate) fn entries_for(sets: u32, ways: u32) -> u32 {
    let room = sets.saturating_mul(ways);
    room - room / 4
}

/// Makes sure that both tables know where a key belongs. Before any program runs.
pub(crate) fn prepare(maps: &Maps, ways: u32) -> Result<Space, DatapathError> {
    let place = maps.of(MapName::CtSpace);
    let held: Space = place.get(&0u32)?.unwrap_or_default();
    if held.sets != 0 {
        return Ok(held);
    }
    let mut seed = [0; 4];
    let drawn = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    drawn.map_err(|error| kernel("getrandom")(error.into()))?;
    let space = Space {
        sets: maps.of(MapName::Ct4).max_entries,
        seed: u32::from_ne_bytes(seed),
        ways,
        entry_octets: sys::length(size_of::<CtEntry>()),
    };
    place.put(&0u32, &space)?;
    Ok(space)
}

/// A key of either family.
pub(super) trait Key: Plain + PartialEq {
    /// Where the flow stands (`palisade_abi::flows`).
    fn hash(&self, seed: u32) -> u64;

    /// Addresses and ports, local first; protocol; kind. The ports are in
    /// network byte order.
    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8);
}

impl Key for CtKey4 {
    fn hash(&self, seed: u32) -> u64 {
        hash4(self, seed)
    }

    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8) {
        let addresses = [self.local, self.remote];
        let addresses = addresses.map(|word| IpAddr::V4(word.to_ne_bytes().into()));
        let ports = [self.local_port, self.remote_port];
        (addresses, ports, self.proto, self.kind)
    }
}

impl Key for CtKey6 {
    fn hash(&self, seed: u32) -> u64 {
        hash6(self, seed)
    }

    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8) {
        let addresses = [self.local, self.remote];
        let addresses = addresses.map(|words| IpAddr::V6(octets(words).into()));
        let ports = [self.local_port, self.remote_port];
        (addresses, ports, self.proto, self.kind)
    }
}

/// One table. Any thread; each call maps what it needs.
pub(super) struct FlowTable<'a, K> {
    pub(super) map: &'a Map,
    space: Space,
    key: PhantomData<K>,
}

impl<'a> FlowTable<'a, CtKey4> {
    pub(super) fn v4(maps: &'a Maps) -> Result<Self, DatapathError> {
        Self::new(maps, MapName::Ct4)
    }
}

impl<'a> FlowTable<'a, CtKey6> {
    pub(super) fn v6(maps: &'a Maps) -> Result<Self, DatapathError> {
        Self::new(maps, MapName::Ct6)
    }
}

impl<'a, K: Key> FlowTable<'a, K> {
    fn new(maps: &'a Maps, name: MapName) -> Result<Self, DatapathError> {
        let space = maps.of(MapName::CtSpace).get(&0u32)?;
        Ok(Self {
            map: maps.of(name),
            space: space.unwrap_or_default(),
            key: PhantomData,
        })
    }

    /// Another version's table; None where its form is unknown.
    pub(super) fn of_other(map: &'a Map, space: &Map) -> Result<Option<Self>, DatapathError> {
        if space.value_size < size_of::<Space>() {
            return Ok(None);
        }
        let mut bytes = vec![0; space.value_size];
        let found = sys::map_lookup(space.fd(), bytes_of(&0u32), &mut bytes)
            .map_err(kernel("read of another version's map"))?;
        let space: Space = prefix_of(&bytes);
        let least = size_of::<CtEntry>();
        let flow = size_of::<K>() + space.entry_octets as usize;
        let set = 8 * (1 + space.ways as usize) + space.ways as usize * flow;
        let is_known = found
            && space.ways != 0
            && space.entry_octets as usize >= least
            && space.entry_octets.is_multiple_of(8)
            && map.value_size == set.next_multiple_of(64);
        Ok(is_known.then_some(Self {
            map,
            space,
            key: PhantomData,
        }))
    }

    fn sets(&self) -> u32 {
        self.map.max_entries.min(self.space.sets)
    }

    /// Flows that the table holds.
    pub(super) fn entries_max(&self) -> u32 {
        self.sets().saturating_mul(self.space.ways)
    }

    pub(super) fn window(&self, first: u32, count: u32) -> Result<Window, DatapathError> {
        Ok(Window {
            mapping: Mapping::window(self.map, self.map.value_size, first, count)?,
            sets: count,
            ways: self.space.ways as usize,
            key_words: size_of::<K>() / 8,
            entry_words: self.space.entry_octets as usize / 8,
        })
    }

    /// All sets, a window at a time: (first set, window).
    pub(super) fn windows(&self) -> impl Iterator<Item = Result<(u32, Window), DatapathError>> {
        let sets = self.sets();
        (0..sets)
            .step_by(CT_WINDOW_SETS as usize)
            .map(move |first| {
                let count = CT_WINDOW_SETS.min(sets - first);
                Ok((first, self.window(first, count)?))
            })
    }

    /// Index of the set that a key belongs into, and of its other one.
    pub(super) fn places(&self, key: &K) -> [u32; 2] {
        let hash = key.hash(self.space.seed);
        [self.space.first(hash), self.space.other(hash)]
    }

    /// Calls `at` with the way of a flow that lives; None where there is none.
    pub(super) fn with<T>(
        &self,
        key: &K,
        now: u64,
        at: impl FnOnce(&Way<'_>, Tag, CtEntry) -> T,
    ) -> Result<Option<T>, DatapathError> {
        for set in self.places(key) {
            let window = self.window(set, 1)?;
            for way in window.set(0).ways() {
                if let Some((tag, held, entry)) = way.read::<K>()
                    && tag.is_alive(now)
                    && held == *key
                {
                    return Ok(Some(at(&way, tag, entry)));
                }
            }
        }
        Ok(None)
    }

    /// Enters a flow that is not there, of one of `palisade_abi::flows`' kinds;
    /// false where both of its sets are being written all the time.
    pub(super) fn enter(
        &self,
        key: &K,
        entry: &CtEntry,
        expires: u64,
        kind: u64,
        now: u64,
    ) -> Result<bool, DatapathError> {
        let hash = key.hash(self.space.seed);
        let [first, other] = self.places(key);
        let (first, other) = (self.window(first, 1)?, self.window(other, 1)?);
        let tag = Tag::new(hash, expires, kind);
        for _ in 0..CT_ENTER_TRIES_MAX {
            let here = first.set(0).room(hash, now);
            let mut room = &here;
            let there = other.set(0).room(hash, now);
            if asks_elsewhere(here.alive) && goes_elsewhere(here.order(), there.order()) {
                room = &there;
                first.set(0).overflowed.fetch_add(1, Ordering::SeqCst);
            }
            if room.rank < RANK_NEVER && room.way.take(room.tag, now) {
                room.way.fill(key, entry, tag);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Some sets of a table, mapped.
pub(super) struct Window {
    mapping: Mapping,
    pub(super) sets: u32,
    ways: usize,
    key_words: usize,
    entry_words: usize,
}

impl Window {
    pub(super) fn set(&self, index: u32) -> FlowSet<'_> {
        let words = self.mapping.elements(index, 1);
        let (tags, flows) = words[1..].split_at(self.ways);
        FlowSet {
            overflowed: &words[0],
            tags,
            flows,
            key_words: self.key_words,
            entry_words: self.entry_words,
        }
    }
}

/// One set.
pub(super) struct FlowSet<'a> {
    pub(super) overflowed: &'a AtomicU64,
    tags: &'a [AtomicU64],
    flows: &'a [AtomicU64],
    key_words: usize,
    entry_words: usize,
}

impl<'a> FlowSet<'a> {
    pub(super) fn ways(&self) -> impl Iterator<Item = Way<'a>> + use<'a> {
        let key_words = self.key_words;
        let flows = self.flows.chunks_exact(key_words + self.entry_words);
        self.tags.iter().zip(flows).map(move |(tag, words)| {
            let (key, entry) = words.split_at(key_words);
            Way { tag, key, entry }
        })
    }

    /// The way that is given away first.
    fn room(&self, hash: u64, now: u64) -> Room<'a> {
        let ranked: Vec<(Way<'a>, Tag, u64)> = self
            .ways()
            .map(|way| {
                let tag = way.tag();
                (way, tag, tag.rank(hash, now))
            })
            .collect();
        let alive = ranked.iter().filter(|(_, _, rank)| *rank >= RANK_ALIVE);
        let alive = alive.count() as u64;
        let (way, tag, rank) = ranked
            .into_iter()
            .min_by_key(|(_, _, rank)| *rank)
            .expect("a set has ways");
        Room {
            way,
            tag,
            rank,
            alive,
        }
    }
}

/// A way that a new flow may take.
struct Room<'a> {
    way: Way<'a>,
    tag: Tag,
    rank: u64,
    /// Flows that live in its set.
    alive: u64,
}

impl Room<'_> {
    fn order(&self) -> (u64, u64) {
        (self.alive, self.rank)
    }
}

/// One way of a set.
pub(super) struct Way<'a> {
    tag: &'a AtomicU64,
    key: &'a [AtomicU64],
    entry: &'a [AtomicU64],
}

impl Way<'_> {
    pub(super) fn tag(&self) -> Tag {
        Tag(self.tag.load(Ordering::Acquire))
    }

    /// Puts another tag where `seen` stands; false if it does no longer.
    pub(super) fn replace(&self, seen: Tag, tag: Tag) -> bool {
        self.tag
            .compare_exchange(seen.0, tag.0, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// The flow and its tag; None where there is none, or another one by now.
    pub(super) fn read<K: Plain>(&self) -> Option<(Tag, K, CtEntry)> {
        let tag = self.tag();
        if !tag.is_flow() {
            return None;
        }
        let copy = |words: &[AtomicU64]| -> Vec<u8> {
            let words = words.iter().map(|word| word.load(Ordering::Acquire));
            words.flat_map(u64::to_ne_bytes).collect()
        };
        let (key, entry) = (copy(self.key), copy(self.entry));
        let after = self.tag();
        (after.is_flow() && after.is_of(tag.0)).then(|| (after, value_of(&key), prefix_of(&entry)))
    }

    fn take(&self, seen: Tag, now: u64) -> bool {
        self.replace(seen, Tag::new(0, now + BUSY_JIFFIES, BUSY))
    }

    /// Writes a flow into a way that was taken.
    fn fill<K: Plain>(&self, key: &K, entry: &CtEntry, tag: Tag) {
        for (words, bytes) in [(self.key, bytes_of(key)), (self.entry, bytes_of(entry))] {
            for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
                let bytes = bytes.try_into().expect("chunks of eight");
                word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
        }
        self.tag.store(tag.0, Ordering::SeqCst);
    }

    /// Sets the flags of the flow to what `change` makes of them.
    pub(super) fn change_flags(&self, change: impl Fn(u32) -> u32) {
        let word = &self.entry[FLAGS];
        let change = |word: u64| {
            let [a, b, c, d, identity @ ..] = word.to_ne_bytes();
            let [a, b, c, d] = change(u32::from_ne_bytes([a, b, c, d])).to_ne_bytes();
            let [e, f, g, h] = identity;
            Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
        };
        // Never refused: `change` always gives a value.
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change);
    }

    /// Exchanges the counters of the two sides. A packet that is counted meanwhile
    /// may be lost to them.
    pub(super) fn swap_sides(&self) {
        let counters = &self.entry[FLAGS + 1..ENTRY];
        for pair in counters.chunks_exact(2) {
            let second = pair[1].swap(pair[0].load(Ordering::Relaxed), Ordering::Relaxed);
            pair[0].store(second, Ordering::Relaxed);
        }
    }
}
