//! Rows of verdicts by column, as trees that share what they have in common.
//!
//! A row is a value for all columns, or a block: one part for each value of the
//! next bits of the column, from the highest (`palisade_abi::table`). So a row
//! is as large as what tells it from other rows, however many columns there are.
//!
//! Invariant: a block has two different parts at least. So two rows are equal
//! only if their trees are, and a [`Shelf`] gives equal rows one memory.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::{BLOCK_WORDS, Cell, DIGIT_BITS};

/// A row, or a part of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<T> {
    /// The same in all columns.
    All(T),
    /// As many parts as its columns need, [`BLOCK_WORDS`] at most.
    Block(Arc<[Self]>),
}

/// The verdicts of a class of identities, by column.
pub type Row = Part<Cell>;

/// How far a column is shifted to choose a part of a row of so many columns.
#[must_use]
pub(crate) fn shift(columns: usize) -> u32 {
    let mut shift = 0;
    while columns > BLOCK_WORDS << shift {
        shift += DIGIT_BITS;
    }
    shift
}

impl<T: Copy + Eq> Part<T> {
    /// The value of a column, of a row of so many; None past the last one.
    #[must_use]
    pub fn get(&self, columns: usize, column: usize) -> Option<T> {
        if column >= columns {
            return None;
        }
        let (mut part, mut shift) = (self, shift(columns));
        loop {
            match part {
                Self::All(value) => return Some(*value),
                Self::Block(parts) => part = parts.get((column >> shift) % BLOCK_WORDS)?,
            }
            shift = shift.saturating_sub(DIGIT_BITS);
        }
    }

    /// The values of so many columns, as runs in order.
    #[must_use]
    pub fn runs(&self, columns: usize) -> Vec<(Range<usize>, T)> {
        let mut runs = Vec::new();
        self.add_runs(0..columns, shift(columns), &mut runs);
        runs
    }

    fn add_runs(&self, span: Range<usize>, shift: u32, runs: &mut Vec<(Range<usize>, T)>) {
        match self {
            Self::All(value) => match runs.last_mut() {
                Some((run, last)) if last == value => run.end = span.end,
                Some(_) | None => runs.push((span, *value)),
            },
            Self::Block(parts) => {
                for (part, span) in parts.iter().zip(split(span, shift)) {
                    part.add_runs(span, shift.saturating_sub(DIGIT_BITS), runs);
                }
            }
        }
    }

    /// Tells parts of one [`Shelf`] apart at a glance, while they live.
    pub(crate) fn identity(&self) -> Identity<T> {
        match self {
            Self::All(value) => Identity::All(*value),
            Self::Block(parts) => Identity::Block(Arc::as_ptr(parts).addr()),
        }
    }
}

impl Row {
    /// A row of these cells.
    #[must_use]
    pub fn of(cells: &[Cell]) -> Self {
        Shelf::default().row(cells.len(), &runs(cells))
    }

    /// The cells of so many columns.
    #[must_use]
    pub fn cells(&self, columns: usize) -> Vec<Cell> {
        let mut cells = Vec::with_capacity(columns);
        for (run, cell) in self.runs(columns) {
            cells.resize(run.end, cell);
        }
        cells
    }
}

/// Runs of equal cells.
pub(crate) fn runs(cells: &[Cell]) -> Vec<(Range<usize>, Cell)> {
    let mut runs: Vec<(Range<usize>, Cell)> = Vec::new();
    for (column, cell) in cells.iter().enumerate() {
        match runs.last_mut() {
            Some((run, last)) if last == cell => run.end = column + 1,
            Some(_) | None => runs.push((column..column + 1, *cell)),
        }
    }
    runs
}

/// The parts of a span of columns.
pub(crate) fn split(span: Range<usize>, shift: u32) -> impl Iterator<Item = Range<usize>> {
    let end = span.end;
    span.step_by(1 << shift)
        .map(move |start| start..(start + (1 << shift)).min(end))
}

/// What a part is: its value, or where its block is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Identity<T> {
    All(T),
    Block(usize),
}

/// A block on a shelf. Its parts are on the same shelf, so their addresses tell
/// what is in them.
#[derive(Debug)]
struct Shelved<T>(Arc<[Part<T>]>);

impl<T: Copy + Eq> PartialEq for Shelved<T> {
    fn eq(&self, other: &Self) -> bool {
        let both = || self.0.iter().zip(other.0.iter());
        self.0.len() == other.0.len()
            && both().all(|(one, other)| one.identity() == other.identity())
    }
}
impl<T: Copy + Eq> Eq for Shelved<T> {}

impl<T: Copy + Eq + Hash> Hash for Shelved<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for part in self.0.iter() {
            part.identity().hash(state);
        }
    }
}

/// Makes rows, each different block once.
#[derive(Debug)]
pub(crate) struct Shelf<T>(HashSet<Shelved<T>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Copy + Eq + Hash> Shelf<T> {
    /// Blocks on the shelf.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Of these parts, which are on this shelf.
    pub(crate) fn block(&mut self, parts: Vec<Part<T>>) -> Part<T> {
        if let Some(Part::All(first)) = parts.first()
            && parts.iter().all(|part| *part == Part::All(*first))
        {
            return Part::All(*first);
        }
        let shelved = Shelved(parts.into());
        if let Some(known) = self.0.get(&shelved) {
            return Part::Block(Arc::clone(&known.0));
        }
        let block = Part::Block(Arc::clone(&shelved.0));
        self.0.insert(shelved);
        block
    }

    /// A row of so many columns. The runs rise and hold every column.
    pub(crate) fn row(&mut self, columns: usize, runs: &[(Range<usize>, T)]) -> Part<T> {
        self.part(0..columns, shift(columns), runs)
    }

    fn part(&mut self, span: Range<usize>, shift: u32, runs: &[(Range<usize>, T)]) -> Part<T> {
        let first = runs.partition_point(|(run, _)| run.end <= span.start);
        let last = runs.partition_point(|(run, _)| run.start < span.end);
        let runs = &runs[first..last];
        if let [(_, value)] = runs {
            return Part::All(*value);
        }
        let parts = split(span, shift);
        let parts = parts
            .map(|span| self.part(span, shift.saturating_sub(DIGIT_BITS), runs))
            .collect();
        self.block(parts)
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

#[cfg(test)]
mod tests {
    use palisade_abi::table::Cell;
    use proptest::prelude::*;

    use super::{Part, Row, Shelf, runs, shift};

    fn cells() -> impl Strategy<Value = Vec<Cell>> {
        let run = (0..3u32, 1..90usize);
        proptest::collection::vec(run, 1..12).prop_map(|runs| {
            let cells = runs.into_iter();
            cells
                .flat_map(|(cell, length)| std::iter::repeat_n(Cell(cell << 8), length))
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_row_holds_its_cells(cells in cells()) {
            let row = Row::of(&cells);
            prop_assert_eq!(&row.cells(cells.len()), &cells);
            prop_assert_eq!(row.runs(cells.len()), runs(&cells));
            for (column, cell) in cells.iter().enumerate() {
                prop_assert_eq!(row.get(cells.len(), column), Some(*cell));
            }
            prop_assert_eq!(row.get(cells.len(), cells.len()), None);
        }

        #[test]
        fn equal_rows_have_one_memory(one in cells(), place in any::<prop::sample::Index>(), cell in 0..3u32) {
            let mut other = one.clone();
            let place = place.index(one.len());
            other[place] = Cell(cell << 8);
            let mut shelf = Shelf::default();
            let first = shelf.row(one.len(), &runs(&one));
            let blocks = shelf.len();
            let second = shelf.row(other.len(), &runs(&other));
            prop_assert_eq!(one == other, first.identity() == second.identity());
            prop_assert_eq!(one == other, first == second);
            let levels = shift(one.len()) as usize / 4 + 1;
            prop_assert!(shelf.len() <= blocks + levels, "a cell costs its way from the top");
            drop(second);
            shelf.sweep();
            prop_assert_eq!(shelf.len(), blocks);
        }
    }

    #[test]
    fn what_is_the_same_everywhere_needs_no_block() {
        let cell = Cell(7 << 8);
        assert_eq!(Row::of(&[cell; 70_000]), Part::All(cell));
        assert_eq!(
            [1, 16, 17, 256, 257, 65_536].map(shift),
            [0, 0, 4, 4, 8, 12]
        );
    }
}
