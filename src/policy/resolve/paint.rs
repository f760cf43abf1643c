//! Which item decides in each column, for a set of items: the first of them.

use std::ops::Range;
use std::sync::Arc;

use super::hashing::NumberMap;
use super::items::{Items, NOBODY};
use super::layout::{Layout, Said};
use super::ports::KEYS;
use super::sets::{Node, Set, elements, half};
use crate::policy::row::{Loose, Part};

/// Blocks kept in parts of rows while a table is computed (64 MiB), and from
/// one table to the next (4 MiB).
const DONE_BLOCKS_MAX: usize = 1 << 18;
const DONE_BLOCKS_KEPT: usize = 1 << 14;

/// What rows are painted from.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) items: &'a Items,
    pub(super) layout: &'a Layout,
}

impl Ground<'_> {
    /// The one of two items that decides.
    pub(super) fn first(self, one: u32, other: u32) -> u32 {
        if self.items.order(other) < self.items.order(one) {
            other
        } else {
            one
        }
    }
}

/// What a set of items makes of each column: the one that decides.
#[derive(Clone, Debug)]
pub(super) struct Painted {
    /// By column; what it says of that of fragments means nothing.
    pub(super) columns: Part<u32>,
    /// The first L3-only deny, L3-only allow, and deny by port that a fragment
    /// without ports may be meant by.
    pub(super) all_deny: u32,
    pub(super) all_allow: u32,
    pub(super) port_deny: u32,
}

/// The same for a few items, as runs of keys; where there is none, nobody
/// decides.
#[derive(Debug)]
struct Layer {
    runs: Vec<(Range<usize>, u32)>,
    all_deny: u32,
    all_allow: u32,
    port_deny: u32,
}

impl Painted {
    fn nobody() -> Self {
        Self {
            columns: Part::All(NOBODY),
            all_deny: NOBODY,
            all_allow: NOBODY,
            port_deny: NOBODY,
        }
    }

    fn of(layer: Layer, ground: Ground<'_>, blocks: &mut Loose) -> Self {
        let Layer {
            runs,
            all_deny,
            all_allow,
            port_deny,
        } = layer;
        let said = Said {
            runs: &runs,
            uncovered: ground.first(all_deny, all_allow),
            others: NOBODY,
        };
        Self {
            columns: ground.layout.row(blocks, said),
            all_deny,
            all_allow,
            port_deny,
        }
    }

    pub(super) fn merge(&mut self, other: &Self, ground: Ground<'_>, blocks: &mut Loose) {
        self.merge_columns(&other.columns, ground, blocks);
        self.all_deny = ground.first(self.all_deny, other.all_deny);
        self.all_allow = ground.first(self.all_allow, other.all_allow);
        self.port_deny = ground.first(self.port_deny, other.port_deny);
    }

    /// With another item for one key.
    pub(super) fn put(&mut self, key: usize, item: u32, ground: Ground<'_>) {
        let mut blocks = Loose::default();
        let said = Said {
            runs: &[(key..key + 1, item)],
            uncovered: NOBODY,
            others: NOBODY,
        };
        let row = ground.layout.row(&mut blocks, said);
        self.merge_columns(&row, ground, &mut blocks);
    }

    fn merge_columns(&mut self, other: &Part<u32>, ground: Ground<'_>, blocks: &mut Loose) {
        let order = |item| ground.items.order(item);
        self.columns = blocks.least(&self.columns, other, NOBODY, &order);
    }
}

/// Paints sets of items.
#[derive(Debug)]
pub(super) struct Painter {
    /// With policies in audit, or without them.
    audited: bool,
    /// Parts of rows that are done: of a set of items that stands so far from
    /// the first. Neighbours share most of them.
    done: NumberMap<(Set, usize), Arc<Painted>>,
    /// Blocks that were made for what is done, and one for each.
    kept: usize,
}

impl Painter {
    /// With the items that `audited` admits: policies in audit, or none of them.
    pub(super) fn new(audited: bool) -> Self {
        Self {
            audited,
            done: NumberMap::default(),
            kept: 0,
        }
    }

    /// What everyone's items and these make of each column.
    pub(super) fn painted(&mut self, ground: Ground<'_>, items: Set) -> Arc<Painted> {
        let height = ground.items.sets.height();
        let own = self.merged(ground, items, height, 0);
        let everyone = ground.items.everyone;
        if everyone == Set::EMPTY {
            return own;
        }
        let everyone = self.merged(ground, everyone, height, 0);
        if items == Set::EMPTY {
            return everyone;
        }
        let mut painted = Painted::clone(&everyone);
        painted.merge(&own, ground, &mut Loose::default());
        Arc::new(painted)
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        if self.kept > DONE_BLOCKS_KEPT {
            self.forget();
        }
    }

    /// Keeps nothing: columns have other numbers.
    pub(super) fn forget(&mut self) {
        self.done = NumberMap::default();
        self.kept = 0;
    }

    fn merged(&mut self, ground: Ground<'_>, set: Set, height: u32, base: usize) -> Arc<Painted> {
        if let Some(done) = self.done.get(&(set, base)) {
            return Arc::clone(done);
        }
        let mut merged = Painted::nobody();
        let mut blocks = Loose::default();
        match ground.items.sets.node(set) {
            Node::Leaf(bits) => {
                let items = elements(bits).map(|bit| super::items::number(base + bit));
                let layer = paint(ground.items, self.admitted(ground.items, items));
                merged = Painted::of(layer, ground, &mut blocks);
            }
            Node::Pair(low, high) => {
                let upper = base + half(height);
                for (part, base) in [(low, base), (high, upper)] {
                    if part != Set::EMPTY {
                        let part = self.merged(ground, part, height - 1, base);
                        merged.merge(&part, ground, &mut blocks);
                    }
                }
            }
        }
        let merged = Arc::new(merged);
        if self.kept < DONE_BLOCKS_MAX {
            self.kept += blocks.made + 1;
            self.done.insert((set, base), Arc::clone(&merged));
        }
        merged
    }

    /// Those that count, the first one first.
    fn admitted(&self, items: &Items, found: impl Iterator<Item = u32>) -> Vec<u32> {
        let counts = |item: &u32| {
            let item = items.get(*item);
            item.is_some_and(|item| self.audited || !item.audited)
        };
        let mut admitted: Vec<u32> = found.filter(counts).collect();
        admitted.sort_unstable_by_key(|item| items.order(*item));
        admitted
    }
}

/// Paints the keys, the first item first; each stretch between two borders is
/// painted once, however many items cover it.
fn paint(items: &Items, found: Vec<u32>) -> Layer {
    let mut layer = Layer {
        runs: Vec::new(),
        all_deny: NOBODY,
        all_allow: NOBODY,
        port_deny: NOBODY,
    };
    let known = || {
        found
            .iter()
            .filter_map(|item| Some((*item, items.get(*item)?)))
    };
    let ranges = known().map(|(_, item)| &items.ports_of(item).ranges[..]);
    let borders = borders(ranges);
    let place = |border: usize| borders.partition_point(|at| *at < border);
    let mut painted = vec![NOBODY; borders.len() - 1];
    // next[n]: the first stretch from n on that is not painted yet.
    let mut next: Vec<usize> = (0..borders.len()).collect();
    for (number, item) in known() {
        let set = items.ports_of(item);
        let first = match (set.all, item.allows) {
            (true, false) => Some(&mut layer.all_deny),
            (true, true) => Some(&mut layer.all_allow),
            (false, false) if set.may_be_fragment => Some(&mut layer.port_deny),
            (false, _) => None,
        };
        if let Some(first) = first.filter(|first| **first == NOBODY) {
            *first = number;
        }
        for range in &set.ranges {
            let end = place(range.end);
            let mut stretch = find(&mut next, place(range.start));
            while stretch < end {
                painted[stretch] = number;
                next[stretch] = stretch + 1;
                stretch = find(&mut next, stretch + 1);
            }
        }
    }
    for (stretch, rank) in borders.windows(2).zip(painted) {
        match layer.runs.last_mut() {
            Some((run, last)) if *last == rank && run.end == stretch[0] => run.end = stretch[1],
            _ if rank == NOBODY => {}
            _ => layer.runs.push((stretch[0]..stretch[1], rank)),
        }
    }
    layer
}

/// The keys where any of these ranges begins or ends, rising; with the first,
/// and the one behind the last.
fn borders<'a>(ranges: impl Iterator<Item = &'a [Range<usize>]>) -> Vec<usize> {
    let ends = ranges.flatten().flat_map(|range| [range.start, range.end]);
    let mut borders: Vec<usize> = ends.chain([0, KEYS]).collect();
    borders.sort_unstable();
    borders.dedup();
    borders
}

fn find(next: &mut [usize], from: usize) -> usize {
    let mut root = from;
    while next[root] != root {
        root = next[root];
    }
    let mut at = from;
    while next[at] != root {
        at = std::mem::replace(&mut next[at], root);
    }
    root
}
