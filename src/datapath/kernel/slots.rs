//! The verdict tables of both slots, through their mappings.
//!
//! Only the inactive slot is ever written, and only where it differs; what was
//! written is read back. What the kernel holds is the only copy.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use palisade_abi::table::{
    BLOCK_WORDS, BLOCKS_MAX, Block, Cell, DIGIT_BITS, IDENTITIES_MAX, LEVELS, Word, blocks_element,
    column, columns_element, rows_element,
};

use super::known::{Slot, Unlike};
use super::mapping::Mapping;
use super::maps::{MapName, Maps, SPECS};
use super::pool::{Compared, Entered, Memory, mixed};
use crate::datapath::DatapathError;
use crate::policy::row::shift;
use crate::policy::{Direction, EndpointPolicy, VerdictTable};

/// Rows and columns that count as one write: a page of words.
const PAGE: usize = 1_024;
/// Keys of a column class.
const KEYS: usize = 65_536;

/// Columns that blocks can tell apart.
const COLUMNS_MAX: usize = 1 << (LEVELS * DIGIT_BITS);

/// Rows, columns and blocks of all slots and directions.
#[derive(Debug)]
pub(crate) struct Tables {
    rows: Mapping,
    columns: Mapping,
    blocks: Mapping,
}

/// Refuses a table that does not fit the maps or contradicts itself; columns
/// that a slot is known to hold were looked at before, and rows are when they
/// are entered.
pub(crate) fn check(
    direction: Direction,
    table: &VerdictTable,
    columns_are_known: bool,
) -> Result<(), DatapathError> {
    let fits = |what, needed, max| {
        if needed > max {
            return Err(DatapathError::DoesNotFit { what, needed, max });
        }
        Ok(())
    };
    let last_row = table.rows.last();
    let identities = last_row.map_or(0, |last| last.0 as usize + 1);
    let longest = table.columns.iter().map(Vec::len).max().unwrap_or(0);
    fits("identities", identities, IDENTITIES_MAX)?;
    fits("column keys", longest, KEYS)?;
    fits("columns", table.column_count as usize, COLUMNS_MAX)?;
    if columns_are_known || table.rows.is_empty() {
        return Ok(());
    }
    let columns = table.column_count.max(1);
    let last_column = table.columns.iter().flatten().copied().max().unwrap_or(0);
    if last_column >= columns {
        return Err(DatapathError::Other(format!(
            "the {} table points outside of its {columns} columns (column {last_column})",
            direction.as_str(),
        )));
    }
    Ok(())
}

fn column_of(table: &VerdictTable, class: usize, key: usize) -> u32 {
    table.columns[class].get(key).copied().unwrap_or(0)
}

fn load(from: &AtomicU32) -> u32 {
    from.load(Ordering::Relaxed)
}

fn equal(memory: &[AtomicU32], want: impl Fn(usize) -> u32) -> bool {
    let mut memory = memory.iter().enumerate();
    memory.all(|(index, is)| load(is) == want(index))
}

/// What an element adds to the checksum of its slot. `array` tells rows and
/// classes of columns apart.
fn weight(array: u32, index: usize, value: u32) -> u64 {
    mixed(u64::from(array) << 56 | (index as u64) << 32 | u64::from(value))
}

/// The array number of the rows of a direction, behind those of the columns.
fn rows_array(direction: u32) -> u32 {
    columns_element(0, 1, column::CLASSES) + direction
}

fn sum(array: u32, memory: &[AtomicU32]) -> u64 {
    let weights = memory.iter().enumerate();
    weights.fold(0, |sum, (index, is)| {
        sum.wrapping_add(weight(array, index, load(is)))
    })
}

/// Writes what is wanted of each place where it differs, keeps the sum, and
/// reads back. How many pages were written; None where memory is not what was
/// written.
fn write(
    array: u32,
    memory: &[AtomicU32],
    wanted: impl Iterator<Item = (usize, u32)> + Clone,
    sum: &mut u64,
) -> Option<usize> {
    let (mut writes, mut page) = (0, None);
    for (index, want) in wanted.clone() {
        let is = load(&memory[index]);
        if is == want {
            continue;
        }
        *sum = sum.wrapping_sub(weight(array, index, is));
        *sum = sum.wrapping_add(weight(array, index, want));
        memory[index].store(want, Ordering::Relaxed);
        writes += usize::from(page.replace(index / PAGE) != Some(index / PAGE));
    }
    let mut wanted = wanted;
    let right = wanted.all(|(index, want)| load(&memory[index]) == want);
    right.then_some(writes)
}

/// The blocks of one slot.
struct Blocks<'a> {
    blocks: &'a Mapping,
    slot: u32,
}

impl Blocks<'_> {
    fn words(&self, place: u32) -> &[AtomicU32] {
        let element = blocks_element(self.slot, place & (BLOCKS_MAX - 1));
        self.blocks.words(element, BLOCK_WORDS)
    }
}

impl Memory for Blocks<'_> {
    fn block(&self, place: u32) -> Block {
        let words = self.words(place);
        std::array::from_fn(|digit| load(&words[digit]))
    }
}

impl Tables {
    pub(crate) fn open(maps: &Maps) -> Result<Self, DatapathError> {
        let map = |name: MapName| Mapping::new(maps.of(name), SPECS[name as usize].value_size);
        Ok(Self {
            rows: map(MapName::Rows)?,
            columns: map(MapName::Columns)?,
            blocks: map(MapName::Blocks)?,
        })
    }

    fn rows(&self, slot: u32, direction: u32) -> &[AtomicU32] {
        self.rows
            .words(rows_element(slot, direction), IDENTITIES_MAX)
    }

    fn columns(&self, slot: u32, direction: u32, class: u32) -> &[AtomicU32] {
        self.columns
            .words(columns_element(slot, direction, class), KEYS)
    }

    fn blocks(&self, slot: u32) -> Blocks<'_> {
        Blocks {
            blocks: &self.blocks,
            slot,
        }
    }

    fn words(&self, slot: u32, direction: u32) -> impl Iterator<Item = Word> {
        self.rows(slot, direction)
            .iter()
            .map(|word| Word(load(word)))
    }

    /// Checksum over the rows and columns of a slot.
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let mut total = 0u64;
        for direction in Direction::BOTH {
            let number = direction.number();
            let rows = sum(rows_array(number), self.rows(slot, number));
            total = total.wrapping_add(rows);
            for class in 0..column::CLASSES {
                let array = columns_element(0, number, class);
                let columns = sum(array, self.columns(slot, number, class));
                total = total.wrapping_add(columns);
            }
        }
        total
    }

    /// The blocks among `places` that are not what `held` has written there.
    pub(crate) fn changed_blocks(&self, slot: u32, held: &Slot, places: Range<usize>) -> Compared {
        held.pool.compare(&self.blocks(slot), places)
    }

    /// What a slot holds, whoever wrote it.
    pub(crate) fn read(&self, slot: u32) -> Slot {
        let words = Direction::BOTH.map(|direction| self.words(slot, direction.number()).collect());
        Slot::found(&self.blocks(slot), words, self.sum(slot))
    }

    /// Makes the blocks of `held` those of `next`, before anything is written.
    pub(crate) fn plan<'a>(
        &self,
        slot: u32,
        held: &mut Slot,
        next: &'a EndpointPolicy,
    ) -> Result<[Unlike<'a>; 2], DatapathError> {
        held.plan(&self.blocks(slot), next)
    }

    /// Writes what was planned and reads it back; how much was written. None
    /// where memory is not what was written.
    pub(crate) fn write(
        &self,
        slot: u32,
        held: &mut Slot,
        next: &EndpointPolicy,
        unlike: &[Unlike<'_>; 2],
    ) -> Option<usize> {
        let mut writes = self.write_blocks(slot, held)?;
        for (direction, unlike) in Direction::BOTH.into_iter().zip(unlike) {
            let (number, table) = (direction.number(), &next.direction(direction).table);
            let classes = if unlike.columns { column::CLASSES } else { 0 };
            for class in 0..classes {
                let (array, memory) = (
                    columns_element(0, number, class),
                    self.columns(slot, number, class),
                );
                let wanted = (0..KEYS).map(|key| (key, column_of(table, class as usize, key)));
                writes += write(array, memory, wanted, &mut held.sum)?;
            }
            let (memory, words) = (self.rows(slot, number), &held.words[direction as usize]);
            let indexes = unlike.rows.iter().map(|(index, _)| *index);
            let wanted = indexes.map(|index| (index, words[index].0));
            writes += write(rows_array(number), memory, wanted, &mut held.sum)?;
        }
        Some(writes)
    }

    fn write_blocks(&self, slot: u32, held: &mut Slot) -> Option<usize> {
        let blocks = self.blocks(slot);
        let mut writes = 0;
        for (place, block) in held.pool.fresh() {
            for (word, memory) in block.iter().zip(blocks.words(place)) {
                memory.store(*word, Ordering::Relaxed);
            }
            writes += 1;
        }
        let mut fresh = held.pool.fresh();
        let right = fresh.all(|(place, block)| blocks.block(place) == *block);
        drop(fresh);
        held.pool.written();
        right.then_some(writes)
    }

    /// Whether a slot, of which nothing more is known than was found there,
    /// holds the tables of `next`.
    pub(crate) fn hold(&self, slot: u32, found: &Slot, next: &EndpointPolicy) -> bool {
        Direction::BOTH.into_iter().all(|direction| {
            let (number, table) = (direction.number(), &next.direction(direction).table);
            let columns = (0..column::CLASSES).all(|class| {
                let memory = self.columns(slot, number, class);
                equal(memory, |key| column_of(table, class as usize, key))
            });
            let (blocks, mut seen) = (self.blocks(slot), Entered::new());
            let shift = shift(table.column_count as usize);
            let rows = table.rows_by_index(IDENTITIES_MAX);
            let mut both = rows.zip(self.words(slot, number));
            columns
                && both.all(|(row, is)| match row {
                    Some(row) => found.pool.find(&blocks, row, shift, &mut seen) == Some(is),
                    None => is == Word::default(),
                })
        })
    }

    /// Whether both slots hold the same tables, wherever their blocks stand.
    pub(crate) fn slots_agree(&self) -> bool {
        let mut agreed = HashSet::new();
        Direction::BOTH.into_iter().all(|direction| {
            let number = direction.number();
            let columns = (0..column::CLASSES).all(|class| {
                let of = |slot| self.columns(slot, number, class);
                equal(of(0), |key| load(&of(1)[key]))
            });
            let mut rows = self.words(0, number).zip(self.words(1, number));
            columns && rows.all(|(one, other)| self.agree(one, other, LEVELS, &mut agreed))
        })
    }

    /// Whether a word of slot A says what a word of slot B does.
    fn agree(
        &self,
        one: Word,
        other: Word,
        levels: u32,
        agreed: &mut HashSet<(Word, Word)>,
    ) -> bool {
        if !one.is_link() || !other.is_link() {
            return one == other;
        }
        if agreed.contains(&(one, other)) {
            return true;
        }
        let alike = one.is_like(other) && levels > 0 && {
            let [one, other] = [
                self.blocks(0).block(one.place()),
                self.blocks(1).block(other.place()),
            ];
            let mut both = one.into_iter().zip(other);
            both.all(|(one, other)| self.agree(Word(one), Word(other), levels - 1, agreed))
        };
        if alike {
            agreed.insert((one, other));
        }
        alike
    }

    /// A copy of one direction's table.
    pub(crate) fn copy(&self, slot: u32, direction: Direction) -> TableCopy {
        let number = direction.number();
        let rows: Vec<Word> = self.words(slot, number).collect();
        let blocks = self.blocks(slot);
        let mut copied = HashMap::new();
        let mut next: Vec<Word> = rows.clone();
        while let Some(word) = next.pop() {
            if word.is_link() && !copied.contains_key(&word.place()) {
                let block = blocks.block(word.place());
                copied.insert(word.place(), block);
                next.extend(block.map(Word));
            }
        }
        TableCopy {
            rows,
            columns: [0, 1, 2, 3].map(|class| {
                let memory = self.columns(slot, number, class);
                memory.iter().map(load).collect()
            }),
            blocks: copied,
        }
    }
}

/// One direction's table as the kernel holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCopy {
    /// By identity index.
    pub rows: Vec<Word>,
    /// By class of `palisade_abi::table::column`, then by key.
    pub columns: [Vec<u32>; 4],
    /// The blocks that the rows lead to, by place.
    pub blocks: HashMap<u32, Block>,
}

impl TableCopy {
    /// The verdict, read as the programs read it.
    #[must_use]
    pub fn lookup(&self, index: u32, class: u32, key: u16) -> Cell {
        let row = self.rows.get(index as usize).copied().unwrap_or_default();
        self.verdict(row, self.columns[class as usize][key as usize])
    }

    /// What a row says of a column.
    #[must_use]
    pub fn verdict(&self, row: Word, column: u32) -> Cell {
        let mut word = row;
        for _ in 0..LEVELS {
            if !word.is_link() {
                return word.cell();
            }
            let block = self.blocks.get(&word.place());
            word = block.map_or(Word::default(), |block| Word(block[word.digit(column)]));
        }
        if word.is_link() {
            return Cell::default();
        }
        word.cell()
    }
}

/// FNV-1a over 64-bit words: detects tampering by accident, not by malice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum(pub(crate) u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}
