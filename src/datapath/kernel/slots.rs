//! The verdict tables of both slots, through their mappings.
//!
//! Only the inactive slot is ever written, block by block and only where it
//! differs, then compared whole. What the kernel holds is the only copy.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use palisade_abi::table::{
    CELLS_MAX, Cell, IDENTITIES_MAX, RULES_MAX, columns_element, rows_element,
};

use super::known::Unlike;
use super::mapping::Mapping;
use super::maps::{MapName, Maps, SPECS};
use crate::datapath::DatapathError;
use crate::policy::{Direction, VerdictTable};

/// Entries compared and written at once: a page of words.
pub(super) const BLOCK: usize = 1_024;
/// Keys of a column class.
const KEYS: usize = 65_536;

/// Rows, columns and cells of all slots and directions.
#[derive(Debug)]
pub(crate) struct Tables {
    rows: Mapping,
    columns: Mapping,
    cells: Mapping,
}

/// Refuses a table that does not fit the maps or contradicts itself. What a slot
/// is known to hold was looked at before.
pub(crate) fn check(
    direction: Direction,
    table: &VerdictTable,
    unlike: &Unlike,
) -> Result<(), DatapathError> {
    let fits = |what, needed, max| {
        if needed > max {
            return Err(DatapathError::DoesNotFit { what, needed, max });
        }
        Ok(())
    };
    let ingress = direction == Direction::Ingress;
    let cells = if ingress {
        "cells of the ingress table"
    } else {
        "cells of the egress table"
    };
    fits(cells, table.cell_count(), CELLS_MAX)?;
    fits("identities", table.rows.len(), IDENTITIES_MAX)?;
    fits(
        "column keys",
        table.columns.iter().map(Vec::len).max().unwrap_or(0),
        KEYS,
    )?;
    fits("columns", table.column_count as usize, KEYS)?;
    let rows = unlike.cells.iter().map(|row| &table.cells[*row]);
    let cells = rows.flat_map(|row| row.iter());
    let rule = cells.map(|cell| cell.rule()).max().unwrap_or(0);
    fits("rule numbers", rule as usize, RULES_MAX as usize - 1)?;

    let columns = table.column_count as usize;
    let last_row = table.rows.iter().copied().max().unwrap_or(0) as usize;
    let last_column = if unlike.columns {
        table.columns.iter().flatten().copied().max().unwrap_or(0) as usize
    } else {
        0
    };
    let inside = last_row < table.cells.len() && last_column < columns.max(1);
    let whole = table.cells.iter().all(|row| row.len() == columns);
    let empty = table.cells.is_empty();
    if !empty && (!inside || !whole) {
        return Err(DatapathError::Other(format!(
            "the {} table points outside of its {} rows of {columns} columns (row {last_row}, column {last_column})",
            direction.as_str(),
            table.cells.len(),
        )));
    }
    Ok(())
}

/// What the kernel must hold where a table has no cells: one that denies.
const EMPTY: [Cell; 1] = [Cell(0)];

/// Cells in use by `table` in the kernel.
pub(crate) fn cells_len(table: &VerdictTable) -> usize {
    table.cell_count().max(EMPTY.len())
}

/// The rows of cells to look at, each with its place in the kernel.
fn rows_of_cells<'a>(
    table: &'a VerdictTable,
    unlike: &'a Unlike,
) -> impl Iterator<Item = (usize, &'a [Cell])> {
    let empty = table.cells.is_empty().then_some((0, EMPTY.as_slice()));
    let width = table.column_count as usize;
    let rows = unlike.cells.iter();
    empty
        .into_iter()
        .chain(rows.map(move |row| (row * width, table.cells[*row].as_ref())))
}

fn row_base(table: &VerdictTable, index: usize) -> u32 {
    // Fits: `check` has seen that row * columns is a cell.
    table
        .rows
        .get(index)
        .map_or(0, |row| row * table.column_count)
}

fn column(table: &VerdictTable, class: usize, key: usize) -> u16 {
    table.columns[class].get(key).copied().unwrap_or(0)
}

trait Element: Copy + PartialEq {
    type Atomic;
    fn load(from: &Self::Atomic) -> Self;
    fn store(self, to: &Self::Atomic);
}
impl Element for u32 {
    type Atomic = AtomicU32;
    fn load(from: &AtomicU32) -> Self {
        from.load(Ordering::Relaxed)
    }
    fn store(self, to: &AtomicU32) {
        to.store(self, Ordering::Relaxed);
    }
}
impl Element for u16 {
    type Atomic = AtomicU16;
    fn load(from: &AtomicU16) -> Self {
        from.load(Ordering::Relaxed)
    }
    fn store(self, to: &AtomicU16) {
        to.store(self, Ordering::Relaxed);
    }
}

fn equal<E: Element>(memory: &[E::Atomic], want: impl Fn(usize) -> E) -> bool {
    memory
        .iter()
        .enumerate()
        .all(|(index, is)| E::load(is) == want(index))
}

fn same<E: Element>(one: &[E::Atomic], other: &[E::Atomic]) -> bool {
    one.iter()
        .zip(other)
        .all(|(one, other)| E::load(one) == E::load(other))
}

/// Writes the blocks that differ; the number of blocks written.
fn write<E: Element>(memory: &[E::Atomic], want: impl Fn(usize) -> E) -> usize {
    let mut writes = 0;
    for (number, block) in memory.chunks(BLOCK).enumerate() {
        let first = number * BLOCK;
        if equal::<E>(block, |index| want(first + index)) {
            continue;
        }
        for (index, element) in block.iter().enumerate() {
            want(first + index).store(element);
        }
        writes += 1;
    }
    writes
}

impl Tables {
    pub(crate) fn open(maps: &Maps) -> Result<Self, DatapathError> {
        let map = |name: MapName| Mapping::new(maps.of(name), SPECS[name as usize].value_size);
        Ok(Self {
            rows: map(MapName::Rows)?,
            columns: map(MapName::Columns)?,
            cells: map(MapName::Cells)?,
        })
    }

    fn rows(&self, slot: u32, direction: u32) -> &[AtomicU32] {
        self.rows
            .words(rows_element(slot, direction), IDENTITIES_MAX)
    }

    fn columns(&self, slot: u32, direction: u32, class: u32) -> &[AtomicU16] {
        self.columns
            .halves(columns_element(slot, direction, class), KEYS)
    }

    fn cells(&self, slot: u32, direction: u32, count: usize) -> &[AtomicU32] {
        self.cells.words(rows_element(slot, direction), count)
    }

    /// Makes a slot's table of one direction equal to `table`, where that may
    /// differ; blocks written.
    pub(crate) fn write(
        &self,
        slot: u32,
        direction: Direction,
        table: &VerdictTable,
        unlike: &Unlike,
    ) -> usize {
        let number = direction.number();
        let mut writes = 0;
        for part in &unlike.rows {
            let memory = &self.rows(slot, number)[part.clone()];
            writes += write(memory, |index| row_base(table, part.start + index));
        }
        for class in classes(table, unlike) {
            let memory = self.columns(slot, number, class_number(class));
            writes += write(memory, |key| column(table, class, key));
        }
        let memory = self.cells(slot, number, cells_len(table));
        for (first, row) in rows_of_cells(table, unlike) {
            writes += write(&memory[first..first + row.len()], |index| row[index].0);
        }
        writes
    }

    /// Whether a slot's table of one direction equals `table`, where it may
    /// differ.
    pub(crate) fn holds(
        &self,
        slot: u32,
        direction: Direction,
        table: &VerdictTable,
        unlike: &Unlike,
    ) -> bool {
        let number = direction.number();
        let memory = self.cells(slot, number, cells_len(table));
        let cells = rows_of_cells(table, unlike)
            .all(|(first, row)| equal(&memory[first..first + row.len()], |index| row[index].0));
        let rows = unlike.rows.iter().all(|part| {
            let memory = &self.rows(slot, number)[part.clone()];
            equal(memory, |index| row_base(table, part.start + index))
        });
        let mut classes = classes(table, unlike);
        let columns = classes.all(|class| {
            let memory = self.columns(slot, number, class_number(class));
            equal(memory, |key| column(table, class, key))
        });
        cells && rows && columns
    }

    /// Whether both slots hold the same tables, of so many cells by direction.
    pub(crate) fn slots_agree(&self, cells: [u32; 2]) -> bool {
        Direction::BOTH.into_iter().all(|direction| {
            let number = direction.number();
            let count = (cells[direction as usize] as usize).min(CELLS_MAX);
            same::<u32>(self.cells(0, number, count), self.cells(1, number, count))
                && same::<u32>(self.rows(0, number), self.rows(1, number))
                && (0..palisade_abi::table::column::CLASSES).all(|class| {
                    same::<u16>(
                        self.columns(0, number, class),
                        self.columns(1, number, class),
                    )
                })
        })
    }

    /// Checksum over what a slot holds; `cells` by direction.
    pub(crate) fn checksum(&self, slot: u32, cells: [u32; 2]) -> u64 {
        let mut sum = Checksum::default();
        for direction in Direction::BOTH {
            let number = direction.number();
            let count = (cells[direction as usize] as usize).min(CELLS_MAX);
            for word in self
                .rows(slot, number)
                .iter()
                .chain(self.cells(slot, number, count))
            {
                sum.add(u64::from(u32::load(word)));
            }
            for class in 0..palisade_abi::table::column::CLASSES {
                for pair in self.columns(slot, number, class).chunks_exact(2) {
                    let [low, high] = [u16::load(&pair[0]), u16::load(&pair[1])];
                    sum.add(u64::from(low) | u64::from(high) << 16);
                }
            }
        }
        sum.0
    }

    /// A copy of one direction's table: row bases, columns by class, cells.
    pub(crate) fn copy(&self, slot: u32, direction: Direction, cells: usize) -> TableCopy {
        let number = direction.number();
        TableCopy {
            row_bases: self.rows(slot, number).iter().map(u32::load).collect(),
            columns: std::array::from_fn(|class| {
                let memory = self.columns(slot, number, class_number(class));
                memory.iter().map(u16::load).collect()
            }),
            cells: self
                .cells(slot, number, cells.min(CELLS_MAX))
                .iter()
                .map(|cell| Cell(u32::load(cell)))
                .collect(),
        }
    }
}

/// The classes of columns to look at.
fn classes(table: &VerdictTable, unlike: &Unlike) -> Range<usize> {
    0..if unlike.columns {
        table.columns.len()
    } else {
        0
    }
}

fn class_number(class: usize) -> u32 {
    u32::try_from(class).unwrap_or(u32::MAX)
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
    pub(crate) fn add(&mut self, word: u64) {
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

/// One direction's table as the kernel holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCopy {
    /// By identity index: row times columns.
    pub row_bases: Vec<u32>,
    /// By class of `palisade_abi::table::column`, then by key.
    pub columns: [Vec<u16>; 4],
    pub cells: Vec<Cell>,
}

impl TableCopy {
    /// The verdict, read as the programs read it.
    #[must_use]
    pub fn lookup(&self, index: u32, class: u32, key: u16) -> Cell {
        let base = self.row_bases.get(index as usize).copied().unwrap_or(0);
        let column = self.columns[class as usize][key as usize];
        let cell = base as usize + column as usize;
        self.cells.get(cell).copied().unwrap_or_default()
    }
}
