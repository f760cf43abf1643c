//! The verdict tables: identity -> row, protocol and port -> verdict.
//!
//! A few array lookups, whatever the number of rules, ports and identities:
//!
//! ```text
//! key  = class of the protocol, then port or type: 18 bits
//! word = ROWS[slot, direction].word[identity index]
//! while word is a link:
//!     word = BLOCKS[slot, word.place].word of the run that holds the key
//! ```
//! A row says what becomes of each key. Its word is a verdict for all of them, or
//! a link to a block: up to eight runs of keys, with a word each. Equal blocks of
//! a slot stand in one place. So a row costs what it tells apart; a row that is
//! the same for all keys costs nothing; and what one row says moves nothing in
//! another.
//!
//! What is everyone's stands in two rows of its own, so that a rule for everyone
//! is no part of any other row. [`decide`] says which of the three decides.
//!
//! Both are `BPF_F_MMAPABLE` arrays: the agent writes the inactive slot through
//! the mapping and reads it back before the flip.

/// Identities that may be live at once. Index 0 is the unknown identity.
pub const IDENTITIES_MAX: usize = 131_072;

/// Where the row of everyone stands behind those of identities: what becomes of a
/// key that no other row decides about.
pub const EVERYONE: usize = IDENTITIES_MAX;
/// Where the row of what is denied to everyone stands.
pub const DENIED: usize = IDENTITIES_MAX + 1;
/// Words of a table of rows: those, up to the next page.
pub const ROW_WORDS: usize = IDENTITIES_MAX + 1_024;
/// Rows of one (slot, direction), by identity index: a [`Word`] each.
pub type Rows = [u32; ROW_WORDS];

/// Element of the ROWS array for (slot, direction).
#[inline(always)]
#[must_use]
pub const fn rows_element(slot: u32, direction: u32) -> u32 {
    slot * 2 + direction
}
/// Elements of the ROWS array.
pub const ROWS_ELEMENTS: u32 = 4;

/// Classes of protocols: what a key is made from.
pub mod class {
    /// TCP destination port, host byte order.
    pub const TCP: u32 = 0;
    /// UDP destination port, host byte order.
    pub const UDP: u32 = 1;
    /// SCTP destination port, host byte order.
    pub const SCTP: u32 = 2;
    /// See `OTHER_*`.
    pub const OTHER: u32 = 3;
    /// Number of classes.
    pub const CLASSES: u32 = 4;

    /// Class OTHER: IP protocol number + this (protocols without ports).
    pub const OTHER_PROTOCOL: u32 = 0;
    /// Class OTHER: ICMP type + this.
    pub const OTHER_ICMP: u32 = 256;
    /// Class OTHER: ICMPv6 type + this.
    pub const OTHER_ICMPV6: u32 = 512;
    /// Class OTHER: the one key of fragments whose ports are not known. Its
    /// cells allow only what L3-only rules allow and no L4 deny may reach; one
    /// that says nothing is read by [`super::Cell::of_fragment`].
    pub const OTHER_FRAGMENT: u32 = 768;
    /// Keys in use in class OTHER. Those behind say what that of fragments says.
    pub const OTHER_KEYS: usize = 769;
}

/// Bits of a key: a class, and 16 bits within it.
pub const KEY_BITS: u32 = 18;

/// The key of a port or type of a class.
#[inline(always)]
#[must_use]
pub const fn key(class: u32, value: u16) -> u32 {
    (class & (class::CLASSES - 1)) << 16 | value as u32
}

/// The key of fragments whose ports are not known.
pub const FRAGMENT: u32 = key(class::OTHER, 0) + class::OTHER_FRAGMENT;

/// Runs of keys in a block, at most.
pub const RUNS_MAX: usize = 8;
/// Words of a block: a line of the CPU's cache.
pub const BLOCK_WORDS: usize = 16;
/// Where the words of the runs begin in a block. Before them: where the second to
/// the last run begin, rising, then [`NO_RUN`] until here.
pub const RUN_WORDS: usize = BLOCK_WORDS - RUNS_MAX;
/// Begins behind every key.
pub const NO_RUN: u32 = u32::MAX;
/// A block of runs: [`Word`]s, and where they begin.
pub type Block = [u32; BLOCK_WORDS];
/// Blocks on the way to a verdict, at most: each leaves a span of an eighth.
pub const LEVELS: u32 = KEY_BITS.div_ceil(RUNS_MAX.ilog2());

/// Which word of a block is that of a key.
#[must_use]
pub fn word_of(block: &Block, key: u32) -> Word {
    let starts = &block[..RUN_WORDS - 1];
    let run = starts.partition_point(|start| *start <= key);
    Word(block[RUN_WORDS + run])
}

/// Blocks of one slot, both directions. A generation with more is refused whole.
pub const BLOCKS_MAX: u32 = 1 << 18;
/// Elements of the BLOCKS array, those of slot A first.
pub const BLOCKS_ELEMENTS: u32 = 2 * BLOCKS_MAX;

/// Element of the BLOCKS array for the block at `place` in a slot.
#[inline(always)]
#[must_use]
pub const fn blocks_element(slot: u32, place: u32) -> u32 {
    slot * BLOCKS_MAX + place
}

/// What a row or a run in a block says: the [`Cell`] of all its keys, or where to
/// look further.
///
/// | bits | meaning of a link |
/// |---|---|
/// | 7 | set: a link; clear: a cell |
/// | 8..32 | place of the block in its slot |
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Word(pub u32);

impl Word {
    const LINK: u32 = 1 << 7;
    /// Largest place that a word can name.
    pub const PLACE_MAX: u32 = 0x00ff_ffff;

    /// The same verdict for all keys.
    #[must_use]
    pub const fn of_cell(cell: Cell) -> Self {
        Self(cell.0)
    }
    /// A block.
    #[must_use]
    pub const fn link(place: u32) -> Self {
        Self(Self::LINK | (place << 8))
    }
    /// Whether to look further.
    #[inline(always)]
    #[must_use]
    pub const fn is_link(self) -> bool {
        self.0 & Self::LINK != 0
    }
    /// The cell, where this is no link.
    #[inline(always)]
    #[must_use]
    pub const fn cell(self) -> Cell {
        Cell(self.0)
    }
    /// Place of the block, where this is a link.
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u32 {
        (self.0 >> 8) & (BLOCKS_MAX - 1)
    }
}

/// One verdict: what to do, and the rule that decided.
///
/// | bits | meaning |
/// |---|---|
/// | 0..2 | action |
/// | 2 | audit: a denial is reported and passed |
/// | 3 | decides alone: no other row is asked; see [`decide`] |
/// | 4..8 | zero; see [`Word`] |
/// | 8..32 | number of the deciding rule; 0 = none matched |
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Cell(pub u32);

/// Actions of a [`Cell`].
pub mod action {
    /// No rule matched: default deny (drop 133). The value of zeroed memory, so
    /// that a table which was never written denies.
    pub const NO_MATCH: u32 = 0;
    /// A rule allows.
    pub const ALLOW: u32 = 1;
    /// A deny rule matched (drop 181).
    pub const DENY: u32 = 2;
    /// A fragment without its first one, not covered by L3-only rules (drop 175).
    pub const FRAGMENT: u32 = 3;
}

impl Cell {
    const AUDIT: u32 = 1 << 2;
    const ALONE: u32 = 1 << 3;
    /// No item decides: the next row is asked. Behind the last one it is
    /// [`action::NO_MATCH`].
    pub const UNDECIDED: Self = Self(0);
    /// Largest rule number.
    pub const RULE_MAX: u32 = 0x00ff_ffff;

    /// Builds a cell; `rule` must not exceed [`Cell::RULE_MAX`].
    #[must_use]
    pub const fn new(action: u32, audit: bool, rule: u32) -> Self {
        Self((action & 3) | if audit { Self::AUDIT } else { 0 } | (rule << 8))
    }
    /// One of [`action`].
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> u32 {
        self.0 & 3
    }
    /// Whether a denial of this cell is only reported.
    #[inline(always)]
    #[must_use]
    pub const fn audit(self) -> bool {
        self.0 & Self::AUDIT != 0
    }
    /// Number of the deciding rule, 0 if none matched.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> u32 {
        self.0 >> 8
    }
    /// The verdict on a fragment without ports, as the tables have it: what no rule
    /// allows is told by a reason of its own.
    #[inline(always)]
    #[must_use]
    pub const fn of_fragment(self) -> Self {
        match self.action() {
            action::NO_MATCH => Self(self.0 | action::FRAGMENT),
            _ => self,
        }
    }
    /// The same, whatever other rows say.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self(self.0 | Self::ALONE)
    }
    /// Whether no other row is asked.
    #[inline(always)]
    #[must_use]
    pub const fn is_alone(self) -> bool {
        self.0 & Self::ALONE != 0
    }
    /// The verdict, without how it was found.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Self {
        Self(self.0 & !Self::ALONE)
    }
    /// Whether the packet goes on: allowed, or denied in audit.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        self.action() == action::ALLOW || self.audit()
    }
}

/// The verdict, of what the row of an identity says of a key and what everyone's
/// two rows say of it, which are asked where that matters.
///
/// Failsafe entries stand before denies, denies before allows, and of each those
/// for selected peers before those for everyone. So a cell of an identity's row
/// decides alone if it is a failsafe entry's or a deny, or if everyone's items are
/// in it already; then comes what is denied to everyone; then other cells of the
/// identity's row; then everyone's row.
#[inline(always)]
#[must_use]
pub fn decide(own: Cell, denied: impl FnOnce() -> Cell, everyone: impl FnOnce() -> Cell) -> Cell {
    if own.is_alone() {
        return own.verdict();
    }
    let denied = denied();
    let both_unsure = own.action() == action::FRAGMENT && denied.action() == action::FRAGMENT;
    if denied.0 != 0 && !both_unsure {
        return denied.verdict();
    }
    if own.0 != 0 {
        return own;
    }
    everyone().verdict()
}

/// Value of a plain trie of prefixes, which the benchmark holds the ipcaches against:
/// the identity of a prefix in slot A and in slot B, and its index.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct IpcacheValue {
    pub identity: [u32; 2],
    pub index: [u32; 2],
}

/// Prefixes of each family (Cilium's 512,000).
pub const IPCACHE_MAX: u32 = 512_000;

/// Rules that can have counters, and the largest rule number + 1.
pub const RULES_MAX: u32 = 131_072;

const _: () = assert!(IDENTITIES_MAX.is_power_of_two());
const _: () = assert!(BLOCKS_MAX.is_power_of_two());
const _: () = assert!(BLOCKS_MAX - 1 <= Word::PLACE_MAX);
const _: () = assert!(class::CLASSES == 1 << (KEY_BITS - 16));
const _: () = assert!(BLOCK_WORDS == 2 * RUNS_MAX && RUNS_MAX.is_power_of_two());
const _: () = assert!(size_of::<IpcacheValue>() == 16);
const _: () = assert!(RULES_MAX - 1 <= Cell::RULE_MAX);
