//! What each slot's tables are known to hold: what this process wrote there and
//! read back. Tables share what they have in common, so a glance at pointers
//! tells what else is to be written, and read back.
//!
//! Forgotten before the first write and known again after the last was read
//! back; at the start nothing is known, and everything is compared.

use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::IDENTITIES_MAX;

use super::slots::BLOCK;
use crate::policy::{DirectionPolicy, EndpointPolicy, VerdictTable};

/// Parts of a table that may differ from what a slot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unlike {
    /// Of the rows by identity index.
    pub(crate) rows: Vec<Range<usize>>,
    pub(crate) columns: bool,
    /// Numbers of the rows of cells.
    pub(crate) cells: Vec<usize>,
}

impl Unlike {
    /// Everything, where nothing is known.
    pub(crate) fn whole(table: &VerdictTable) -> Self {
        Self {
            rows: std::iter::once(0..IDENTITIES_MAX).collect(),
            columns: true,
            cells: (0..table.cells.len()).collect(),
        }
    }

    fn nothing() -> Self {
        Self {
            rows: Vec::new(),
            columns: false,
            cells: Vec::new(),
        }
    }

    /// Of the next table, where a slot holds `held`.
    fn between(held: &VerdictTable, next: &VerdictTable) -> Self {
        // Cells stand row after row, so another width moves all of them.
        if held.column_count != next.column_count || held.cells.is_empty() || next.cells.is_empty()
        {
            return Self::whole(next);
        }
        let same = |row: usize| {
            let held = held.cells.get(row);
            held.is_some_and(|held| Arc::ptr_eq(held, &next.cells[row]))
        };
        Self {
            rows: blocks(&held.rows, &next.rows),
            columns: !Arc::ptr_eq(&held.columns, &next.columns),
            cells: (0..next.cells.len()).filter(|row| !same(*row)).collect(),
        }
    }
}

/// The blocks in which two lists differ; what is past an end is 0.
fn blocks(one: &[u32], other: &[u32]) -> Vec<Range<usize>> {
    let length = one.len().max(other.len());
    let part = |list: &[u32], block: &Range<usize>| -> Vec<u32> {
        let part = list.get(block.start.min(list.len())..block.end.min(list.len()));
        let mut part = part.unwrap_or_default().to_vec();
        part.resize(block.len(), 0);
        part
    };
    let blocks = (0..length).step_by(BLOCK);
    blocks
        .map(|start| start..(start + BLOCK).min(length))
        .filter(|block| {
            let both = one.get(block.clone()).zip(other.get(block.clone()));
            let equal = both.is_some_and(|(one, other)| one == other);
            !equal && part(one, block) != part(other, block)
        })
        .collect()
}

/// The tables of both slots, by direction.
#[derive(Debug, Default)]
pub(crate) struct Known([Option<[Arc<DirectionPolicy>; 2]>; 2]);

impl Known {
    /// What of an endpoint's tables may differ from those of a slot.
    pub(crate) fn unlike(&self, slot: u32, next: &EndpointPolicy) -> [Unlike; 2] {
        let held = self.0[slot as usize].as_ref();
        [0, 1].map(|place| {
            let next = &next.directions[place];
            match held.map(|held| &held[place]) {
                Some(held) if Arc::ptr_eq(held, next) => Unlike::nothing(),
                Some(held) => Unlike::between(&held.table, &next.table),
                None => Unlike::whole(&next.table),
            }
        })
    }

    /// A slot is about to be written.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.0[slot as usize] = None;
    }

    /// A slot was written and read back.
    pub(crate) fn learn(&mut self, slot: u32, held: &EndpointPolicy) {
        self.0[slot as usize] = Some(held.directions.clone());
    }

    /// Whether both slots hold the same tables; None if that is not known.
    pub(crate) fn slots_agree(&self) -> Option<bool> {
        let [Some(one), Some(other)] = &self.0 else {
            return None;
        };
        let mut both = one.iter().zip(other);
        Some(both.all(|(one, other)| Arc::ptr_eq(one, other) || one.table == other.table))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use palisade_abi::table::Cell;

    use super::{BLOCK, Unlike, VerdictTable, blocks};

    fn table(rows: Vec<u32>, cells: &[u32]) -> VerdictTable {
        VerdictTable {
            rows,
            columns: Arc::new([vec![0], vec![0], vec![0], vec![0]]),
            column_count: 1,
            cells: cells.iter().map(|cell| [Cell(*cell)].into()).collect(),
        }
    }

    #[test]
    fn only_what_is_not_shared_may_differ() {
        let held = table(vec![0, 1, 2], &[5, 6, 7]);
        let mut next = held.clone();
        let nothing = Unlike::between(&held, &next);
        assert_eq!(nothing, Unlike::nothing());
        next.rows.push(1);
        next.cells[1] = [Cell(9)].into();
        next.cells.push([Cell(8)].into());
        let some = Unlike::between(&held, &next);
        assert_eq!((some.columns, some.cells), (false, vec![1, 3]));
        assert_eq!(some.rows, std::iter::once(0..4).collect::<Vec<_>>());
        next.column_count = 2;
        assert_eq!(Unlike::between(&held, &next), Unlike::whole(&next));
        assert!(Unlike::between(&held, &table(vec![0], &[5])).columns);
    }

    #[test]
    fn blocks_end_where_the_longer_list_ends() {
        let mut long = vec![0; 2 * BLOCK + 3];
        assert!(blocks(&long, &[]).is_empty());
        long[2 * BLOCK + 1] = 4;
        let last = 2 * BLOCK..2 * BLOCK + 3;
        assert_eq!(blocks(&long, &[0; 7]), std::slice::from_ref(&last));
        assert_eq!(blocks(&[], &long), [last]);
        long[0] = 1;
        assert_eq!(blocks(&long, &[1; 1]).len(), 1);
    }
}
