//! What the buckets of the IPv4 ipcache must hold, in parts that each cost a
//! bounded number of prefixes, for the audit: a part may end within a bucket.
//! Pure; a part follows from the address where it begins alone.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use palisade_abi::ipcache::{Entry, Meaning};

use super::ipcache4_ranges::{
    ADDRESSES, Sweep, Want, address, bucket_of, high, is_short, low, meaning,
};

/// One bucket from one of its addresses to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) number: u16,
    pub(super) cover: Meaning,
    /// Its low halves: `from..to`.
    pub(super) from: u32,
    pub(super) to: u32,
    /// The ranges that begin there.
    pub(super) ranges: Vec<Entry>,
}

/// Stretches that follow each other.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) stretches: Vec<Stretch>,
    /// Prefixes that were looked at.
    pub(super) prefixes: usize,
    /// Where the next part begins; None behind the last address.
    pub(super) next: Option<Ipv4Addr>,
}

/// The part that begins at `from` and ends after so many prefixes (and those of
/// the same first address) or so many buckets.
pub(super) fn part(want: &Want, from: Ipv4Addr, prefixes_max: usize, buckets_max: u16) -> Part {
    let first = high(from);
    let mut covers = covers_of(want, first);
    let start = Ipv4Net::new_assert(from, 17);
    let mut inside = want.range(start..).peekable();
    let mut out = Part {
        stretches: Vec::new(),
        prefixes: 0,
        next: None,
    };
    let end = first.saturating_add(buckets_max - 1);
    for number in first..=end {
        covers.retain(|(last, _)| *last >= number);
        let opens = |prefix: &Ipv4Net| bucket_of(prefix) == number && is_short(prefix);
        while let Some((prefix, entry)) = inside.next_if(|(prefix, _)| opens(prefix)) {
            let last = high(prefix.broadcast());
            covers.push((last, meaning(entry, prefix.prefix_len())));
            out.prefixes += 1;
        }
        let from = if number == first { low(from) } else { 0 };
        let mut stretch = Stretch {
            number,
            cover: covers.last().map_or(Meaning::OPEN, |(_, meaning)| *meaning),
            from,
            to: ADDRESSES,
            ranges: Vec::new(),
        };
        let mut sweep = behind(want, number, from);
        let mut last = None;
        while let Some((prefix, entry)) = inside.peek()
            && bucket_of(prefix) == number
        {
            let at = low(prefix.network());
            if out.prefixes >= prefixes_max && last.is_some_and(|last| last != at) {
                stretch.to = at;
                break;
            }
            last = Some(at);
            sweep.take(prefix, entry);
            out.prefixes += 1;
            inside.next();
        }
        let is_whole = stretch.to == ADDRESSES;
        sweep.close(if is_whole { ADDRESSES } else { stretch.to - 1 });
        let known = usize::from(from > 0);
        stretch.ranges = sweep.ranges.split_off(known);
        let to = stretch.to;
        out.stretches.push(stretch);
        out.next = (u32::from(number) << 16)
            .checked_add(to)
            .map(Ipv4Addr::from);
        if !is_whole || out.prefixes >= prefixes_max {
            break;
        }
    }
    out
}

/// The short prefixes around a bucket, outermost first: the last bucket of each,
/// and what it means.
fn covers_of(want: &Want, number: u16) -> Vec<(u16, Meaning)> {
    let around = (1..=16).map(|length| Ipv4Net::new_assert(address(number, 0), length).trunc());
    let held = around.filter_map(|prefix| Some((prefix, want.get(&prefix)?)));
    held.map(|(prefix, entry)| {
        let last = high(prefix.broadcast());
        (last, meaning(entry, prefix.prefix_len()))
    })
    .collect()
}

/// A sweep over a bucket that has come to the address before `from`, with the
/// range of that address as its only one.
fn behind(want: &Want, number: u16, from: u32) -> Sweep {
    let mut sweep = Sweep::default();
    let Some(before) = from.checked_sub(1) else {
        return sweep;
    };
    let around = (17..=32).map(|length| Ipv4Net::new_assert(address(number, before), length));
    for prefix in around.map(|prefix| prefix.trunc()) {
        if let Some(entry) = want.get(&prefix) {
            let means = meaning(entry, prefix.prefix_len());
            sweep.inside.push((low(prefix.broadcast()) + 1, means));
        }
    }
    let innermost = sweep.inside.last();
    let means = innermost.map_or(Meaning::OPEN, |(_, means)| *means);
    let at = u16::try_from(before).unwrap_or(u16::MAX);
    sweep.ranges.push(Entry::new(at, means));
    sweep
}
