//! What each slot's tables are known to hold: what this process wrote there and
//! read back, or what it found there. Tables share what they have in common, so
//! a glance at pointers tells what else is to be written, and read back.
//!
//! Nothing is known at the start, and after a generation did not fit or memory
//! was not what was written; then the slot is read first.

use std::sync::Arc;

use palisade_abi::table::{BLOCKS_MAX, DENIED, EVERYONE, RULES_MAX, Word};

use super::pool::{Entered, Memory, Pool};
use crate::datapath::DatapathError;
use crate::identity::IdentityIndex;
use crate::policy::{Direction, DirectionPolicy, EndpointPolicy, KEYS, Row, VerdictTable};

/// One slot's tables.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Each of `words` is one use of its block.
    pub(crate) pool: Pool,
    /// By direction and identity.
    pub(crate) words: [Vec<Word>; 2],
    held: Option<[Arc<DirectionPolicy>; 2]>,
    /// Over the rows by identity.
    pub(crate) sum: u64,
}

/// The rows of one direction that may differ, by their places, with what they are:
/// what is to be written, besides fresh blocks.
pub(crate) type Unlike<'a> = Vec<(usize, Option<&'a Row>)>;

impl Slot {
    /// What was found in memory.
    pub(crate) fn found(memory: &impl Memory, words: [Vec<Word>; 2], sum: u64) -> Self {
        Self {
            pool: Pool::learn(memory, words.iter().flatten().copied()),
            words,
            held: None,
            sum,
        }
    }

    /// Checksum over all that the slot's tables hold.
    pub(crate) fn checksum(&self) -> u64 {
        self.sum.wrapping_add(self.pool.sum())
    }

    /// Makes the blocks and words those of `next`, which must fit. After an
    /// error the slot is to be forgotten; nothing was written.
    pub(crate) fn plan<'a>(
        &mut self,
        memory: &impl Memory,
        next: &'a EndpointPolicy,
    ) -> Result<[Unlike<'a>; 2], DatapathError> {
        let held = self.held.take();
        let unlike = [0, 1].map(|place| {
            let held = held.as_ref().map(|held| &held[place].table);
            unlike(held, &next.directions[place].table)
        });
        // What goes makes room first.
        for (words, unlike) in self.words.iter().zip(&unlike) {
            for (index, _) in unlike {
                self.pool.leave(memory, words[*index]);
            }
        }
        for (place, unlike) in unlike.iter().enumerate() {
            self.enter(memory, place, unlike);
            self.fits(Direction::BOTH[place])?;
        }
        let needed = self.pool.in_use();
        if needed > BLOCKS_MAX as usize {
            return Err(DatapathError::DoesNotFit {
                what: "blocks of verdicts",
                needed,
                max: BLOCKS_MAX as usize,
            });
        }
        Ok(unlike)
    }

    /// Gives identities the words of their rows.
    fn enter(&mut self, memory: &impl Memory, place: usize, unlike: &Unlike<'_>) {
        let mut entered = Entered::new();
        for (index, row) in unlike {
            self.words[place][*index] = row.map_or_else(Word::default, |row| {
                let pool = &mut self.pool;
                pool.enter(memory, row, &mut entered)
            });
        }
    }

    /// Refuses rules that cannot be counted, and rows that are none.
    fn fits(&mut self, direction: Direction) -> Result<(), DatapathError> {
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
                "the {} table points outside of itself: a row is not one of {KEYS} keys",
                direction.as_str(),
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

/// Costs what the two do not share, unless that is everyone's.
fn unlike<'a>(held: Option<&VerdictTable>, next: &'a VerdictTable) -> Unlike<'a> {
    let all = || next.rows_of_slot().enumerate().collect();
    let Some(held) = held else {
        return all();
    };
    let is_same = |one: &Row, other: &Row| one.identity() == other.identity();
    let changed = held.rows.diff_by(&next.rows, is_same);
    // Who is not there has the row of the unknown identity.
    if matches!(changed.first(), Some((IdentityIndex(0), ..))) {
        return all();
    }
    let rows = changed.into_iter();
    let rows = rows.map(|(index, ..)| (index.0 as usize, next.row(index)));
    let everyones = [
        (EVERYONE, &held.everyone, &next.everyone),
        (DENIED, &held.denied, &next.denied),
    ];
    let everyones = everyones
        .into_iter()
        .filter(|(_, was, is)| !is_same(was, is))
        .map(|(index, _, is)| (index, Some(is)));
    rows.chain(everyones).collect()
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

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
