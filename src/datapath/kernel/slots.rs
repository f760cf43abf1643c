//! The verdict tables of both slots, through their mappings.
//!
//! Only the inactive slot is ever written, and only where it differs; what was
//! written is read back. What the kernel holds is the only copy.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use palisade_abi::table::{
    BLOCK_WORDS, BLOCKS_MAX, Block, Cell, DENIED, EVERYONE, FRAGMENT, IDENTITIES_MAX, LEVELS,
    NO_RUN, ROW_WORDS, RUN_WORDS, Word, blocks_element, decide, key, rows_element, word_of,
};

use super::known::{Slot, Unlike};
use super::mapping::Mapping;
use super::maps::{MapName, Maps, SPECS};
use super::pool::{Compared, Entered, Memory, mixed};
use crate::datapath::DatapathError;
use crate::policy::{Direction, EndpointPolicy, Row, VerdictTable};

/// Rows that count as one write: a page of words.
const PAGE: usize = 1_024;

/// Rows and blocks of all slots and directions.
#[derive(Debug)]
pub(crate) struct Tables {
    rows: Mapping,
    blocks: Mapping,
}

/// Refuses a table that does not fit the maps; its rows are looked at when they
/// are entered.
pub(crate) fn check(table: &VerdictTable) -> Result<(), DatapathError> {
    let last = table.rows.last();
    let needed = last.map_or(0, |last| last.0 as usize + 1);
    if needed > IDENTITIES_MAX {
        return Err(DatapathError::DoesNotFit {
            what: "identities",
            needed,
            max: IDENTITIES_MAX,
        });
    }
    Ok(())
}

fn load(from: &AtomicU32) -> u32 {
    from.load(Ordering::Relaxed)
}

/// What an identity's word adds to the checksum of its slot.
fn weight(direction: u32, index: usize, word: u32) -> u64 {
    mixed(u64::from(direction) << 56 | (index as u64) << 32 | u64::from(word))
}

fn sum(direction: u32, memory: &[AtomicU32]) -> u64 {
    let weights = memory.iter().enumerate();
    weights.fold(0, |sum, (index, is)| {
        sum.wrapping_add(weight(direction, index, load(is)))
    })
}

/// Writes what is wanted of each place where it differs, keeps the sum, and
/// reads back. How many pages were written; None where memory is not what was
/// written.
fn write(
    direction: u32,
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
        *sum = sum.wrapping_sub(weight(direction, index, is));
        *sum = sum.wrapping_add(weight(direction, index, want));
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
            blocks: map(MapName::Blocks)?,
        })
    }

    fn rows(&self, slot: u32, direction: u32) -> &[AtomicU32] {
        self.rows.words(rows_element(slot, direction), ROW_WORDS)
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

    /// Checksum over the rows of a slot.
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let numbers = Direction::BOTH.map(Direction::number);
        let sums = numbers.map(|number| sum(number, self.rows(slot, number)));
        sums[0].wrapping_add(sums[1])
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
        unlike: &[Unlike<'_>; 2],
    ) -> Option<usize> {
        let mut writes = self.write_blocks(slot, held)?;
        for (direction, unlike) in Direction::BOTH.into_iter().zip(unlike) {
            let number = direction.number();
            let (memory, words) = (self.rows(slot, number), &held.words[direction as usize]);
            let indexes = unlike.iter().map(|(index, _)| *index);
            let wanted = indexes.map(|index| (index, words[index].0));
            writes += write(number, memory, wanted, &mut held.sum)?;
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
            let (blocks, mut seen) = (self.blocks(slot), Entered::new());
            let rows = table.rows_of_slot().chain(std::iter::repeat(None));
            let mut both = rows.zip(self.words(slot, number));
            both.all(|(row, is)| match row {
                Some(row) => found.pool.find(&blocks, row, &mut seen) == Some(is),
                None => is == Word::default(),
            })
        })
    }

    /// Whether both slots hold the same tables, wherever their blocks stand.
    pub(crate) fn slots_agree(&self) -> bool {
        let mut agreed = HashSet::new();
        Direction::BOTH.into_iter().all(|direction| {
            let number = direction.number();
            let mut rows = self.words(0, number).zip(self.words(1, number));
            rows.all(|(one, other)| self.agree(one, other, LEVELS, &mut agreed))
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
        let alike = levels > 0 && {
            let one = self.blocks(0).block(one.place());
            let other = self.blocks(1).block(other.place());
            let mut both = one.iter().zip(other).skip(RUN_WORDS);
            one[..RUN_WORDS] == other[..RUN_WORDS]
                && both.all(|(one, other)| self.agree(Word(*one), Word(other), levels - 1, agreed))
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
                next.extend(block[RUN_WORDS..].iter().map(|word| Word(*word)));
            }
        }
        TableCopy {
            rows,
            blocks: copied,
        }
    }
}

/// One direction's table as the kernel holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCopy {
    /// By identity index, then everyone's.
    pub rows: Vec<Word>,
    /// The blocks that the rows lead to, by place.
    pub blocks: HashMap<u32, Block>,
}

impl TableCopy {
    /// The verdict, read as the programs read it.
    #[must_use]
    pub fn lookup(&self, index: u32, class: u32, value: u16) -> Cell {
        let key = key(class, value);
        let cell = |index: usize| {
            let mut word = self.rows.get(index).copied().unwrap_or_default();
            for _ in 0..LEVELS {
                if !word.is_link() {
                    return word.cell();
                }
                let block = self.blocks.get(&word.place());
                word = block.map_or(Word::default(), |block| word_of(block, key));
            }
            match word.is_link() {
                true => Cell::default(),
                false => word.cell(),
            }
        };
        let own = cell(index as usize % IDENTITIES_MAX);
        let cell = decide(own, || cell(DENIED), || cell(EVERYONE));
        if key == FRAGMENT {
            return cell.of_fragment();
        }
        cell
    }

    /// What becomes of each key of an identity with this row.
    #[must_use]
    pub fn decided(&self, row: Word) -> Vec<(Range<u32>, Cell)> {
        let of = |word| self.run(word, 0, LEVELS);
        let everyone = [DENIED, EVERYONE].map(|index| of(self.rows[index]));
        of(row).decided(&everyone[0], &everyone[1])
    }

    fn run(&self, word: Word, start: u32, levels: u32) -> Row {
        if !word.is_link() {
            return Row::All(word.cell());
        }
        let Some(block) = self.blocks.get(&word.place()).filter(|_| levels > 0) else {
            return Row::default();
        };
        let (starts, words) = block.split_at(RUN_WORDS);
        let starts = std::iter::once(start).chain(starts.iter().copied());
        let runs = starts.zip(words).take_while(|(start, _)| *start != NO_RUN);
        let runs = runs.map(|(start, word)| (start, self.run(Word(*word), start, levels - 1)));
        Row::Block(runs.collect())
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
