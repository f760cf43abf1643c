//! The columns of one direction: classes of ports that no item tells apart.

use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::column;

use super::classes::{Classes, classes};
use super::gather::number;
use super::ports::{KEYS, PORT_KEYS, PortSet};

/// The columns. Their numbers follow from the sets of ports alone.
#[derive(Debug)]
pub(super) struct Columns {
    /// The first key of each column but that of fragments, rising.
    firsts: Vec<usize>,
    /// Column by class and key, as the datapath looks it up.
    pub(super) by_key: Arc<[Vec<u32>; 4]>,
}

impl Columns {
    /// Of these sets, and of single keys besides.
    pub(super) fn new(sets: &[PortSet], singles: impl Iterator<Item = usize>) -> Self {
        let singles = singles.map(|key| std::iter::once(key..key + 1).collect());
        let sets: Vec<Vec<Range<usize>>> = sets
            .iter()
            .map(|set| set.ranges.clone())
            .chain(singles)
            .collect();
        let found = classes(KEYS, &sets);
        let mut firsts = vec![0; found.members.len()];
        for run in found.runs.iter().rev() {
            firsts[run.class] = run.positions.start;
        }
        Self {
            by_key: Arc::new(by_key(&found)),
            firsts,
        }
    }

    /// The only column of a table that is never asked.
    pub(super) fn one() -> [Vec<u32>; 4] {
        [PORT_KEYS, PORT_KEYS, PORT_KEYS, column::OTHER_KEYS].map(|keys| vec![0; keys])
    }

    /// Without the one of fragments, which stands behind them.
    pub(super) fn count(&self) -> usize {
        self.firsts.len()
    }

    /// The column of a key of the line.
    pub(super) fn of_key(&self, key: usize) -> usize {
        let class = (key / PORT_KEYS).min(column::OTHER as usize);
        self.by_key[class][key - class * PORT_KEYS] as usize
    }

    /// The columns that a set of ports covers. They are numbered by their first
    /// keys, so that each range of ports covers a range of columns; keys of a
    /// column that lie elsewhere are covered by another range of the same set.
    /// Every port covers the column of fragments too, in which nobody looks.
    pub(super) fn covered(&self, set: &PortSet) -> Vec<Range<usize>> {
        if set.all {
            return std::iter::once(0..self.count() + 1).collect();
        }
        let of_range = |range: &Range<usize>| {
            let start = self.firsts.partition_point(|first| *first < range.start);
            let end = self.firsts.partition_point(|first| *first < range.end);
            start..end
        };
        let covered = set.ranges.iter().map(of_range);
        covered.filter(|range| !range.is_empty()).collect()
    }
}

fn by_key(columns: &Classes) -> [Vec<u32>; 4] {
    let mut line = Vec::with_capacity(KEYS + 1);
    for run in &columns.runs {
        // Copies of a whole run, not one key after another.
        let keys = run.positions.end - line.len();
        line.extend_from_slice(&[number(run.class)].repeat(keys));
    }
    // The column after all others is that of fragments, the key after all others too.
    line.push(number(columns.members.len()));
    let class = |number: usize| line[number * PORT_KEYS..(number + 1) * PORT_KEYS].to_vec();
    [class(0), class(1), class(2), line[3 * PORT_KEYS..].to_vec()]
}

const _: () = assert!(column::OTHER_FRAGMENT as usize + 1 == column::OTHER_KEYS);
