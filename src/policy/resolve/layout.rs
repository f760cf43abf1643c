//! The columns of one direction: runs of ports that no item tells apart, and
//! the numbers that they have.
//!
//! The datapath looks a column up in a tree of 16 branches by its number. So
//! the numbers are those of a tree too: columns that follow one another stand
//! together, up to 16 in a node, nodes up to 16 in the next one. Where a node
//! ends, and in which branch one stands, follows from the ports themselves and
//! not from how many stand before: a new port gives other numbers to a few
//! neighbours, and the rows that do not tell those apart stay as they are.
//!
//! Invariant: the numbers follow from the runs alone, whatever was before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::{BLOCK_WORDS, DIGIT_BITS, LEVELS, column};

use super::ports::{KEYS, PORT_KEYS};
use crate::policy::row::{Maker, Part};

/// A column that no range of ports covers, and that of fragments.
pub(super) const UNCOVERED: usize = KEYS;
pub(super) const FRAGMENT: usize = KEYS + 1;
/// A node ends before one of so many ports, besides when it is full.
const RUN: u64 = 32;
/// More differences are not worth asking each row for.
const MOVES_MAX: usize = 256;

/// Where ranges of ports in use begin and end, counted.
#[derive(Debug, Default)]
pub(super) struct Borders(BTreeMap<usize, [u32; 2]>);

impl Borders {
    /// A range comes into use, or goes out of it.
    pub(super) fn count(&mut self, range: &Range<usize>, is_more: bool) {
        for (place, key) in [range.start, range.end].into_iter().enumerate() {
            let users = self.0.entry(key).or_default();
            users[place] = if is_more {
                users[place] + 1
            } else {
                users[place].saturating_sub(1)
            };
            if *users == [0, 0] {
                self.0.remove(&key);
            }
        }
    }

    /// The runs of keys that a range covers, between borders.
    fn runs(&self) -> Vec<Range<usize>> {
        let mut runs = Vec::with_capacity(self.0.len());
        let (mut covering, mut start) = (0u32, 0);
        for (key, [starts, ends]) in &self.0 {
            if covering > 0 {
                runs.push(start..*key);
            }
            covering = (covering + starts).saturating_sub(*ends);
            start = *key;
        }
        runs
    }
}

/// A branch of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Branch {
    /// A column, by its first key, [`UNCOVERED`] or [`FRAGMENT`].
    Column(usize),
    Node(Arc<Node>),
}

impl Branch {
    /// Its first column.
    fn first(&self) -> usize {
        match self {
            Self::Column(column) => *column,
            Self::Node(node) => node.first,
        }
    }
}

/// Up to 16 branches. A number that is nobody's means what the node's first
/// column means, which always stands in branch 0.
#[derive(PartialEq, Eq, Debug)]
struct Node {
    branches: [Option<Branch>; BLOCK_WORDS],
    /// The first column.
    first: usize,
    /// From its first to its last key; None where it has none.
    keys: Option<(usize, usize)>,
}

/// The columns and their numbers.
#[derive(Debug)]
pub(super) struct Layout {
    root: Arc<Node>,
    levels: u32,
    /// Runs of keys with the numbers of their columns, rising.
    runs: Vec<(Range<usize>, u32)>,
    fragment: u32,
    /// Column by class and key, as the datapath looks it up.
    pub(super) by_key: Arc<[Vec<u32>; 4]>,
}

impl Layout {
    pub(super) fn new(borders: &Borders) -> Self {
        let runs = borders.runs();
        let keys = runs.iter().map(|run| run.start);
        let columns = || [UNCOVERED, FRAGMENT].into_iter().chain(keys.clone());
        let (root, levels) = tree(columns(), RUN)
            .or_else(|| tree(columns(), u64::MAX))
            .unwrap_or_else(|| (node(vec![Branch::Column(UNCOVERED)]), 1));
        let mut numbers = Vec::with_capacity(runs.len());
        let mut fragment = 0;
        root.walk(
            0,
            (levels - 1) * DIGIT_BITS,
            &mut |column, number| match column {
                UNCOVERED => {}
                FRAGMENT => fragment = number,
                key => numbers.push((key, number)),
            },
        );
        numbers.sort_unstable();
        let runs: Vec<(Range<usize>, u32)> = runs
            .into_iter()
            .zip(numbers)
            .map(|(run, (_, number))| (run, number))
            .collect();
        Self {
            by_key: Arc::new(by_key(&runs, fragment)),
            root,
            levels,
            runs,
            fragment,
        }
    }

    /// Whether it is the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.levels == other.levels && self.root == other.root && self.runs == other.runs
    }

    /// The only column of a table that is never asked.
    pub(super) fn one() -> [Vec<u32>; 4] {
        [PORT_KEYS, PORT_KEYS, PORT_KEYS, column::OTHER_KEYS].map(|keys| vec![0; keys])
    }

    /// How many columns there are.
    pub(super) fn count(&self) -> usize {
        self.runs.len() + 2
    }

    /// Numbers are below it.
    pub(super) fn width(&self) -> usize {
        1 << (self.levels * DIGIT_BITS)
    }

    /// The number of the column of fragments.
    pub(super) fn fragment(&self) -> usize {
        self.fragment as usize
    }

    /// The number of a column.
    fn number(&self, column: usize) -> u32 {
        match column {
            UNCOVERED => 0,
            FRAGMENT => self.fragment,
            key => {
                let after = self.runs.partition_point(|(run, _)| run.end <= key);
                let run = self.runs.get(after).filter(|(run, _)| run.contains(&key));
                run.map_or(0, |(_, number)| *number)
            }
        }
    }

    /// The number of the column of a key, or of a column by its first one.
    pub(super) fn of(&self, key: usize) -> usize {
        self.number(key) as usize
    }

    /// A row from what is said of runs of keys (they rise), of keys that no
    /// range covers, and of all others.
    pub(super) fn row<T: Copy + Eq>(
        &self,
        maker: &mut impl Maker<T>,
        said: Said<'_, T>,
    ) -> Part<T> {
        self.root.part(maker, said)
    }

    /// The columns that numbers meant and that they mean now, by their first
    /// keys: a row that said the same of both of each pair says of every column
    /// what it did. None where that is too much to tell.
    pub(super) fn moves(&self, old: &Self) -> Option<Vec<(usize, usize)>> {
        if self.levels != old.levels {
            return None;
        }
        let mut moves = Moves {
            old,
            found: Vec::new(),
        };
        let shift = (self.levels - 1) * DIGIT_BITS;
        moves.compare(&self.root, &old.root, 0, shift)?;
        moves.found.sort_unstable();
        moves.found.dedup();
        Some(moves.found)
    }
}

/// What is said of columns.
#[derive(Debug)]
pub(super) struct Said<'a, T> {
    pub(super) runs: &'a [(Range<usize>, T)],
    pub(super) uncovered: T,
    pub(super) others: T,
}

impl<T: Copy> Said<'_, T> {
    fn of(&self, column: usize) -> T {
        if column >= KEYS {
            return self.uncovered;
        }
        let at = self.runs.partition_point(|(run, _)| run.end <= column);
        let run = self.runs.get(at).filter(|(run, _)| run.contains(&column));
        run.map_or(self.others, |(_, value)| *value)
    }
}

impl Node {
    fn part<T: Copy + Eq>(&self, maker: &mut impl Maker<T>, said: Said<'_, T>) -> Part<T> {
        let fill = said.of(self.first);
        let runs = match self.keys {
            None => return Part::All(fill),
            Some((first, last)) => {
                let start = said.runs.partition_point(|(run, _)| run.end <= first);
                let end = said.runs.partition_point(|(run, _)| run.start <= last);
                let runs = &said.runs[start..end.max(start)];
                let same = match runs {
                    [] => Some(said.others),
                    [(run, value)] if run.start <= first && last < run.end => Some(*value),
                    _ => None,
                };
                if same == Some(fill) {
                    return Part::All(fill);
                }
                runs
            }
        };
        let branches = self.branches.iter().map(|branch| match branch {
            None => Part::All(fill),
            Some(Branch::Column(column)) => Part::All(said.of(*column)),
            Some(Branch::Node(node)) => node.part(maker, Said { runs, ..said }),
        });
        let parts = branches.collect();
        maker.block(parts)
    }

    /// All columns with their numbers.
    fn walk(&self, base: u32, shift: u32, visit: &mut impl FnMut(usize, u32)) {
        for (branch, digit) in self.branches.iter().zip(0..) {
            let number = base | digit << shift;
            match branch {
                None => {}
                Some(Branch::Column(column)) => visit(*column, number),
                Some(Branch::Node(node)) => node.walk(number, shift - DIGIT_BITS, visit),
            }
        }
    }
}

/// Collects what numbers meant and mean.
struct Moves<'a> {
    old: &'a Layout,
    found: Vec<(usize, usize)>,
}

impl Moves<'_> {
    /// What had the number of `was` means `is` now; both as they were.
    fn note(&mut self, was: usize, is: usize) -> Option<()> {
        if self.old.number(was) != self.old.number(is) {
            self.found.push((was, is));
        }
        (self.found.len() <= MOVES_MAX).then_some(())
    }

    fn compare(&mut self, new: &Arc<Node>, old: &Arc<Node>, base: u32, shift: u32) -> Option<()> {
        if new == old {
            return Some(());
        }
        let below = shift.saturating_sub(DIGIT_BITS);
        for (digit, (is, was)) in (0..).zip(new.branches.iter().zip(&old.branches)) {
            let base = base | digit << shift;
            match (is, was) {
                (Some(Branch::Node(is)), Some(Branch::Node(was))) => {
                    self.compare(is, was, base, below)?;
                }
                (Some(Branch::Node(is)), _) => {
                    let was = was.as_ref().map_or(old.first, Branch::first);
                    self.each(is, |moves, column| moves.note(was, column))?;
                }
                (_, Some(Branch::Node(was))) => {
                    let is = is.as_ref().map_or(new.first, Branch::first);
                    self.each(was, |moves, column| moves.note(column, is))?;
                }
                (is, was) => {
                    let is = is.as_ref().map_or(new.first, Branch::first);
                    let was = was.as_ref().map_or(old.first, Branch::first);
                    self.note(was, is)?;
                }
            }
        }
        Some(())
    }

    fn each(
        &mut self,
        node: &Node,
        mut note: impl FnMut(&mut Self, usize) -> Option<()>,
    ) -> Option<()> {
        let mut fits = Some(());
        node.walk(0, LEVELS * DIGIT_BITS, &mut |column, _| {
            if fits.is_some() {
                fits = note(self, column);
            }
        });
        fits
    }
}

/// A tree of these columns, and its levels. None if it is too high.
fn tree(columns: impl Iterator<Item = usize>, run: u64) -> Option<(Arc<Node>, u32)> {
    let mut branches: Vec<Branch> = columns.map(Branch::Column).collect();
    for level in 0..LEVELS {
        if branches.len() <= BLOCK_WORDS {
            return Some((node(branches), level + 1));
        }
        let mut nodes = Vec::new();
        let mut full = Vec::new();
        for branch in branches {
            // The column of fragments is never the first of a node.
            let ends = match branch.first() {
                FRAGMENT => false,
                first => mixed(u64::from(level) << 32 | first as u64).is_multiple_of(run),
            };
            if !full.is_empty() && (ends || full.len() == BLOCK_WORDS) {
                nodes.push(Branch::Node(node(std::mem::take(&mut full))));
            }
            full.push(branch);
        }
        nodes.push(Branch::Node(node(full)));
        branches = nodes;
    }
    None
}

/// A node of these. The first has branch 0; each other has one by its port,
/// and where two want the same, the one with the larger mark.
fn node(members: Vec<Branch>) -> Arc<Node> {
    let first = members.first().map_or(UNCOVERED, Branch::first);
    let mut keys: Option<(usize, usize)> = None;
    for member in &members {
        let (low, high) = match member {
            Branch::Column(UNCOVERED | FRAGMENT) => continue,
            Branch::Column(key) => (*key, *key),
            Branch::Node(node) => match node.keys {
                None => continue,
                Some(keys) => keys,
            },
        };
        keys = Some((keys.map_or(low, |(first, _)| first), high));
    }
    let mut branches: [Option<Branch>; BLOCK_WORDS] = Default::default();
    let mut members = members.into_iter();
    branches[0] = members.next();
    // Of a port, whatever the protocol: what is alike becomes one block. Nothing
    // moves the column of fragments, since all rows may say something else there.
    let mark = |branch: &Branch| match branch {
        Branch::Column(FRAGMENT) => u64::MAX,
        branch => mixed((branch.first() % PORT_KEYS) as u64 + 1),
    };
    let digit = |mark: u64| mark.to_le_bytes().map(usize::from)[0] % BLOCK_WORDS;
    let mut others: Vec<Branch> = members.collect();
    others.sort_by_key(|branch| std::cmp::Reverse((mark(branch), branch.first())));
    for branch in others {
        let wanted = digit(mark(&branch));
        let mut places = (wanted..BLOCK_WORDS).chain(0..wanted);
        if let Some(place) = places.find(|place| branches[*place].is_none()) {
            branches[place] = Some(branch);
        }
    }
    Arc::new(Node {
        branches,
        first,
        keys,
    })
}

/// 64 bits that nearly always differ where the input does.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn by_key(runs: &[(Range<usize>, u32)], fragment: u32) -> [Vec<u32>; 4] {
    let mut classes = Layout::one();
    for (run, column) in runs {
        let mut key = run.start;
        while key < run.end {
            let class = (key / PORT_KEYS).min(column::OTHER as usize);
            let end = match class {
                3 => run.end,
                class => run.end.min((class + 1) * PORT_KEYS),
            };
            let base = class * PORT_KEYS;
            classes[class][key - base..end - base].fill(*column);
            key = end;
        }
    }
    classes[column::OTHER as usize][column::OTHER_FRAGMENT as usize] = fragment;
    classes
}

const _: () = assert!(column::OTHER_FRAGMENT as usize + 1 == column::OTHER_KEYS);

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
