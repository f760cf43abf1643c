//! The IPv6 ipcache in the kernel: a tree of ranges for each slot. Only the inactive
//! slot is ever written.
//!
//! What the kernel holds is the only copy of the ranges. Beside it stands, for each
//! slot, what it was last made to mean, and its index. Both are forgotten before
//! the first write and known again after the last one was read back; whoever does
//! not know them compares the whole slot, or writes it anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::Ipv6Net;
use palisade_abi::ipcache6::{CHUNK_ENTRIES, CHUNKS, Chunk, Index, Range, chunk_key};

use super::ipcache::{self, View, changed_entries, changed_prefixes, same_answers};
use super::ipcache6_ranges::{self as ranges, Begin, Want};
use super::mapping::Mapping;
use super::maps::{Map, MapName, Maps};
use crate::datapath::DatapathError;

/// Where more prefixes changed, one pass over all costs less.
const CHANGES_MAX: usize = 8_192;

/// Long words before the entries of an index, and of each of them; the one that
/// counts them.
const HEAD: usize = std::mem::offset_of!(Index, entries) / 8;
const COUNT: usize = std::mem::offset_of!(Index, count) / 8;
const WORDS: usize = size_of::<Range>() / 8;

/// The chunks of both slots.
pub(crate) trait Chunks {
    fn get(&self, key: u32) -> Result<Option<Chunk>, DatapathError>;
    fn put(&self, key: u32, chunk: &Chunk) -> Result<(), DatapathError>;
    fn remove(&self, key: u32) -> Result<(), DatapathError>;
    fn keys(&self) -> Result<Vec<u32>, DatapathError>;
}

impl Chunks for Map {
    fn get(&self, key: u32) -> Result<Option<Chunk>, DatapathError> {
        Self::get(self, &key)
    }
    fn put(&self, key: u32, chunk: &Chunk) -> Result<(), DatapathError> {
        Self::put(self, &key, chunk)
    }
    fn remove(&self, key: u32) -> Result<(), DatapathError> {
        Self::remove(self, &key).map(drop)
    }
    fn keys(&self) -> Result<Vec<u32>, DatapathError> {
        Self::keys(self).collect()
    }
}

/// The mapping of the indexes.
#[derive(Debug)]
pub(crate) struct IndexTables(Mapping);

impl IndexTables {
    pub(crate) fn open(maps: &Maps) -> Result<Self, DatapathError> {
        let mapping = Mapping::new(maps.of(MapName::Index6), size_of::<Index>())?;
        Ok(Self(mapping))
    }

    pub(crate) fn slot<'a>(&'a self, chunks: &'a Map, slot: usize) -> Slot<'a, Map> {
        let number = u32::from(slot != 0);
        Slot {
            index: self.0.longs(number, HEAD + WORDS * CHUNKS),
            chunks,
            number,
        }
    }
}

/// The words of one slot.
#[derive(Debug)]
pub(crate) struct Slot<'a, C> {
    pub(super) index: &'a [AtomicU64],
    pub(super) chunks: &'a C,
    pub(super) number: u32,
}

/// An entry of an index: where a chunk begins, and its number.
type Entry = (u128, u32);

impl<C: Chunks> Slot<'_, C> {
    /// The prefixes that the slot means, as far as any address has them. Any thread;
    /// the slot may be written meanwhile, so the caller looks again whether it was
    /// the current one all the time.
    pub(crate) fn prefixes(&self) -> Result<BTreeMap<Ipv6Net, View>, DatapathError> {
        let known = self.ranges()?.into_iter().filter_map(|range| {
            let view = (range.1.identity(), range.1.index());
            ranges::prefix(range).map(|prefix| (prefix, view))
        });
        Ok(known.collect())
    }

    fn load(&self, word: usize) -> u64 {
        self.index[word].load(Ordering::Relaxed)
    }

    /// Stores where it differs; whether it did.
    fn store(&self, word: usize, value: u64) -> bool {
        let differs = self.load(word) != value;
        if differs {
            self.index[word].store(value, Ordering::Relaxed);
        }
        differs
    }

    fn chunk(&self, number: u32) -> Result<Option<Chunk>, DatapathError> {
        self.chunks.get(chunk_key(self.number, number))
    }

    /// The index; None where it makes no sense.
    fn read_index(&self) -> Option<Vec<Entry>> {
        let count = usize::try_from(self.load(COUNT)).ok()?;
        if count > CHUNKS {
            return None;
        }
        let entries = (0..count).map(|place| {
            let at = HEAD + WORDS * place;
            let begin = Range {
                network: self.load(at),
                host: self.load(at + 1),
                word: 0,
            };
            let number = u32::try_from(self.load(at + 2)).ok()?;
            ((number as usize) < CHUNKS).then_some((ranges::begin_of(&begin), number))
        });
        let entries: Vec<Entry> = entries.collect::<Option<_>>()?;
        let mut numbers: Vec<u32> = entries.iter().map(|entry| entry.1).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let is_one = numbers.len() == count
            && entries.first().is_some_and(|first| first.0 == 0)
            && entries.is_sorted_by(|one, next| one.0 < next.0);
        (is_one && self.holds_index(&entries)).then_some(entries)
    }

    /// The words that an index has, by their place.
    fn words(entries: &[Entry]) -> impl Iterator<Item = (usize, u64)> {
        let window = window(entries.len());
        let last = entries.last().map_or(0, |last| last.1);
        let behind = std::iter::repeat((u128::MAX, last));
        let all = entries.iter().copied().chain(behind).take(window);
        let words = all.zip(0..).flat_map(|((begin, number), place)| {
            let Range {
                network,
                host,
                word,
            } = ranges::range(begin, u64::from(number));
            let at = HEAD + WORDS * place;
            [(at, network), (at + 1, host), (at + 2, word)]
        });
        let head = [window as u64, entries.len() as u64];
        head.into_iter().enumerate().chain(words)
    }

    fn holds_index(&self, entries: &[Entry]) -> bool {
        Self::words(entries).all(|(place, word)| self.load(place) == word)
    }

    /// The number of entries that were written.
    fn write_index(&self, entries: &[Entry]) -> usize {
        let stored = Self::words(entries).filter(|(place, word)| self.store(*place, *word));
        stored.count().div_ceil(WORDS)
    }

    /// All ranges, as far as they can be made out.
    fn ranges(&self) -> Result<Vec<Begin>, DatapathError> {
        let mut all = Vec::new();
        let index = self.read_index().unwrap_or_default();
        for (place, (_, number)) in index.iter().enumerate() {
            if let Some(chunk) = self.chunk(*number)? {
                all.extend(ranges::piece(&chunk, last_of(&index, place)));
            }
        }
        Ok(all)
    }

    /// How many of the chunks from `first` on, up to `count`, are not as wanted.
    fn unlike(
        &self,
        index: &[Entry],
        want: &Want,
        first: usize,
        count: usize,
    ) -> Result<usize, DatapathError> {
        let chunks = first..index.len().min(first + count);
        let Some(begin) = index.get(first) else {
            return Ok(0);
        };
        let all = ranges::ranges(want, begin.0, last_of(index, chunks.end - 1));
        let mut unlike = 0;
        for place in chunks {
            let (begin, number) = index[place];
            let piece = within(&all, begin, last_of(index, place));
            let fits = piece.len() <= CHUNK_ENTRIES;
            let holds = fits && self.chunk(number)? == Some(ranges::chunk(&piece));
            unlike += usize::from(!holds);
        }
        Ok(unlike)
    }

    /// The index, where all is exactly as wanted.
    fn holding(&self, want: &Want) -> Result<Option<Vec<Entry>>, DatapathError> {
        let Some(index) = self.read_index() else {
            return Ok(None);
        };
        let unlike = self.unlike(&index, want, 0, index.len())?;
        Ok((unlike == 0).then_some(index))
    }

    fn put(&self, number: u32, piece: &[Begin]) -> Result<(), DatapathError> {
        let (key, chunk) = (chunk_key(self.number, number), ranges::chunk(piece));
        self.chunks.put(key, &chunk)?;
        if self.chunks.get(key)? == Some(chunk) {
            return Ok(());
        }
        Err(DatapathError::ReadBack {
            what: format!("chunk {number} of the IPv6 ipcache"),
        })
    }

    /// Writes the slot from its beginning: the index, and the number of writes.
    fn write_anew(&self, want: &Want) -> Result<(Vec<Entry>, usize), DatapathError> {
        let all = ranges::ranges(want, 0, u128::MAX);
        let mut index = Vec::new();
        for (piece, number) in ranges::pieces(&all).zip(0..) {
            self.put(number, piece)?;
            index.push((piece[0].0, number));
        }
        let used = chunk_key(self.number, 0)..chunk_key(self.number + 1, 0);
        for key in self.chunks.keys()? {
            if used.contains(&key) && (key - used.start) as usize >= index.len() {
                self.chunks.remove(key)?;
            }
        }
        let writes = index.len() + self.write_index(&index);
        Ok((index, writes))
    }

    /// Writes the chunks of the prefixes that changed, the last first; None where
    /// there is no chunk left.
    fn write_changed(
        &self,
        index: &mut Vec<Entry>,
        want: &Want,
        changed: &[Ipv6Net],
    ) -> Result<Option<usize>, DatapathError> {
        let mut writes = 0;
        let mut numbers = vec![false; CHUNKS];
        for (_, number) in index.iter() {
            numbers[*number as usize] = true;
        }
        for run in runs(index, changed).into_iter().rev() {
            let all = ranges::ranges(want, index[run.start].0, last_of(index, run.end - 1));
            let pieces: Vec<&[Begin]> = ranges::pieces(&all).collect();
            let mut old = index[run.clone()].iter().map(|entry| entry.1);
            let mut new = Vec::new();
            for piece in pieces {
                let free = || numbers.iter().position(|used| !used);
                let number = old
                    .next()
                    .or_else(|| free().and_then(|it| it.try_into().ok()));
                let Some(number) = number else {
                    return Ok(None);
                };
                numbers[number as usize] = true;
                self.put(number, piece)?;
                new.push((piece[0].0, number));
            }
            writes += new.len();
            let left: Vec<u32> = old.collect();
            for number in left {
                numbers[number as usize] = false;
                self.chunks.remove(chunk_key(self.number, number))?;
            }
            index.splice(run, new);
        }
        Ok(Some(writes + self.write_index(index)))
    }
}

/// Entries that a search looks at.
fn window(count: usize) -> usize {
    if count == 0 {
        0
    } else {
        count.next_power_of_two()
    }
}
/// The last address of a chunk.
fn last_of(index: &[Entry], place: usize) -> u128 {
    index.get(place + 1).map_or(u128::MAX, |next| next.0 - 1)
}

/// The part of the ranges that lies between two addresses, from the first one on.
fn within(all: &[Begin], from: u128, to: u128) -> Vec<Begin> {
    let first = all.partition_point(|range| range.0 < from);
    let end = all.partition_point(|range| range.0 <= to);
    let before = first.checked_sub(1).map(|before| (from, all[before].1));
    let starts = all.get(first).is_some_and(|range| range.0 == from);
    let forced = before.filter(|_| !starts);
    forced
        .into_iter()
        .chain(all[first..end].iter().copied())
        .collect()
}

/// The chunks that changed prefixes touch, in order: where they begin, and what comes
/// behind them.
fn runs(index: &[Entry], changed: &[Ipv6Net]) -> Vec<std::ops::Range<usize>> {
    let place = |address: u128| index.partition_point(|entry| entry.0 <= address).max(1) - 1;
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for prefix in changed {
        let end = ranges::last(prefix).saturating_add(1);
        let run = place(ranges::first(prefix))..place(end) + 1;
        match runs.last_mut() {
            Some(last) if run.start < last.end => last.end = last.end.max(run.end),
            _ => runs.push(run),
        }
    }
    runs
}

/// What a piece of the audit saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) compared: usize,
    pub(crate) changed: usize,
    pub(crate) is_last: bool,
}

/// What is known of one slot.
#[derive(Debug, Default)]
pub(super) struct Known(Option<(Want, Vec<Entry>)>);

impl Known {
    fn want(&self) -> Option<&Want> {
        self.0.as_ref().map(|(want, _)| want)
    }

    /// Makes the slot mean what passed `check`; the number of writes.
    pub(super) fn write<C: Chunks>(
        &mut self,
        memory: &Slot<'_, C>,
        want: &Want,
    ) -> Result<usize, DatapathError> {
        let mut done = None;
        if let Some((before, mut index)) = self.0.take() {
            if let Some(changed) = changed_prefixes(&before, want, CHANGES_MAX) {
                let writes = memory.write_changed(&mut index, want, &changed)?;
                done = writes.map(|writes| (index, writes));
            }
        } else if let Some(index) = memory.holding(want)? {
            done = Some((index, 0));
        }
        let (index, writes) = match done {
            Some(done) => done,
            None => memory.write_anew(want)?,
        };
        if !memory.holds_index(&index) {
            return Err(DatapathError::ReadBack {
                what: "the index of the IPv6 ipcache".to_owned(),
            });
        }
        self.0 = Some((want.clone(), index));
        Ok(writes)
    }
}

/// The IPv6 ipcache of both slots. Owner: the committer thread.
#[derive(Debug, Default)]
pub(crate) struct Ipcache6([Known; 2]);

impl Ipcache6 {
    /// Refuses prefixes that do not fit. Any others do, see `palisade_abi::ipcache6`.
    pub(crate) fn check(&self, slot: usize, want: &Want) -> Result<(), DatapathError> {
        ipcache::check_count("IPv6 prefixes", want.len())?;
        match self.0[slot].want() {
            Some(known) => ipcache::check(changed_entries(known, want)),
            None => ipcache::check(want.iter()),
        }
    }

    /// Makes a slot mean what passed `check`; the number of writes.
    pub(crate) fn write<C: Chunks>(
        &mut self,
        memory: &Slot<'_, C>,
        slot: usize,
        want: &Want,
    ) -> Result<usize, DatapathError> {
        self.0[slot].write(memory, want)
    }

    /// Whether every address has in `slot` the identity that `want` gives it.
    pub(crate) fn holds<C: Chunks>(
        &self,
        memory: &Slot<'_, C>,
        slot: usize,
        want: &Want,
    ) -> Result<bool, DatapathError> {
        match self.0[slot].want() {
            Some(known) => Ok(same_answers(known, want)),
            None => Ok(memory.holding(want)?.is_some()),
        }
    }

    /// Compares the chunks from `first` on, up to `count`, with what was written;
    /// None where nothing is known of the slot.
    pub(crate) fn changed<C: Chunks>(
        &self,
        memory: &Slot<'_, C>,
        slot: usize,
        first: usize,
        count: usize,
    ) -> Option<Result<Seen, DatapathError>> {
        let (want, index) = self.0[slot].0.as_ref()?;
        let of_index = usize::from(!memory.holds_index(index));
        let unlike = memory.unlike(index, want, first, count);
        let end = index.len().min(first + count);
        Some(unlike.map(|unlike| Seen {
            compared: end - first.min(end),
            changed: unlike + of_index,
            is_last: end == index.len(),
        }))
    }

    /// Nothing is known of a slot any more.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.0[slot] = Known::default();
    }

    /// Whether both slots see every address alike.
    pub(crate) fn slots_agree<C: Chunks>(
        &self,
        slots: [Slot<'_, C>; 2],
    ) -> Result<bool, DatapathError> {
        if let [Some(one), Some(other)] = [0, 1].map(|slot: usize| self.0[slot].want()) {
            return Ok(same_answers(one, other));
        }
        let [one, other] = slots;
        Ok(ranges::answers(one.ranges()?) == ranges::answers(other.ranges()?))
    }
}

#[cfg(test)]
#[path = "ipcache6_tests.rs"]
mod tests;
