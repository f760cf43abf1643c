//! Identity and verdict: a few array lookups.

use palisade_abi::table::{
    Cell, IDENTITIES_MAX, LEVELS, Word, action, blocks_element, columns_element, rows_element,
};

use crate::maps::{BLOCKS, COLUMNS, ROWS};

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

/// The verdict of the tables of (slot, direction). `class` and `key` are those
/// of `palisade_abi::table::column`. What cannot be looked up is denied.
#[inline(always)]
pub fn lookup(slot: u32, direction: u32, index: u32, class: u32, key: u16) -> Cell {
    let table = Table {
        slot,
        direction,
        class,
    };
    Cell(crate::pal_verdict(table.pack(), index, u32::from(key)))
}

/// Which table is asked, and by which class of columns; as one word, since a
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
pub fn search(table: Table, index: u32, key: u16) -> Cell {
    let Table {
        slot,
        direction,
        class,
    } = table;
    let (Some(rows), Some(columns)) = (
        ROWS.get_ptr(rows_element(slot, direction)),
        COLUMNS.get_ptr(columns_element(slot, direction, class)),
    ) else {
        return Cell::default();
    };
    // The compiler knows that a port fits and would drop the mask; the verifier
    // of Linux 6.1 loses the bound on the way here and needs to see it.
    // So is the index, which the compiler follows through functions that the
    // verifier looks at one by one.
    let index = core::hint::black_box(u64::from(index)) as usize;
    let key = core::hint::black_box(u64::from(key)) as usize & 0xffff;
    // SAFETY: each index is masked to the size of the element it indexes, which
    // the verifier proves again.
    let (mut word, column) = unsafe {
        let row = rows.cast::<u32>().add(index & (IDENTITIES_MAX - 1));
        (Word(*row), *columns.cast::<u32>().add(key))
    };
    for _ in 0..LEVELS {
        if !word.is_link() {
            return word.cell();
        }
        let Some(block) = BLOCKS.get_ptr(blocks_element(slot, word.place())) else {
            return Cell::default();
        };
        // SAFETY: a digit is masked to the words of a block.
        word = Word(unsafe { *block.cast::<u32>().add(word.digit(column)) });
    }
    // A link below the last level: no table of ours.
    if word.is_link() {
        return Cell::default();
    }
    word.cell()
}
