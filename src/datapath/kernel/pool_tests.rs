//! The pool of blocks against a plain reading of what it was given.

use std::collections::HashSet;

use palisade_abi::table::{BLOCKS_MAX, Block, Cell, LEVELS, Word};
use proptest::prelude::*;

use super::{Entered, Memory, Pool};
use crate::policy::Row;
use crate::policy::row::shift;

/// Two columns, one more than a block, and two levels more.
const WIDTHS: [usize; 3] = [2, 17, 300];

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
    fn verdict(&self, row: Word, column: usize) -> Cell {
        let mut word = row;
        for _ in 0..LEVELS {
            if word.is_link() {
                let column = u32::try_from(column).expect("a column");
                word = Word(self.block(word.place())[word.digit(column)]);
            }
        }
        assert!(!word.is_link());
        word.cell()
    }
}

fn enter(pool: &mut Pool, memory: &Vector, cells: &[Cell]) -> Word {
    let (row, columns) = (Row::of(cells), cells.len());
    pool.enter(memory, &row, columns, shift(columns), &mut Entered::new())
}

fn find(pool: &Pool, memory: &Vector, cells: &[Cell]) -> Option<Word> {
    let shift = shift(cells.len());
    pool.find(memory, &Row::of(cells), shift, &mut Entered::new())
}

fn rows() -> impl Strategy<Value = Vec<(bool, Vec<Cell>)>> {
    let row = |width: usize| {
        let changes = proptest::collection::vec((0..width, 1..4u32), 0..3);
        changes.prop_map(move |changes| {
            let mut cells = vec![Cell(0); width];
            for (column, rule) in changes {
                cells[column] = Cell::new(1, false, rule);
            }
            cells
        })
    };
    let width = proptest::sample::select(&WIDTHS[..]);
    width.prop_flat_map(move |width| proptest::collection::vec((any::<bool>(), row(width)), 1..25))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rows_that_come_and_go_leave_what_a_fresh_look_finds(steps in rows()) {
        let (mut pool, mut memory) = (Pool::default(), Vector::default());
        let mut live: Vec<(Vec<Cell>, Word)> = Vec::new();
        for (comes, cells) in steps {
            if comes || live.is_empty() {
                let known = find(&pool, &memory, &cells);
                let word = enter(&mut pool, &memory, &cells);
                let writes = memory.write(&mut pool);
                prop_assert!(known.is_none_or(|known| known == word && writes == 0));
                prop_assert_eq!(find(&pool, &memory, &cells), Some(word));
                live.push((cells, word));
            } else {
                let (_, word) = live.remove(cells.len() % live.len());
                pool.leave(&memory, word);
            }
            for (cells, word) in &live {
                for (column, cell) in cells.iter().enumerate() {
                    prop_assert_eq!(memory.verdict(*word, column), *cell);
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

/// A row of two columns that no other number has.
fn pair(number: u32) -> [Cell; 2] {
    [number / 1_000 + 1_000, number % 1_000].map(|rule| Cell::new(1, false, rule))
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
    let own = Word::link(0, 12);
    let memory = Vector(vec![[own.0; 16], [Word::link(u32::MAX >> 8, 0).0; 16]]);
    let mut pool = Pool::learn(&memory, [own, Word::link(1, 4)]);
    assert_eq!(pool.in_use(), 2);
    for _ in 0..40 {
        pool.leave(&memory, own);
    }
    assert_eq!(pool.in_use(), 1);
    enter(&mut pool, &memory, &pair(1));
    assert_eq!(pool.in_use(), 2);
}
