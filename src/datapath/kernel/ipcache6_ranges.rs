//! IPv6 prefixes as ranges, in order: where each begins, and what it means. See
//! `palisade_abi::ipcache6`. Pure.

use imbl::OrdMap;
use ipnet::Ipv6Net;
use palisade_abi::ipcache6::{CHUNK_ENTRIES, CHUNK_FILL, Chunk, Meaning, Range};

use crate::datapath::IpcacheEntry;

pub(super) type Want = OrdMap<Ipv6Net, IpcacheEntry>;

/// A range: its first address and its meaning.
pub(super) type Begin = (u128, Meaning);

pub(super) fn first(prefix: &Ipv6Net) -> u128 {
    prefix.network().to_bits()
}

pub(super) fn last(prefix: &Ipv6Net) -> u128 {
    prefix.broadcast().to_bits()
}

fn net(address: u128, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address.into(), length).trunc()
}

fn meaning(prefix: &Ipv6Net, entry: &IpcacheEntry) -> Meaning {
    Meaning::new(entry.identity.0, entry.index.0, prefix.prefix_len())
}

/// The prefix of which a range is a part; None where there is none.
pub(super) fn prefix((begin, meaning): Begin) -> Option<Ipv6Net> {
    (!meaning.is_open()).then(|| net(begin, meaning.length()))
}

/// The ranges of the addresses from `from` to `to`, the first beginning at `from`:
/// one where each prefix begins, and one behind each.
pub(super) fn ranges(want: &Want, from: u128, to: u128) -> Vec<Begin> {
    let mut out = Ranges::default();
    for length in 0..=128 {
        let around = net(from, length);
        if first(&around) != from
            && let Some(entry) = want.get(&around)
        {
            out.around.push((last(&around), meaning(&around, entry)));
        }
    }
    out.begin(from, out.innermost());
    let from = Ipv6Net::new_assert(from.into(), 0);
    for (prefix, entry) in want.range(from..=Ipv6Net::from(std::net::Ipv6Addr::from(to))) {
        out.end_before(first(prefix));
        out.begin(first(prefix), meaning(prefix, entry));
        out.around.push((last(prefix), meaning(prefix, entry)));
    }
    out.end_before(to);
    out.ranges
}

#[derive(Default)]
struct Ranges {
    ranges: Vec<Begin>,
    /// The prefixes around, outermost first: last address and meaning.
    around: Vec<(u128, Meaning)>,
}

impl Ranges {
    fn innermost(&self) -> Meaning {
        self.around.last().map_or(Meaning::OPEN, |around| around.1)
    }

    fn begin(&mut self, at: u128, meaning: Meaning) {
        match self.ranges.last_mut() {
            Some(range) if range.0 == at => range.1 = meaning,
            _ => self.ranges.push((at, meaning)),
        }
    }

    /// Leaves the prefixes that end before an address.
    fn end_before(&mut self, address: u128) {
        while let Some((last, _)) = self.around.pop_if(|(last, _)| *last < address) {
            self.begin(last + 1, self.innermost());
        }
    }
}

/// Ranges in pieces that each fit into a chunk.
pub(super) fn pieces(ranges: &[Begin]) -> impl Iterator<Item = &[Begin]> {
    let count = match ranges.len() {
        0..=CHUNK_ENTRIES => 1,
        more => more.div_ceil(CHUNK_FILL),
    };
    ranges.chunks(ranges.len().div_ceil(count).max(1))
}

/// Words as they stand in the kernel.
pub(super) fn range(begin: u128, word: u64) -> Range {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    Range {
        network: half(begin >> 64),
        host: half(begin),
        word,
    }
}

pub(super) fn begin_of(range: &Range) -> u128 {
    u128::from(range.network) << 64 | u128::from(range.host)
}

/// A chunk of a piece, which fits.
pub(super) fn chunk(piece: &[Begin]) -> Chunk {
    let end = piece.last().map_or(Meaning::OPEN, |last| last.1);
    let mut chunk = Chunk([range(u128::MAX, end.0); CHUNK_ENTRIES]);
    for (place, (begin, meaning)) in chunk.0.iter_mut().zip(piece) {
        *place = range(*begin, meaning.0);
    }
    chunk
}

/// The piece of a chunk whose addresses end at `to`. Where these are the last ones,
/// it may be one range more than was put there, with the meaning that it has anyway.
pub(super) fn piece(chunk: &Chunk, to: u128) -> Vec<Begin> {
    let mut out: Vec<Begin> = Vec::new();
    for entry in &chunk.0 {
        let begin = begin_of(entry);
        if begin <= to && out.last().is_none_or(|last| last.0 != begin) {
            out.push((begin, Meaning(entry.word)));
        }
    }
    out
}

/// What is told apart by its answers alone: without ranges that mean what the one
/// before them means.
pub(super) fn answers(ranges: impl IntoIterator<Item = Begin>) -> Vec<Begin> {
    let mut out: Vec<Begin> = Vec::new();
    for range in ranges {
        if out.last().is_none_or(|last| last.1 != range.1) {
            out.push(range);
        }
    }
    out
}
