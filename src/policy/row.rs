//! Rows of verdicts by key, as trees that share what is equal.
//!
//! A row says something of each key of `palisade_abi::table`: the same of all, or
//! a block of up to eight runs of keys. So a row is as large as what it tells
//! apart, and one that changes moves nothing in another.
//!
//! Invariant: a row has one form, which follows from what it says (`shape`). So
//! two rows are equal only if their trees are, and a [`Shelf`] gives equal rows
//! one memory.

mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::{Cell, KEY_BITS, decide};

/// Keys of a row.
pub const KEYS: u32 = 1 << KEY_BITS;

/// Runs of something by key: where each begins, from 0 on, rising; neighbours
/// differ.
pub(crate) type Runs<T> = Vec<(u32, T)>;

/// The verdicts of a class of identities by key, or of a run of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// The same for all keys.
    All(Cell),
    /// Two runs or more, by where they begin. The first begins where the block
    /// does.
    Block(Arc<[(u32, Self)]>),
}

impl Default for Row {
    /// Decides about nothing.
    fn default() -> Self {
        Self::All(Cell::UNDECIDED)
    }
}

/// What a row is: its verdict, or where its block is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Identity {
    All(Cell),
    There(usize),
}

impl Row {
    /// A row of these runs, which rise and hold every key.
    #[must_use]
    pub fn of(runs: &[(Range<u32>, Cell)]) -> Self {
        let starts = runs.iter().map(|(run, cell)| (run.start, *cell));
        let mut starts: Runs<Cell> = starts.collect();
        starts.dedup_by_key(|(_, cell)| *cell);
        Shelf::default().row(&starts)
    }

    /// The verdict of a key.
    #[must_use]
    pub fn get(&self, key: u32) -> Cell {
        let mut row = self;
        loop {
            match row {
                Self::All(cell) => return *cell,
                Self::Block(runs) => {
                    let behind = runs.partition_point(|(start, _)| *start <= key);
                    row = &runs[behind.saturating_sub(1)].1;
                }
            }
        }
    }

    /// What it says, as runs of keys in order.
    #[must_use]
    pub fn runs(&self) -> Vec<(Range<u32>, Cell)> {
        let mut runs: Vec<(Range<u32>, Cell)> = Vec::new();
        self.visit(0, &mut |start, cell| match runs.last_mut() {
            Some((_, last)) if *last == cell => {}
            last => {
                if let Some((run, _)) = last {
                    run.end = start;
                }
                runs.push((start..KEYS, cell));
            }
        });
        runs
    }

    /// What it says together with everyone's two rows (`palisade_abi::table`).
    #[must_use]
    pub fn decided(&self, denied: &Self, everyone: &Self) -> Vec<(Range<u32>, Cell)> {
        let starts = |row: &Self| -> Runs<Cell> {
            let runs = row.runs().into_iter();
            runs.map(|(run, cell)| (run.start, cell)).collect()
        };
        let behind = zipped(&starts(denied), &starts(everyone), |denied, everyone| {
            (denied, everyone)
        });
        let decided = zipped(&starts(self), &behind, |own, (denied, everyone)| {
            decide(own, || denied, || everyone)
        });
        let ends = decided.iter().skip(1).map(|(start, _)| *start);
        let ends = ends.chain([KEYS]);
        let runs = decided.iter().zip(ends);
        runs.map(|((start, cell), end)| (*start..end, *cell))
            .collect()
    }

    fn visit(&self, start: u32, see: &mut impl FnMut(u32, Cell)) {
        match self {
            Self::All(cell) => see(start, *cell),
            Self::Block(runs) => runs.iter().for_each(|(start, row)| row.visit(*start, see)),
        }
    }

    /// Tells rows of one [`Shelf`] apart at a glance, while they live.
    pub(crate) fn identity(&self) -> Identity {
        match self {
            Self::All(cell) => Identity::All(*cell),
            Self::Block(runs) => Identity::There(Arc::as_ptr(runs).addr()),
        }
    }
}

/// Different blocks of rows, told apart by where they are in memory.
pub(crate) fn block_count<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    let mut seen = HashSet::new();
    let mut next: Vec<&Row> = rows.collect();
    while let Some(row) = next.pop() {
        if let Row::Block(runs) = row
            && seen.insert(Arc::as_ptr(runs).addr())
        {
            next.extend(runs.iter().map(|(_, row)| row));
        }
    }
    seen.len()
}

/// What comes of two lists of runs of the same keys.
pub(crate) fn zipped<A: Copy, B: Copy, T: Eq>(
    one: &[(u32, A)],
    other: &[(u32, B)],
    of: impl Fn(A, B) -> T,
) -> Runs<T> {
    let mut zipped: Runs<T> = Vec::with_capacity(one.len() + other.len());
    let (mut at, mut beside) = (0, 0);
    loop {
        let (own, others) = (one[at], other[beside]);
        let value = of(own.1, others.1);
        if zipped.last().is_none_or(|(_, last)| *last != value) {
            zipped.push((own.0.max(others.0), value));
        }
        let [next, next_beside] = [
            one.get(at + 1).map_or(KEYS, |run| run.0),
            other.get(beside + 1).map_or(KEYS, |run| run.0),
        ];
        if next == KEYS && next_beside == KEYS {
            return zipped;
        }
        at += usize::from(next <= next_beside);
        beside += usize::from(next_beside <= next);
    }
}

/// A block on a shelf. Its rows are on the same shelf, so their addresses tell
/// what is in them.
#[derive(Debug)]
struct Shelved(Arc<[(u32, Row)]>);

impl Shelved {
    fn runs(&self) -> impl Iterator<Item = (u32, Identity)> {
        self.0.iter().map(|(start, row)| (*start, row.identity()))
    }
}

impl PartialEq for Shelved {
    fn eq(&self, other: &Self) -> bool {
        self.runs().eq(other.runs())
    }
}
impl Eq for Shelved {}

impl Hash for Shelved {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.runs().for_each(|run| run.hash(state));
    }
}

/// Makes rows, each different block once.
#[derive(Debug, Default)]
pub(crate) struct Shelf(HashSet<Shelved>);

impl Shelf {
    /// A row of these runs.
    pub(crate) fn row(&mut self, runs: &[(u32, Cell)]) -> Row {
        shape::row(self, runs, 0..KEYS)
    }

    fn block(&mut self, runs: Vec<(u32, Row)>) -> Row {
        let shelved = Shelved(runs.into());
        if let Some(known) = self.0.get(&shelved) {
            return Row::Block(Arc::clone(&known.0));
        }
        let block = Row::Block(Arc::clone(&shelved.0));
        self.0.insert(shelved);
        block
    }

    /// Blocks on the shelf.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the blocks that nobody else has.
    pub(crate) fn sweep(&mut self) {
        loop {
            let before = self.0.len();
            self.0.retain(|block| Arc::strong_count(&block.0) > 1);
            if self.0.len() == before {
                return;
            }
        }
    }
}
