//! The pool of blocks against a plain reading of what it was given.

use std::collections::{BTreeMap, HashSet};

use palisade_abi::table::{BLOCKS_MAX, Block, Cell, LEVELS, Word, word_of};
use proptest::prelude::*;

use super::{Entered, Memory, Pool};
use crate::policy::{KEYS, Row};

/// Keys that rules are about: a few neighbours, more than a block has, spread
/// over three levels.
const STEPS: [u32; 3] = [1, 100, 9_000];

/// Blocks in memory.
#[derive(Debug, Default)]
pub(crate) struct Vector(Vec<Block>);

impl Memory for Vector {
    fn block(&self, place: u32) -> Block {
        self.0.get(place as usize).copied().unwrap_or_default()
    }
}

impl Vector {
    /// How many blocks were written.
    pub(crate) fn write(&mut self, pool: &mut Pool) -> usize {
        let fresh: Vec<(u32, Block)> = pool.fresh().map(|(place, it)| (place, *it)).collect();
        for (place, block) in &fresh {
            let place = *place as usize;
            self.0.resize(self.0.len().max(place + 1), Block::default());
            self.0[place] = *block;
        }
        pool.written();
        fresh.len()
    }

    /// As the programs read it.
    fn verdict(&self, row: Word, key: u32) -> Cell {
        let mut word = row;
        for _ in 0..LEVELS {
            if word.is_link() {
                word = word_of(&self.block(word.place()), key);
            }
        }
        assert!(!word.is_link());
        word.cell()
    }
}

/// The keys that begin another verdict, with it.
type Starts = BTreeMap<u32, Cell>;

fn row(starts: &Starts) -> Row {
    let ends = starts.keys().skip(1).copied().chain([KEYS]);
    let runs = starts.iter().zip(ends);
    let runs: Vec<_> = runs
        .map(|((start, cell), end)| (*start..end, *cell))
        .collect();
    Row::of(&runs)
}

fn enter(pool: &mut Pool, memory: &Vector, starts: &Starts) -> Word {
    pool.enter(memory, &row(starts), &mut Entered::new())
}

fn find(pool: &Pool, memory: &Vector, starts: &Starts) -> Option<Word> {
    pool.find(memory, &row(starts), &mut Entered::new())
}

fn rows() -> impl Strategy<Value = Vec<(bool, Starts)>> {
    let row = |step: u32| {
        let starts = proptest::collection::vec((1..25u32, 0..3u32), 0..20);
        starts.prop_map(move |starts| {
            let starts = starts.into_iter();
            let cell = |rule| Cell::new(1, false, rule);
            let starts = starts.map(|(place, rule)| (step * place, cell(rule)));
            std::iter::once((0, Cell(0))).chain(starts).collect()
        })
    };
    let step = proptest::sample::select(&STEPS[..]);
    step.prop_flat_map(move |step| proptest::collection::vec((any::<bool>(), row(step)), 1..25))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rows_that_come_and_go_leave_what_a_fresh_look_finds(steps in rows()) {
        let (mut pool, mut memory) = (Pool::default(), Vector::default());
        let mut live: Vec<(Starts, Word)> = Vec::new();
        for (comes, starts) in steps {
            if comes || live.is_empty() {
                let known = find(&pool, &memory, &starts);
                let word = enter(&mut pool, &memory, &starts);
                let writes = memory.write(&mut pool);
                prop_assert!(known.is_none_or(|known| known == word && writes == 0));
                prop_assert_eq!(find(&pool, &memory, &starts), Some(word));
                live.push((starts, word));
            } else {
                let (_, word) = live.remove(starts.len() % live.len());
                pool.leave(&memory, word);
            }
            for (starts, word) in &live {
                for key in starts.keys().flat_map(|start| [*start, start + 1, start ^ 16]) {
                    let (_, is) = starts.range(..=key).next_back().expect("from 0 on");
                    prop_assert_eq!(memory.verdict(*word, key), *is);
                }
            }
            let read = Pool::learn(&memory, live.iter().map(|(_, word)| *word));
            prop_assert_eq!(read.in_use(), pool.in_use());
            prop_assert_eq!(read.sum(), pool.sum());
            let links = |pool: &Pool| -> Vec<(usize, u32)> {
                let links = pool.links.iter().copied().enumerate();
                links.filter(|(_, links)| *links > 0).collect()
            };
            prop_assert_eq!(links(&read), links(&pool));
            let places: HashSet<Block> = links(&pool)
                .iter()
                .map(|(place, _)| memory.0[*place])
                .collect();
            prop_assert_eq!(places.len(), pool.in_use(), "equal blocks stand in one place");
        }
    }
}

/// A row of one block that no other number has.
fn pair(number: u32) -> Starts {
    let rules = [number / 1_000 + 1_000, number % 1_000];
    [0, 80]
        .into_iter()
        .zip(rules.map(|rule| Cell::new(1, false, rule)))
        .collect()
}

#[test]
fn places_are_used_again_and_what_exceeds_them_is_counted() {
    let (mut pool, mut memory) = (Pool::default(), Vector::default());
    let words: Vec<Word> = (0..BLOCKS_MAX)
        .map(|number| enter(&mut pool, &memory, &pair(number)))
        .collect();
    assert_eq!(memory.write(&mut pool), BLOCKS_MAX as usize);
    // What is not used any more is found again while its place is not needed.
    pool.leave(&memory, words[7]);
    assert_eq!(enter(&mut pool, &memory, &pair(7)), words[7]);
    assert_eq!(memory.write(&mut pool), 0);
    pool.leave(&memory, words[7]);
    pool.leave(&memory, words[3]);
    assert_eq!(enter(&mut pool, &memory, &pair(BLOCKS_MAX)), words[7]);
    assert_eq!(enter(&mut pool, &memory, &pair(7)), words[3]);
    assert_eq!(memory.write(&mut pool), 2);
    assert_eq!(pool.in_use(), BLOCKS_MAX as usize);
    enter(&mut pool, &memory, &pair(BLOCKS_MAX + 1));
    enter(&mut pool, &memory, &pair(BLOCKS_MAX + 2));
    assert_eq!(pool.in_use(), BLOCKS_MAX as usize + 2);
}

#[test]
fn memory_of_nonsense_is_read_without_end_or_harm() {
    let own = Word::link(0);
    let memory = Vector(vec![[own.0; 16], [Word::link(u32::MAX >> 8).0; 16]]);
    let mut pool = Pool::learn(&memory, [own, Word::link(1)]);
    assert_eq!(pool.in_use(), 2);
    for _ in 0..40 {
        pool.leave(&memory, own);
    }
    assert_eq!(pool.in_use(), 1);
    enter(&mut pool, &memory, &pair(1));
    assert_eq!(pool.in_use(), 2);
}
