//! The IPv4 ipcache in the kernel: a table of ranges for each slot, through its
//! mapping. Only the inactive slot is ever written.
//!
//! What the kernel holds is the only copy of the ranges. Beside it stands, for
//! each slot, what it was last made to mean, so that the next change costs what
//! it touches, and which words of its pool are free. Invariant: where a slot's
//! meaning is known, its words are exactly those that its prefixes make. It is
//! forgotten before the first write and known again after the last one was read
//! back; whoever does not know it goes over all buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::Ipv4Net;
use palisade_abi::ipcache::{
    BUCKETS, Buckets, DEFAULT, Entry, Meaning, Place, SEGMENT_WORDS, SEGMENTS, Segment, Strides,
};

use super::ipcache::{self, View, changed_entries, changed_prefixes, same_answers};
use super::ipcache4_parts::{self as parts, Stretch};
use super::ipcache4_ranges::{self as ranges, Bucket, ShortChange, Want, Words};
use super::ipcache4_space::Space;
use super::mapping::Mapping;
use super::maps::{MapName, Maps};
use crate::datapath::{DatapathError, IpcacheEntry};

/// Where more prefixes changed, one pass over all costs less than asking for
/// each of their buckets.
const CHANGES_MAX: usize = 8_192;

/// The words of both slots.
#[derive(Debug)]
pub(crate) struct RangeTables {
    buckets: Mapping,
    pool: Mapping,
}

/// The words of one slot.
#[derive(Clone, Copy, Debug)]
struct Slot<'a> {
    buckets: &'a [AtomicU64],
    pool: &'a [AtomicU64],
}

impl RangeTables {
    pub(crate) fn open(maps: &Maps) -> Result<Self, DatapathError> {
        Ok(Self {
            buckets: Mapping::new(maps.of(MapName::Buckets4), size_of::<Buckets>())?,
            pool: Mapping::new(maps.of(MapName::Ipcache4), size_of::<Segment>())?,
        })
    }

    fn slot(&self, slot: usize) -> Slot<'_> {
        let number = u32::from(slot != 0);
        Slot {
            buckets: self.buckets.longs(number, BUCKETS + 1),
            pool: self.pool.elements(number * SEGMENTS, SEGMENTS),
        }
    }

    /// The prefixes that a slot means, as far as any address has them. Any
    /// thread; the slot may be written meanwhile, so the caller looks again
    /// whether it was the current one all the time.
    pub(crate) fn prefixes(&self, slot: usize) -> BTreeMap<Ipv4Net, View> {
        prefixes(self.slot(slot))
    }

    fn slots_agree(&self) -> bool {
        let (one, other) = (self.slot(0), self.slot(1));
        load(&one.buckets[DEFAULT]) == load(&other.buckets[DEFAULT])
            && (0..=u16::MAX).all(|number| one.words(number) == other.words(number))
    }
}

fn prefixes(slot: Slot<'_>) -> BTreeMap<Ipv4Net, View> {
    let mut out = BTreeMap::new();
    let default = Meaning(load(&slot.buckets[DEFAULT]));
    if !default.is_open() {
        let view = (default.identity(), default.index());
        out.insert(Ipv4Net::default(), view);
    }
    for number in 0..=u16::MAX {
        slot.words(number).prefixes(number, &mut out);
    }
    out
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn store(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

impl<'a> Slot<'a> {
    fn word(&self, number: u16) -> &'a AtomicU64 {
        &self.buckets[usize::from(number)]
    }

    /// The words of a chunk; None where they do not lie inside of the pool.
    fn chunk(&self, place: Place) -> Option<&'a [AtomicU64]> {
        self.pool.get(place.base()..place.base() + place.words())
    }

    fn words(&self, number: u16) -> Words {
        Words::read(load(self.word(number)), |place| {
            Some(self.chunk(place)?.iter().map(load).collect())
        })
    }

    /// Whether a bucket is exactly as wanted.
    fn holds(&self, number: u16, want: &Bucket) -> bool {
        let word = load(self.word(number));
        match want.chunk() {
            None => word == want.cover.0,
            Some((strides, words)) => {
                let place = Place(word);
                Place::is_one(word)
                    && place.strides() == strides
                    && self
                        .chunk(place)
                        .is_some_and(|chunk| chunk.iter().map(load).eq(words))
            }
        }
    }

    fn compare(&self, want: &Want, from: Ipv4Addr, bounds: (usize, u16)) -> Compared {
        let part = parts::part(want, from, bounds.0, bounds.1);
        let default = load(&self.buckets[DEFAULT]) != ranges::default_meaning(want).0;
        let stretches = part.stretches.iter();
        let changed = stretches.filter(|stretch| !self.holds_stretch(stretch));
        let ended = |stretch: &&Stretch| stretch.to == ranges::ADDRESSES;
        Compared {
            changed: changed.count() + usize::from(default),
            buckets: part.stretches.iter().filter(ended).count(),
            prefixes: part.prefixes,
            next: part.next,
        }
    }

    /// Whether the words of a stretch are exactly as wanted. Where one begins in
    /// a chunk is searched for, so no two stretches leave a word between them.
    fn holds_stretch(&self, want: &Stretch) -> bool {
        let word = load(self.word(want.number));
        let ends = want.to == ranges::ADDRESSES;
        if !Place::is_one(word) {
            return want.ranges.is_empty() && word == want.cover.0;
        }
        let is_whole = want.from == 0 && ends;
        if is_whole && want.ranges.is_empty() {
            return false;
        }
        let place = Place(word);
        let Some([cover, entries @ ..]) = self.chunk(place) else {
            return false;
        };
        let entry = |at: usize| entries.get(at).map(|word| Entry(load(word)));
        // The last one is repeated at most twice.
        let mut count = entries.len();
        for _ in 0..2 {
            let is_repeated = count >= 2 && entry(count - 1) == entry(count - 2);
            count -= usize::from(is_repeated);
        }
        let place_of = |at: u32| {
            let is_before = |word: &AtomicU64| u32::from(Entry(load(word)).first()) < at;
            entries[..count].partition_point(is_before)
        };
        let (begin, end) = (place_of(want.from), place_of(want.to));
        let is_place_of = |ranges: usize| match (u32::try_from(ranges), u32::try_from(place.base()))
        {
            (Ok(ranges), Ok(base)) => Place::new(base, Strides::of(ranges)).0 == word,
            (_, _) => false,
        };
        load(cover) == want.cover.0
            && (!ends || is_place_of(count))
            && entries.get(begin..end).is_some_and(|found| {
                let found = found.iter().map(|word| Entry(load(word)));
                found.eq(want.ranges.iter().copied())
            })
    }

    /// Whether all is exactly as wanted.
    fn holds_all(&self, want: &Want) -> bool {
        load(&self.buckets[DEFAULT]) == ranges::default_meaning(want).0
            && ranges::all(want).all(|(number, bucket)| self.holds(number, &bucket))
    }

    /// The account of the pool, from the places; None where they make no sense.
    fn space(&self) -> Option<Space> {
        let words = self.buckets[..BUCKETS].iter().map(load);
        let places = words.filter(|word| Place::is_one(*word)).map(Place);
        let taken = places.map(|place| place.base()..place.base() + place.words());
        Space::with(self.pool.len(), SEGMENT_WORDS, taken.collect())
    }

    /// What a bucket means where its chunk leaves it open, or as a whole.
    fn cover(&self, number: u16) -> &'a AtomicU64 {
        let word = self.word(number);
        let place = Place(load(word));
        let first = Place::is_one(place.0).then(|| self.pool.get(place.base()));
        first.flatten().unwrap_or(word)
    }

    /// Makes a bucket as wanted. False where it was, None where the pool has
    /// no part that is large enough.
    fn put(&self, space: &mut Space, number: u16, want: &Bucket) -> Option<bool> {
        if self.holds(number, want) {
            return Some(false);
        }
        let word = self.word(number);
        let old = Place(load(word));
        if Place::is_one(old.0) {
            space.give(old.base()..old.base() + old.words());
            store(word, Meaning::OPEN.0);
        }
        let Some((strides, words)) = want.chunk() else {
            store(word, want.cover.0);
            return Some(true);
        };
        let base = space.take(1 + strides.entries() as usize)?;
        // The pool has fewer than 2^32 words.
        let place = Place::new(u32::try_from(base).ok()?, strides);
        for (cell, value) in self.pool[base..].iter().zip(words) {
            store(cell, value);
        }
        store(word, place.0);
        Some(true)
    }

    /// Empties the buckets: the account that goes with it.
    fn clear(&self) -> Space {
        for word in &self.buckets[..BUCKETS] {
            store(word, Meaning::OPEN.0);
        }
        Space::empty(self.pool.len(), SEGMENT_WORDS)
    }
}

/// What an audit saw of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compared {
    /// Buckets whose end was reached.
    pub(crate) buckets: usize,
    /// The work that it was.
    pub(crate) prefixes: usize,
    /// Stretches of buckets that were not as they were written.
    pub(crate) changed: usize,
    /// Where to go on; None at the end.
    pub(crate) next: Option<Ipv4Addr>,
}

/// What is known of one slot.
#[derive(Debug, Default)]
struct Known {
    want: Option<Want>,
    /// None where the slot's places make no sense.
    space: Option<Space>,
}

impl Known {
    /// Makes the slot mean what passed `check`; the number of writes.
    fn write(&mut self, memory: Slot<'_>, want: &Want) -> Result<usize, DatapathError> {
        let before = self.want.take();
        let default = ranges::default_meaning(want).0;
        let mut writes = usize::from(load(&memory.buckets[DEFAULT]) != default);
        store(&memory.buckets[DEFAULT], default);
        let changed = before.and_then(|before| changed_prefixes(&before, want, CHANGES_MAX));
        let written = match (changed, &mut self.space) {
            (Some(changed), Some(space)) => write_changed(memory, space, want, &changed)?,
            (None, Some(space)) => write_all(memory, space, want)?,
            (_, None) => None,
        };
        writes += match written {
            Some(writes) => writes,
            None => self.write_anew(memory, want)?,
        };
        self.want = Some(want.clone());
        Ok(writes)
    }

    /// Writes the slot from its beginning, without gaps.
    fn write_anew(&mut self, memory: Slot<'_>, want: &Want) -> Result<usize, DatapathError> {
        let space = self.space.insert(memory.clear());
        let writes = write_all(memory, space, want)?;
        writes.ok_or_else(|| DatapathError::Other("the IPv4 ipcache has no room left".to_owned()))
    }
}

/// The IPv4 ipcache of both slots. Owner: the committer thread.
#[derive(Debug)]
pub(crate) struct Ipcache4([Known; 2]);

impl Ipcache4 {
    /// As an earlier agent left it.
    pub(crate) fn open(tables: &RangeTables) -> Self {
        Self([0, 1].map(|slot| Known {
            want: None,
            space: tables.slot(slot).space(),
        }))
    }

    /// Refuses prefixes that do not fit. Any others do, see `palisade_abi::ipcache`.
    pub(crate) fn check(&self, slot: usize, want: &Want) -> Result<(), DatapathError> {
        ipcache::check_count("IPv4 prefixes", want.len())?;
        let identity_fits = |(_, entry): (&Ipv4Net, &IpcacheEntry)| {
            let (needed, max) = (entry.identity.0 as usize, Meaning::IDENTITY_MAX as usize);
            if needed > max {
                let what = "identity numbers of the IPv4 ipcache";
                return Err(DatapathError::DoesNotFit { what, needed, max });
            }
            Ok(())
        };
        match &self.0[slot].want {
            Some(known) => {
                ipcache::check(changed_entries(known, want))?;
                changed_entries(known, want).try_for_each(identity_fits)
            }
            None => {
                ipcache::check(want.iter())?;
                want.iter().try_for_each(identity_fits)
            }
        }
    }

    /// Makes a slot mean what passed `check`; the number of writes.
    pub(crate) fn write(
        &mut self,
        tables: &RangeTables,
        slot: usize,
        want: &Want,
    ) -> Result<usize, DatapathError> {
        self.0[slot].write(tables.slot(slot), want)
    }

    /// Whether every address has in `slot` the identity that `want` gives it.
    pub(crate) fn holds(&self, tables: &RangeTables, slot: usize, want: &Want) -> bool {
        match &self.0[slot].want {
            Some(known) => same_answers(known, want),
            None => tables.slot(slot).holds_all(want),
        }
    }

    /// Compares what follows `from` with what was written, for so many prefixes
    /// or buckets; None where nothing is known of the slot.
    pub(crate) fn compare(
        &self,
        tables: &RangeTables,
        slot: usize,
        from: Ipv4Addr,
        prefixes_max: usize,
        buckets_max: u16,
    ) -> Option<Compared> {
        let want = self.0[slot].want.as_ref()?;
        let bounds = (prefixes_max, buckets_max);
        Some(tables.slot(slot).compare(want, from, bounds))
    }

    /// Nothing is known of a slot any more; the account of its pool is made again.
    pub(crate) fn forget(&mut self, tables: &RangeTables, slot: usize) {
        self.0[slot] = Known {
            want: None,
            space: tables.slot(slot).space(),
        };
    }

    /// Whether both slots see every address alike.
    pub(crate) fn slots_agree(&self, tables: &RangeTables) -> bool {
        match [&self.0[0].want, &self.0[1].want] {
            [Some(one), Some(other)] => same_answers(one, other),
            [_, _] => tables.slots_agree(),
        }
    }
}

/// Writes the buckets of the prefixes that changed and reads them back; None
/// where the free words lie too much apart.
fn write_changed(
    memory: Slot<'_>,
    space: &mut Space,
    want: &Want,
    changed: &[Ipv4Net],
) -> Result<Option<usize>, DatapathError> {
    let long = changed.iter().filter(|prefix| !ranges::is_short(prefix));
    let numbers: BTreeSet<u16> = long.map(ranges::bucket_of).collect();
    let short = changed.iter().filter(|prefix| ranges::is_short(prefix));
    let mut writes = 0;
    for prefix in short.filter(|prefix| prefix.prefix_len() != 0) {
        let change = ShortChange::of(want, prefix);
        for cover in change.buckets.clone().map(|number| memory.cover(number)) {
            if change.replaces(Meaning(load(cover))) {
                store(cover, change.cover.0);
                writes += 1;
            }
        }
    }
    for number in numbers {
        let bucket = ranges::bucket(want, number);
        match memory.put(space, number, &bucket) {
            Some(written) => writes += usize::from(written),
            None => return Ok(None),
        }
        read_back(memory, number, &bucket)?;
    }
    Ok(Some(writes))
}

/// Writes the buckets that differ and reads them back; None as above.
fn write_all(
    memory: Slot<'_>,
    space: &mut Space,
    want: &Want,
) -> Result<Option<usize>, DatapathError> {
    let mut writes = 0;
    for (number, bucket) in ranges::all(want) {
        match memory.put(space, number, &bucket) {
            Some(false) => continue,
            Some(true) => writes += 1,
            None => return Ok(None),
        }
        read_back(memory, number, &bucket)?;
    }
    Ok(Some(writes))
}

fn read_back(memory: Slot<'_>, number: u16, want: &Bucket) -> Result<(), DatapathError> {
    if memory.holds(number, want) {
        return Ok(());
    }
    Err(DatapathError::ReadBack {
        what: format!("bucket {number} of the IPv4 ipcache"),
    })
}

#[cfg(test)]
#[path = "ipcache4_tests.rs"]
mod tests;
