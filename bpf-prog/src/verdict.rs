//! Identity and verdict: a few array lookups.

use palisade_abi::table::{
    Cell, DENIED, EVERYONE, FRAGMENT, IDENTITIES_MAX, LEVELS, RUN_WORDS, RUNS_MAX, Word, action,
    blocks_element, decide, key, rows_element,
};

use crate::branchless::is_less;
use crate::maps::{BLOCKS, ROWS};

/// Identity number of a peer and its key in the tables.
#[derive(Clone, Copy)]
pub struct Peer {
    pub identity: u32,
    pub index: u32,
}

impl Peer {
    /// No prefix of the ipcache contains the address.
    pub const UNKNOWN: Self = Self {
        identity: 0,
        index: 0,
    };

    /// As one word, which a global function can give back.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        u64::from(self.identity) | u64::from(self.index) << 32
    }

    /// And back.
    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        Self {
            identity: word as u32,
            index: (word >> 32) as u32,
        }
    }
}

/// The verdict where no table is asked.
pub const UNENFORCED: Cell = Cell::new(action::ALLOW, false, 0);

/// The verdict of the tables of (slot, direction). `class` is one of
/// `palisade_abi::table::class`, `value` a port or type of it. What cannot be looked up is denied.
#[inline(always)]
pub fn lookup(slot: u32, direction: u32, index: u32, class: u32, value: u16) -> Cell {
    let table = Table {
        slot,
        direction,
        class,
    };
    Cell(crate::pal_verdict(table.pack(), index, u32::from(value)))
}

/// Which table is asked, and by which class of keys; as one word, since a
/// global function takes five.
pub struct Table {
    slot: u32,
    direction: u32,
    class: u32,
}

impl Table {
    #[inline(always)]
    fn pack(&self) -> u32 {
        self.slot | self.direction << 1 | self.class << 2
    }

    #[inline(always)]
    pub fn unpack(word: u32) -> Self {
        Self {
            slot: word & 1,
            direction: word >> 1 & 1,
            class: word >> 2 & 3,
        }
    }
}

/// [`lookup`] itself.
#[inline(always)]
pub fn search(table: Table, index: u32, value: u16) -> Cell {
    let Table {
        slot,
        direction,
        class,
    } = table;
    let Some(rows) = ROWS.get_ptr(rows_element(slot, direction)) else {
        return Cell::default();
    };
    // The compiler follows the index through functions that the verifier looks
    // at one by one, and would drop the mask.
    let index = core::hint::black_box(u64::from(index)) as usize & (IDENTITIES_MAX - 1);
    let key = key(class, value);
    // SAFETY: an index is masked to those of identities, or one of the two
    // constants behind them; the verifier proves it again.
    let row = |index: usize| Word(unsafe { *rows.cast::<u32>().add(index) });
    let cell = decide(
        cell(slot, row(index), key),
        || cell(slot, row(DENIED), key),
        || cell(slot, row(EVERYONE), key),
    );
    if key == FRAGMENT {
        return cell.of_fragment();
    }
    cell
}

/// What a row says of a key.
#[inline(always)]
fn cell(slot: u32, mut word: Word, key: u32) -> Cell {
    for _ in 0..LEVELS {
        if !word.is_link() {
            return word.cell();
        }
        let Some(block) = BLOCKS.get_ptr(blocks_element(slot, word.place())) else {
            return Cell::default();
        };
        let block = block.cast::<u32>();
        // The last run that begins at the key or before. All seven are asked: the
        // next question of a search by halves would wait for the answer.
        let behind = u64::from(key) + 1;
        let mut run = 0;
        for place in 0..RUN_WORDS - 1 {
            // SAFETY: below the words of a block.
            run += is_less(unsafe { u64::from(*block.add(place)) }, behind);
        }
        // SAFETY: the mask keeps the index below the words of a block.
        word = unsafe { Word(*block.add(RUN_WORDS + (run as usize & (RUNS_MAX - 1)))) };
    }
    // A link below the last level: no table of ours.
    if word.is_link() {
        return Cell::default();
    }
    word.cell()
}
