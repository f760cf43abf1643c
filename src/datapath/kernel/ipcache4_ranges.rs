//! The IPv4 ipcache as ranges: what each /16 must hold for given prefixes, and
//! which prefixes a slot's words mean. Pure; layout: `palisade_abi::ipcache`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use imbl::OrdMap;
use ipnet::Ipv4Net;
use palisade_abi::ipcache::{BUCKETS, Entry, Meaning, Place, Strides};

use super::ipcache::{Prefix, View};
use crate::datapath::IpcacheEntry;

pub(super) type Want = OrdMap<Ipv4Net, IpcacheEntry>;

/// Longest prefix that covers whole buckets.
const SHORT_MAX: u8 = 16;
/// Addresses of a bucket.
pub(super) const ADDRESSES: u32 = 65_536;

/// What one /16 means.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Bucket {
    /// Of the longest prefix of 1 to 16 bits around it.
    pub(super) cover: Meaning,
    /// Ranges by the longer prefixes; none where there is no longer prefix.
    pub(super) ranges: Vec<Entry>,
}

impl Bucket {
    /// The words of its chunk; none where one meaning is all.
    pub(super) fn chunk(&self) -> Option<(Strides, impl Iterator<Item = u64>)> {
        let last = self.ranges.last()?;
        let ranges = u32::try_from(self.ranges.len()).unwrap_or(ADDRESSES);
        let strides = Strides::of(ranges);
        let entries = self.ranges.iter().chain(std::iter::repeat(last));
        let words = entries
            .take(strides.entries() as usize)
            .map(|entry| entry.0);
        Some((strides, std::iter::once(self.cover.0).chain(words)))
    }
}

/// What an entry of the ipcache means for a prefix of that many bits.
pub(super) fn meaning(entry: &IpcacheEntry, length: u8) -> Meaning {
    Meaning::new(entry.identity.0, entry.index.0, length)
}

/// What /0 means. Its length stands in no word.
pub(super) fn default_meaning(want: &Want) -> Meaning {
    let entry = want.get(&Ipv4Net::default());
    entry.map_or(Meaning::OPEN, |entry| meaning(entry, 1))
}

pub(super) fn is_short(prefix: &Ipv4Net) -> bool {
    prefix.prefix_len() <= SHORT_MAX
}

/// The bucket of a prefix; for a short one the first that it covers.
pub(super) fn bucket_of(prefix: &Ipv4Net) -> u16 {
    high(prefix.network())
}

pub(super) fn high(address: Ipv4Addr) -> u16 {
    let [first, second, ..] = address.octets();
    u16::from_be_bytes([first, second])
}

pub(super) fn low(address: Ipv4Addr) -> u32 {
    let [.., third, fourth] = address.octets();
    u32::from(u16::from_be_bytes([third, fourth]))
}

pub(super) fn address(bucket: u16, low: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(bucket) << 16 | low)
}

fn whole(bucket: u16) -> Ipv4Net {
    // 16 is a length.
    Ipv4Net::new_assert(address(bucket, 0), SHORT_MAX)
}

/// What one /16 must hold.
pub(super) fn bucket(want: &Want, number: u16) -> Bucket {
    let first = Ipv4Net::new_assert(address(number, 0), SHORT_MAX + 1);
    let last = Ipv4Net::new_assert(address(number, ADDRESSES - 1), 32);
    Bucket {
        cover: cover(want, whole(number)),
        ranges: ranges(want.range(first..=last)),
    }
}

/// What each /16 must hold, in order; one pass over all prefixes.
pub(super) fn all(want: &Want) -> impl Iterator<Item = (u16, Bucket)> {
    let mut covers = vec![Meaning::OPEN; BUCKETS];
    for (prefix, entry) in want.iter().filter(|(prefix, _)| is_short(prefix)) {
        if prefix.prefix_len() != 0 {
            let first = usize::from(bucket_of(prefix));
            let last = usize::from(high(prefix.broadcast()));
            // An outer prefix stands before those within it.
            covers[first..=last].fill(meaning(entry, prefix.prefix_len()));
        }
    }
    let mut long = want
        .iter()
        .filter(|(prefix, _)| !is_short(prefix))
        .peekable();
    (0..=u16::MAX).zip(covers).map(move |(number, cover)| {
        let ranges = ranges(Within {
            number,
            prefixes: &mut long,
        });
        (number, Bucket { cover, ranges })
    })
}

/// The prefixes of one bucket, from an ordered list of those of all.
struct Within<'a, I: Iterator> {
    number: u16,
    prefixes: &'a mut Peekable<I>,
}

impl<'w, I: Iterator<Item = (&'w Ipv4Net, &'w IpcacheEntry)>> Iterator for Within<'_, I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let number = self.number;
        self.prefixes
            .next_if(|(prefix, _)| bucket_of(prefix) == number)
    }
}

/// What the longest prefix of 1 bit to as many as `prefix` around it means.
fn cover(want: &Want, prefix: Ipv4Net) -> Meaning {
    let mut around = prefix;
    while around.prefix_len() != 0 {
        if let Some(entry) = want.get(&around) {
            return meaning(entry, around.prefix_len());
        }
        match around.wider() {
            Some(wider) => around = wider,
            None => break,
        }
    }
    Meaning::OPEN
}

/// A short prefix, of one bit at least, that came, went or means something else.
pub(super) struct ShortChange {
    pub(super) buckets: RangeInclusive<u16>,
    /// What those of its buckets mean now that no longer short prefix covers.
    pub(super) cover: Meaning,
    length: u8,
    is_gone: bool,
}

impl ShortChange {
    pub(super) fn of(want: &Want, prefix: &Ipv4Net) -> Self {
        Self {
            buckets: bucket_of(prefix)..=high(prefix.broadcast()),
            cover: cover(want, *prefix),
            length: prefix.prefix_len(),
            is_gone: !want.contains_key(prefix),
        }
    }

    /// Whether a bucket that has the cover `held` gets another one. The length
    /// tells which prefix that is: only one of that length is around a bucket.
    pub(super) fn replaces(&self, held: Meaning) -> bool {
        let length = if held.is_open() { 0 } else { held.length() };
        let concerns = if self.is_gone {
            length == self.length
        } else {
            length <= self.length
        };
        concerns && held != self.cover
    }
}

/// The ranges that the longer prefixes of one bucket make, in order. Ranges of
/// one meaning that touch are one.
fn ranges<'a>(prefixes: impl Iterator<Item = (&'a Ipv4Net, &'a IpcacheEntry)>) -> Vec<Entry> {
    let mut sweep = Sweep::default();
    for (prefix, entry) in prefixes {
        sweep.take(prefix, entry);
    }
    sweep.close(ADDRESSES);
    sweep.ranges
}

/// Goes over the prefixes of a bucket from left to right.
#[derive(Default)]
pub(super) struct Sweep {
    pub(super) ranges: Vec<Entry>,
    /// The prefixes around the place reached, outermost first: the address
    /// behind each, and what it means.
    pub(super) inside: Vec<(u32, Meaning)>,
}

impl Sweep {
    /// Comes to the next prefix.
    pub(super) fn take(&mut self, prefix: &Ipv4Net, entry: &IpcacheEntry) {
        let first = low(prefix.network());
        self.close(first);
        let meaning = meaning(entry, prefix.prefix_len());
        self.begin(first, meaning);
        self.inside.push((low(prefix.broadcast()) + 1, meaning));
    }

    /// Ends the prefixes that end at or before `at`.
    pub(super) fn close(&mut self, at: u32) {
        while let Some((end, _)) = self.inside.pop_if(|(end, _)| *end <= at) {
            let around = self.inside.last();
            self.begin(end, around.map_or(Meaning::OPEN, |(_, meaning)| *meaning));
        }
    }

    fn begin(&mut self, at: u32, meaning: Meaning) {
        // Behind the last address nothing begins.
        let Ok(at) = u16::try_from(at) else { return };
        if self.ranges.is_empty() && at != 0 {
            self.ranges.push(Entry::new(0, Meaning::OPEN));
        }
        if self.ranges.last().is_some_and(|last| last.first() == at) {
            self.ranges.pop();
        }
        if self.ranges.last().map(|last| last.meaning()) != Some(meaning) {
            self.ranges.push(Entry::new(at, meaning));
        }
    }
}

/// A bucket as its words are read: what it means as a whole, or its chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Words {
    Whole(Meaning),
    /// What it leaves open, and its entries.
    Chunk(Meaning, Vec<Entry>),
    /// A place outside of the pool.
    Broken,
}

impl Words {
    /// From the word of a bucket; `pool` gives the words of a chunk.
    pub(super) fn read(word: u64, pool: impl FnOnce(Place) -> Option<Vec<u64>>) -> Self {
        if !Place::is_one(word) {
            return Self::Whole(Meaning(word));
        }
        match pool(Place(word)).as_deref() {
            Some([cover, entries @ ..]) => {
                let entries = entries.iter().map(|word| Entry(*word)).collect();
                Self::Chunk(Meaning(*cover), entries)
            }
            _ => Self::Broken,
        }
    }

    /// The prefixes that the words mean, but for /0. One that longer ones hide
    /// everywhere is not told.
    pub(super) fn prefixes(&self, number: u16, out: &mut BTreeMap<Ipv4Net, View>) {
        let mut tell = |at: u32, meaning: Meaning| {
            let net = Ipv4Net::new_assert(address(number, at), meaning.length()).trunc();
            out.insert(net, (meaning.identity(), meaning.index()));
            net
        };
        let (cover, entries) = match self {
            Self::Whole(meaning) => (*meaning, [].as_slice()),
            Self::Chunk(cover, entries) => (*cover, entries.as_slice()),
            Self::Broken => return,
        };
        if !cover.is_open() {
            let mut entries = entries.iter();
            if entries.len() == 0 || entries.any(|entry| entry.meaning().is_open()) {
                tell(0, cover);
            }
        }
        for (place, entry) in entries.iter().enumerate() {
            let next = entries.get(place + 1);
            let end = next.map_or(ADDRESSES, |next| u32::from(next.first()));
            let mut at = u32::from(entry.first());
            while at < end && !entry.meaning().is_open() {
                at = low(tell(at, entry.meaning()).broadcast()) + 1;
            }
        }
    }
}
