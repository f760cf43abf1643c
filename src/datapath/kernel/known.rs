//! What each slot's tables are known to hold: what this process wrote there and
//! read back, or what it found there. Tables share what they have in common, so
//! a glance at pointers tells what else is to be written, and read back.
//!
//! Nothing is known at the start, and after a generation did not fit or memory
//! was not what was written; then the slot is read first.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_abi::table::{BLOCKS_MAX, RULES_MAX, Word};

use super::pool::{Entered, Memory, Pool};
use crate::datapath::DatapathError;
use crate::policy::row::{Identity, shift};
use crate::policy::{Direction, DirectionPolicy, EndpointPolicy, VerdictTable};

/// One slot's tables.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) pool: Pool,
    /// By direction, the words of the rows of `held`, by row; of the rows that
    /// were found, in any order, where nothing is held.
    pub(crate) roots: [Vec<Word>; 2],
    held: Option<[Arc<DirectionPolicy>; 2]>,
    /// Over the rows by identity and the columns.
    pub(crate) sum: u64,
}

/// What of one direction is to be written, besides fresh blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unlike {
    pub(crate) columns: bool,
    /// Identities whose rows may differ: those before this one.
    pub(crate) rows: usize,
    /// And all after them, which nobody has.
    pub(crate) rest: bool,
}

impl Slot {
    /// What was found in memory.
    pub(crate) fn found(memory: &impl Memory, roots: [Vec<Word>; 2], sum: u64) -> Self {
        Self {
            pool: Pool::learn(memory, roots.iter().flatten().copied()),
            roots,
            held: None,
            sum,
        }
    }

    /// Checksum over all that the slot's tables hold.
    pub(crate) fn checksum(&self) -> u64 {
        self.sum.wrapping_add(self.pool.sum())
    }

    /// Makes the blocks those of `next`, which must fit. After an error the slot
    /// is to be forgotten; nothing was written.
    pub(crate) fn plan(
        &mut self,
        memory: &impl Memory,
        next: &EndpointPolicy,
    ) -> Result<[Unlike; 2], DatapathError> {
        let held = self.held.take();
        let held = [0, 1].map(|place| held.as_ref().map(|held| Arc::clone(&held[place])));
        let kept = [0, 1].map(|place| {
            let held = held[place].as_ref().map(|held| &held.table);
            self.keep(memory, place, held, &next.directions[place].table)
        });
        for (place, kept) in kept.into_iter().enumerate() {
            let table = &next.directions[place].table;
            let columns = table.column_count as usize;
            let mut entered = Entered::new();
            let words = table.cells.iter().zip(kept).map(|(row, kept)| {
                kept.unwrap_or_else(|| {
                    let pool = &mut self.pool;
                    pool.enter(memory, row, columns, shift(columns), &mut entered)
                })
            });
            self.roots[place] = words.collect();
            self.fits(Direction::BOTH[place], table)?;
        }
        let needed = self.pool.in_use();
        if needed > BLOCKS_MAX as usize {
            return Err(DatapathError::DoesNotFit {
                what: "blocks of verdicts",
                needed,
                max: BLOCKS_MAX as usize,
            });
        }
        Ok([0, 1].map(|place| {
            let held = held[place].as_ref().map(|held| &held.table);
            unlike(held, &next.directions[place].table)
        }))
    }

    /// The words of the rows that stay, as far as a glance tells; all others go.
    fn keep(
        &mut self,
        memory: &impl Memory,
        place: usize,
        held: Option<&VerdictTable>,
        next: &VerdictTable,
    ) -> Vec<Option<Word>> {
        let roots = std::mem::take(&mut self.roots[place]);
        let held = held.filter(|held| held.column_count == next.column_count);
        let held = held.map_or(&[][..], |held| held.cells.as_slice());
        let mut stays = vec![false; roots.len()];
        let mut known: HashMap<Identity<_>, Word> = HashMap::new();
        let kept = next.cells.iter().enumerate().map(|(number, row)| {
            let identity = row.identity();
            if held.get(number).map(|held| held.identity()) == Some(identity) {
                stays[number] = true;
                return Some(roots[number]);
            }
            if known.is_empty() {
                let identities = held.iter().map(|row| row.identity());
                known = identities.zip(roots.iter().copied()).collect();
            }
            let word = known.get(&identity).copied()?;
            self.pool.keep(word);
            Some(word)
        });
        let kept = kept.collect();
        for (word, stays) in roots.into_iter().zip(stays) {
            if !stays {
                self.pool.leave(memory, word);
            }
        }
        kept
    }

    /// Refuses rules that cannot be counted, and rows of another width.
    fn fits(&mut self, direction: Direction, table: &VerdictTable) -> Result<(), DatapathError> {
        let seen = self.pool.take_seen();
        if seen.rule_max >= RULES_MAX {
            return Err(DatapathError::DoesNotFit {
                what: "rule numbers",
                needed: seen.rule_max as usize,
                max: RULES_MAX as usize - 1,
            });
        }
        if seen.misshapen {
            return Err(DatapathError::Other(format!(
                "the {} table points outside of itself: a row has not its {} columns",
                direction.as_str(),
                table.column_count
            )));
        }
        Ok(())
    }

    /// All was written and read back.
    pub(crate) fn learn(&mut self, held: &EndpointPolicy) {
        self.held = Some(held.directions.clone());
    }

    /// Whether it holds the tables of `next`; None if that is not known.
    pub(crate) fn holds(&self, next: &EndpointPolicy) -> Option<bool> {
        let held = self.held.as_ref()?;
        Some(same_tables(held, &next.directions))
    }
}

fn same_tables(one: &[Arc<DirectionPolicy>; 2], other: &[Arc<DirectionPolicy>; 2]) -> bool {
    let mut both = one.iter().zip(other);
    both.all(|(one, other)| Arc::ptr_eq(one, other) || one.table == other.table)
}

fn unlike(held: Option<&VerdictTable>, next: &VerdictTable) -> Unlike {
    let Some(held) = held else {
        return Unlike {
            columns: true,
            rows: next.rows.len(),
            rest: true,
        };
    };
    let first = |table: &VerdictTable| table.cells.first().map(|row| row.identity());
    Unlike {
        columns: !Arc::ptr_eq(&held.columns, &next.columns),
        rows: held.rows.len().max(next.rows.len()),
        rest: held.column_count != next.column_count || first(held) != first(next),
    }
}

/// The tables of both slots.
#[derive(Debug, Default)]
pub(crate) struct Known([Option<Slot>; 2]);

impl Known {
    /// What is known of a slot; `read` tells it where nothing is.
    pub(crate) fn slot(&mut self, slot: u32, read: impl FnOnce() -> Slot) -> &mut Slot {
        self.0[slot as usize].get_or_insert_with(read)
    }

    /// What is known of a slot, if anything is.
    pub(crate) fn get(&self, slot: u32) -> Option<&Slot> {
        self.0[slot as usize].as_ref()
    }

    /// Whether a slot is known to hold the columns of a direction.
    pub(crate) fn has_columns(
        &self,
        slot: u32,
        direction: Direction,
        next: &EndpointPolicy,
    ) -> bool {
        let held = self.0[slot as usize].as_ref();
        let held = held.and_then(|slot| slot.held.as_ref());
        held.is_some_and(|held| {
            let (held, next) = (&held[direction as usize].table, next.direction(direction));
            held.column_count == next.table.column_count
                && Arc::ptr_eq(&held.columns, &next.table.columns)
        })
    }

    /// What was known may not be so any more.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.0[slot as usize] = None;
    }

    /// Whether both slots hold the same tables; None if that is not known.
    pub(crate) fn slots_agree(&self) -> Option<bool> {
        let [Some(one), Some(other)] = &self.0 else {
            return None;
        };
        Some(same_tables(one.held.as_ref()?, other.held.as_ref()?))
    }
}
