//! Rows of verdicts by column, as trees that share what they have in common.
//!
//! A row is a value for all columns, or a block: one part for each value of the
//! next bits of the column, from the highest (`palisade_abi::table`). So a row
//! is as large as what tells it from other rows, however many columns there are.
//!
//! Invariant: no block is the same in all its columns. So two rows are equal
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

    /// The part for a value of the bits that this part is divided by.
    pub(crate) fn part(&self, digit: usize) -> &Self {
        match self {
            Self::All(_) => self,
            Self::Block(parts) => &parts[digit],
        }
    }

    /// How many parts it has; None where it is undivided.
    pub(crate) fn parts(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::Block(parts) => Some(parts.len()),
        }
    }

    /// Whether somebody else has it too, or may have.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::All(_) => true,
            Self::Block(parts) => Arc::strong_count(parts) > 1,
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

/// Different blocks of rows, told apart by where they are in memory.
pub(crate) fn block_count<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    let mut seen = HashSet::new();
    let mut next: Vec<&Row> = rows.collect();
    while let Some(part) = next.pop() {
        if let Part::Block(parts) = part
            && seen.insert(Arc::as_ptr(parts).addr())
        {
            next.extend(parts.iter());
        }
    }
    seen.len()
}

/// Runs of equal cells.
fn runs(cells: &[Cell]) -> Vec<(Range<usize>, Cell)> {
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

/// Puts blocks together from their parts.
pub(crate) trait Maker<T: Copy + Eq> {
    /// A block of parts that are not all one value.
    fn shelve(&mut self, parts: Vec<Part<T>>) -> Part<T>;

    /// Of these parts, which the same maker made.
    fn block(&mut self, parts: Vec<Part<T>>) -> Part<T> {
        if let Some(Part::All(first)) = parts.first() {
            let first = *first;
            if parts
                .iter()
                .all(|part| matches!(part, Part::All(value) if *value == first))
            {
                return Part::All(first);
            }
        }
        self.shelve(parts)
    }

    /// A row of so many columns. The runs rise and hold every column.
    fn row(&mut self, columns: usize, runs: &[(Range<usize>, T)]) -> Part<T> {
        self.part(0..columns, shift(columns), runs)
    }

    #[doc(hidden)]
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

    /// A row of so many columns with another value in one of them.
    fn put(&mut self, row: &Part<T>, columns: usize, column: usize, value: T) -> Part<T> {
        self.put_below(row, columns, shift(columns), column, value)
    }

    #[doc(hidden)]
    fn put_below(
        &mut self,
        part: &Part<T>,
        columns: usize,
        shift: u32,
        column: usize,
        value: T,
    ) -> Part<T> {
        let mut parts = match part {
            Part::All(all) if *all == value || columns == 1 => return Part::All(value),
            Part::All(all) => vec![Part::All(*all); columns.div_ceil(1 << shift)],
            Part::Block(parts) => parts.to_vec(),
        };
        let (digit, width) = (column >> shift, 1 << shift);
        let below = (columns - digit * width).min(width);
        let (column, shift) = (column % width, shift.saturating_sub(DIGIT_BITS));
        parts[digit] = self.put_below(&parts[digit], below, shift, column, value);
        self.block(parts)
    }
}

/// Makes blocks and counts them; equal ones may be made twice.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    pub(crate) made: usize,
}

impl<T: Copy + Eq> Maker<T> for Loose {
    fn shelve(&mut self, parts: Vec<Part<T>>) -> Part<T> {
        self.made += 1;
        Part::Block(parts.into())
    }
}

impl Loose {
    /// The lesser of two values in each column, by their places in `order`;
    /// `most` is the largest. Costs what both tell apart.
    pub(crate) fn least<T: Copy + Eq, O: Ord>(
        &mut self,
        one: &Part<T>,
        other: &Part<T>,
        most: T,
        order: &impl Fn(T) -> O,
    ) -> Part<T> {
        match (one, other) {
            (Part::All(one), Part::All(other)) => {
                let is_other = order(*other) < order(*one);
                Part::All(if is_other { *other } else { *one })
            }
            (Part::All(value), part) | (part, Part::All(value)) if *value == most => part.clone(),
            (Part::All(_), Part::Block(parts)) => self.least_of(parts, one, most, order),
            (Part::Block(parts), Part::All(_)) => self.least_of(parts, other, most, order),
            (Part::Block(one), Part::Block(other)) if Arc::ptr_eq(one, other) => {
                Part::Block(Arc::clone(one))
            }
            (Part::Block(parts), Part::Block(_)) => self.least_of(parts, other, most, order),
        }
    }

    fn least_of<T: Copy + Eq, O: Ord>(
        &mut self,
        own: &Arc<[Part<T>]>,
        other: &Part<T>,
        most: T,
        order: &impl Fn(T) -> O,
    ) -> Part<T> {
        let parts = own.iter().enumerate();
        let parts: Vec<Part<T>> = parts
            .map(|(digit, part)| self.least(part, other.part(digit), most, order))
            .collect();
        let mut both = own.iter().zip(&parts);
        if both.all(|(old, new)| old.identity() == new.identity()) {
            return Part::Block(Arc::clone(own));
        }
        self.block(parts)
    }
}

impl<T: Copy + Eq + Hash> Maker<T> for Shelf<T> {
    fn shelve(&mut self, parts: Vec<Part<T>>) -> Part<T> {
        let shelved = Shelved(parts.into());
        if let Some(known) = self.0.get(&shelved) {
            return Part::Block(Arc::clone(&known.0));
        }
        let block = Part::Block(Arc::clone(&shelved.0));
        self.0.insert(shelved);
        block
    }
}

impl<T: Copy + Eq + Hash> Shelf<T> {
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

#[cfg(test)]
mod tests {
    use palisade_abi::table::Cell;
    use proptest::prelude::*;

    use super::{Loose, Maker as _, Part, Row, Shelf, runs, shift};

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

        #[test]
        fn a_changed_cell_and_the_lesser_of_two_rows_are_as_made_anew(
            one in cells(), other in cells(), place in any::<prop::sample::Index>(), cell in 0..3u32
        ) {
            let columns = one.len().min(other.len());
            let (mut one, other) = (one[..columns].to_vec(), &other[..columns]);
            let mut shelf = Shelf::default();
            let (row, second) = (shelf.row(columns, &runs(&one)), Row::of(other));
            let place = place.index(columns);
            one[place] = Cell(cell << 8);
            let row = shelf.put(&row, columns, place, one[place]);
            prop_assert_eq!(&row, &Row::of(&one));
            let again = shelf.row(columns, &runs(&one));
            prop_assert_eq!(again.identity(), row.identity());
            let ranks = |cells: &[Cell]| -> Vec<_> {
                runs(cells).into_iter().map(|(run, cell)| (run, cell.0)).collect()
            };
            let mut loose = Loose::default();
            let (left, right) = (loose.row(columns, &ranks(&one)), loose.row(columns, &ranks(other)));
            let least: Vec<Cell> = one.iter().zip(other).map(|(one, other)| Cell(one.0.min(other.0))).collect();
            let expected = Loose::default().row(columns, &ranks(&least));
            let order = |cell: u32| cell;
            prop_assert_eq!(&loose.least(&left, &right, 2 << 8, &order), &expected);
            prop_assert_eq!(&loose.least(&right, &left, 2 << 8, &order), &expected);
            prop_assert_eq!(second.cells(columns), other);
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
