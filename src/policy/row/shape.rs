//! The one form of a row.
//!
//! A span of keys with up to eight runs is one block. One with more is divided by
//! halves of halves, so that equal parts of two rows are equal blocks:
//!
//! 1. what needs a block of blocks has an eighth of the span at most, which bounds
//!    the blocks on the way to a verdict;
//! 2. the part with the most runs is divided further while it needs such a block
//!    and there is room;
//! 3. parts with few runs stand in the block themselves where there is room left.

use std::ops::Range;

use palisade_abi::table::{Cell, RUNS_MAX};

use super::{Row, Shelf};

/// A part of a span.
#[derive(Clone)]
struct Part<'a> {
    keys: Range<u32>,
    /// Those that hold keys of it; the first may begin before.
    runs: &'a [(u32, Cell)],
    /// Its runs stand in the block.
    is_open: bool,
}

impl<'a> Part<'a> {
    fn new(runs: &'a [(u32, Cell)], keys: Range<u32>) -> Self {
        let first = runs.partition_point(|(start, _)| *start <= keys.start);
        let last = runs.partition_point(|(start, _)| *start < keys.end);
        let runs = &runs[first.saturating_sub(1)..last];
        Self {
            is_open: runs.len() == 1,
            keys,
            runs,
        }
    }

    fn halves(&self) -> [Self; 2] {
        let middle = self.keys.start.midpoint(self.keys.end);
        [self.keys.start..middle, middle..self.keys.end].map(|keys| Self::new(self.runs, keys))
    }

    /// Whether it takes more than one block.
    fn is_deep(&self) -> bool {
        self.runs.len() > RUNS_MAX
    }
}

/// How many words the parts take in a block: each run of those that are open, and
/// one for each other; neighbours that say the same are one run.
fn words(parts: &[Part<'_>]) -> usize {
    let mut words = 0;
    let mut last = None;
    for part in parts {
        if part.is_open {
            words += part.runs.len() - usize::from(last == Some(part.runs[0].1));
            last = part.runs.last().map(|(_, cell)| *cell);
        } else {
            words += 1;
            last = None;
        }
    }
    words
}

/// The row of the runs that hold keys of a span.
pub(super) fn row(shelf: &mut Shelf, runs: &[(u32, Cell)], keys: Range<u32>) -> Row {
    if let [(_, cell)] = runs {
        return Row::All(*cell);
    }
    let parts = if runs.len() <= RUNS_MAX {
        let whole = Part::new(runs, keys);
        vec![Part {
            is_open: true,
            ..whole
        }]
    } else {
        divided(runs, keys)
    };
    let mut block: Vec<(u32, Row)> = Vec::with_capacity(RUNS_MAX);
    for part in parts {
        if !part.is_open {
            let start = part.keys.start;
            block.push((start, row(shelf, part.runs, part.keys)));
            continue;
        }
        for (start, cell) in part.runs {
            let cell = Row::All(*cell);
            if block.last().is_none_or(|(_, last)| *last != cell) {
                block.push(((*start).max(part.keys.start), cell));
            }
        }
    }
    shelf.block(block)
}

fn divided(runs: &[(u32, Cell)], keys: Range<u32>) -> Vec<Part<'_>> {
    let eighth = (keys.end - keys.start) >> RUNS_MAX.ilog2();
    let mut parts = vec![Part::new(runs, keys)];
    let wide = |part: &Part<'_>| part.is_deep() && part.keys.end - part.keys.start > eighth;
    while let Some(place) = parts.iter().position(wide) {
        let halves = parts[place].halves();
        parts.splice(place..=place, halves);
    }
    // The first of the largest.
    let largest = |parts: &[Part<'_>]| {
        let deep = parts.iter().enumerate().filter(|(_, part)| part.is_deep());
        deep.rev()
            .max_by_key(|(_, part)| part.runs.len())
            .map(|(place, _)| place)
    };
    while let Some(place) = largest(&parts) {
        let mut more = parts.clone();
        more.splice(place..=place, parts[place].halves());
        if words(&more) > RUNS_MAX {
            break;
        }
        parts = more;
    }
    // The first of the smallest.
    let smallest = |parts: &[Part<'_>]| {
        let closed = parts.iter().enumerate().filter(|(_, part)| !part.is_open);
        closed
            .min_by_key(|(_, part)| part.runs.len())
            .map(|(place, _)| place)
    };
    while let Some(place) = smallest(&parts) {
        parts[place].is_open = true;
        if words(&parts) > RUNS_MAX {
            parts[place].is_open = false;
            break;
        }
    }
    parts
}
