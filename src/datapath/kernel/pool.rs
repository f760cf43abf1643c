//! The blocks of one slot: where equal ones stand, who uses them, what is free.
//!
//! A block is known by its content. It is in use while a row of the slot's
//! tables or a block in use links to it; after that it stays where it is, and is
//! found again, until its place is needed.
//!
//! Nothing here writes: new blocks wait in [`Pool::fresh`] until the generation
//! was seen to fit. Places beyond the last one are given out too, so that what
//! does not fit can be told with its number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::{BLOCKS_MAX, Block, NO_RUN, RUN_WORDS, RUNS_MAX, Word};

use crate::policy::{KEYS, Row};

/// Reads a block of the slot, by its place.
pub(crate) trait Memory {
    fn block(&self, place: u32) -> Block;
}

/// Rows that were entered, by where their blocks are in our memory.
pub(crate) type Entered = HashMap<usize, Word>;

/// The blocks of one slot.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Place by the mark of the content; of contents with one mark, one.
    places: HashMap<u64, u32>,
    /// How many links lead to each place.
    links: Vec<u32>,
    /// Places that were in use, the longest unused first.
    idle: VecDeque<u32>,
    is_idle: Vec<bool>,
    in_use: usize,
    sum: u64,
    /// Mark of the block of each place, while it is in use.
    marks: Vec<u64>,
    /// Blocks that are not written yet, by place.
    fresh: BTreeMap<u32, Block>,
    /// The largest rule number entered, and whether a row had a shape that no
    /// row has, since this was asked last.
    seen: Seen,
}

/// What [`Pool::enter`] met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rule_max: u32,
    pub(crate) misshapen: bool,
}

/// What a comparison of some places with memory gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compared {
    pub(crate) compared: usize,
    pub(crate) changed: usize,
    /// No place behind them was ever used.
    pub(crate) is_last: bool,
}

/// Unmasked: a plan that does not fit has places beyond the last.
fn place(link: Word) -> usize {
    (link.0 >> 8) as usize
}

/// The words of the runs of a block.
fn words(block: &Block) -> impl Iterator<Item = Word> + use<> {
    block.map(Word).into_iter().skip(RUN_WORDS)
}

/// Whether a block can be made of these runs.
fn are_runs(runs: &[(u32, Row)]) -> bool {
    (2..=RUNS_MAX).contains(&runs.len())
        && runs.is_sorted_by(|one, other| one.0 < other.0)
        && runs.iter().all(|(start, _)| *start < KEYS)
}

/// A block of these runs. None where one has no word.
fn block_of(runs: &[(u32, Row)], mut word: impl FnMut(&Row) -> Option<Word>) -> Option<Block> {
    let mut block = Block::default();
    block[..RUN_WORDS - 1].fill(NO_RUN);
    for (place, (start, row)) in runs.iter().enumerate().take(RUNS_MAX) {
        block[RUN_WORDS + place] = word(row)?.0;
        if place > 0 {
            block[place - 1] = *start;
        }
    }
    Some(block)
}

/// 64 bits that nearly always differ where the input does.
pub(crate) fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The mark of a content.
fn mark(block: &Block) -> u64 {
    let pairs = block.chunks_exact(2);
    pairs.fold(0x9e37_79b9_7f4a_7c15, |mark, pair| {
        mixed(mark ^ (u64::from(pair[0]) | u64::from(pair[1]) << 32)).rotate_left(17)
    })
}

/// What a block in use adds to the sum.
fn weight(place: usize, mark: u64) -> u64 {
    mixed(mark ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Pool {
    /// What these rows reach in memory; each counts as one use.
    pub(crate) fn learn(memory: &impl Memory, rows: impl IntoIterator<Item = Word>) -> Self {
        let mut pool = Self::default();
        let mut next: Vec<Word> = rows.into_iter().collect();
        while let Some(word) = next.pop() {
            let place = place(word);
            if !word.is_link() || place >= BLOCKS_MAX as usize {
                continue;
            }
            pool.reserve(place);
            pool.links[place] += 1;
            if pool.links[place] == 1 {
                let block = memory.block(small(place));
                let mark = mark(&block);
                pool.places.entry(mark).or_insert(small(place));
                pool.count(place, mark);
                next.extend(words(&block));
            }
        }
        let unused = (0..pool.links.len()).filter(|place| pool.links[*place] == 0);
        pool.idle = unused.map(small).collect();
        for place in &pool.idle {
            pool.is_idle[*place as usize] = true;
        }
        pool
    }

    /// Blocks in use.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Sum over the blocks in use and their places.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// The blocks to write.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = (u32, &Block)> {
        self.fresh.iter().map(|(place, block)| (*place, block))
    }

    /// Compares the blocks in use among `places` with memory; fresh ones are not
    /// there yet.
    pub(crate) fn compare(&self, memory: &impl Memory, places: Range<usize>) -> Compared {
        let end = places.end.min(self.links.len());
        let mut compared = Compared {
            compared: 0,
            changed: 0,
            is_last: end == self.links.len(),
        };
        for place in places.start.min(end)..end {
            if self.links[place] == 0 || self.fresh.contains_key(&small(place)) {
                continue;
            }
            compared.compared += 1;
            let is = mark(&memory.block(small(place)));
            compared.changed += usize::from(is != self.marks[place]);
        }
        compared
    }

    /// The fresh blocks were written.
    pub(crate) fn written(&mut self) {
        self.fresh.clear();
    }

    pub(crate) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// One use more of a row's word.
    pub(crate) fn keep(&mut self, word: Word) {
        if word.is_link() {
            self.links[place(word)] += 1;
        }
    }

    /// The word of a row, with one use more.
    pub(crate) fn enter(&mut self, memory: &impl Memory, row: &Row, entered: &mut Entered) -> Word {
        let runs = match row {
            Row::All(cell) => {
                self.seen.rule_max = self.seen.rule_max.max(cell.rule());
                return Word::of_cell(*cell);
            }
            Row::Block(runs) => runs,
        };
        let key = Arc::as_ptr(runs).addr();
        if let Some(word) = entered.get(&key).copied() {
            self.keep(word);
            return word;
        }
        self.seen.misshapen |= !are_runs(runs);
        let block = block_of(runs, |row| Some(self.enter(memory, row, entered)));
        let word = Word::link(self.put(memory, block.unwrap_or_default()));
        entered.insert(key, word);
        word
    }

    /// The word of a row as memory has it; None if it does not.
    pub(crate) fn find(
        &self,
        memory: &impl Memory,
        row: &Row,
        found: &mut Entered,
    ) -> Option<Word> {
        let runs = match row {
            Row::All(cell) => return Some(Word::of_cell(*cell)),
            Row::Block(runs) => runs,
        };
        let key = Arc::as_ptr(runs).addr();
        if let Some(word) = found.get(&key) {
            return Some(*word);
        }
        let block = block_of(runs, |row| self.find(memory, row, found))?;
        let place = *self.places.get(&mark(&block))?;
        let is_used = self.links[place as usize] > 0;
        (is_used && memory.block(place) == block).then(|| {
            let word = Word::link(place);
            found.insert(key, word);
            word
        })
    }

    /// One use less of a word; what only it used goes with it.
    pub(crate) fn leave(&mut self, memory: &impl Memory, word: Word) {
        let mut next = Vec::new();
        self.leave_one(memory, word, &mut next);
        while let Some(word) = next.pop() {
            self.leave_one(memory, word, &mut next);
        }
    }

    /// The same; the words that a block used go to `next`.
    fn leave_one(&mut self, memory: &impl Memory, word: Word, next: &mut Vec<Word>) {
        let place = place(word);
        if !word.is_link() || self.links.get(place).is_none_or(|links| *links == 0) {
            return;
        }
        self.links[place] -= 1;
        if self.links[place] > 0 {
            return;
        }
        let block = self.content(memory, place);
        self.in_use -= 1;
        self.sum = self.sum.wrapping_sub(weight(place, self.marks[place]));
        if !std::mem::replace(&mut self.is_idle[place], true) {
            self.idle.push_back(small(place));
        }
        next.extend(words(&block));
    }

    fn content(&self, memory: &impl Memory, place: usize) -> Block {
        let fresh = self.fresh.get(&small(place));
        fresh.copied().unwrap_or_else(|| memory.block(small(place)))
    }

    /// The place of a block whose links are in use for it, with one use more.
    fn put(&mut self, memory: &impl Memory, block: Block) -> u32 {
        let mark = mark(&block);
        let known = self.places.get(&mark).map(|place| *place as usize);
        if let Some(place) = known.filter(|place| self.content(memory, *place) == block) {
            self.links[place] += 1;
            if self.links[place] == 1 {
                self.count(place, mark);
            } else {
                // It has them in use already.
                for word in words(&block) {
                    self.leave(memory, word);
                }
            }
            return small(place);
        }
        let place = self.free(memory);
        self.fresh.insert(small(place), block);
        self.places.insert(mark, small(place));
        self.links[place] = 1;
        self.count(place, mark);
        small(place)
    }

    fn count(&mut self, place: usize, mark: u64) {
        self.in_use += 1;
        self.marks[place] = mark;
        self.sum = self.sum.wrapping_add(weight(place, mark));
    }

    /// A place for a new block: one that was never used, else the one that is
    /// unused for the longest time, else one that is not there.
    fn free(&mut self, memory: &impl Memory) -> usize {
        let next = self.links.len();
        while next >= BLOCKS_MAX as usize
            && let Some(idle) = self.idle.pop_front()
        {
            let place = idle as usize;
            self.is_idle[place] = false;
            if self.links[place] > 0 {
                continue;
            }
            let old = mark(&self.content(memory, place));
            if self.places.get(&old) == Some(&idle) {
                self.places.remove(&old);
            }
            return place;
        }
        let next = next.min(Word::PLACE_MAX as usize);
        self.reserve(next);
        next
    }

    fn reserve(&mut self, place: usize) {
        if self.links.len() <= place {
            self.links.resize(place + 1, 0);
            self.is_idle.resize(place + 1, false);
            self.marks.resize(place + 1, 0);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "places are at most Word::PLACE_MAX"
)]
fn small(place: usize) -> u32 {
    place as u32
}

#[cfg(test)]
#[path = "pool_tests.rs"]
pub(crate) mod tests;
