//! Which item decides about each key, for a set of items: the first of them.

use std::ops::Range;
use std::sync::Arc;

use super::hashing::NumberMap;
use super::items::{Items, NOBODY};
use super::sets::{Node, Set, elements, half};
use crate::policy::row::{KEYS, Runs, zipped};

/// Runs kept of parts of rows while a table is computed (64 MiB), and from one
/// table to the next (4 MiB).
const DONE_RUNS_MAX: usize = 1 << 23;
const DONE_RUNS_KEPT: usize = 1 << 19;
/// What is kept of a part besides, in runs.
const DONE_RUNS_BESIDE: usize = 16;

/// What a set of items makes of each key: the one that decides.
#[derive(Clone, Debug)]
pub(super) struct Painted {
    /// By key; what it says of that of fragments means nothing.
    pub(super) keys: Runs<u32>,
    /// The first L3-only deny, L3-only allow, and deny by port that a fragment
    /// without ports may be meant by.
    pub(super) all_deny: u32,
    pub(super) all_allow: u32,
    pub(super) port_deny: u32,
}

impl Painted {
    fn nobody() -> Self {
        Self {
            keys: vec![(0, NOBODY)],
            all_deny: NOBODY,
            all_allow: NOBODY,
            port_deny: NOBODY,
        }
    }

    fn merge(&mut self, other: &Self, items: &Items) {
        self.keys = zipped(&self.keys, &other.keys, |one, other| {
            items.first(one, other)
        });
        self.all_deny = items.first(self.all_deny, other.all_deny);
        self.all_allow = items.first(self.all_allow, other.all_allow);
        self.port_deny = items.first(self.port_deny, other.port_deny);
    }

    /// The item that decides about a key.
    pub(super) fn get(&self, key: u32) -> u32 {
        let behind = self.keys.partition_point(|(start, _)| *start <= key);
        self.keys[behind.saturating_sub(1)].1
    }

    /// With another item for one key.
    pub(super) fn put(&mut self, key: u32, item: u32) {
        let all = [(0, None), (key, Some(item)), (key + 1, None)];
        let over = &all[usize::from(key == 0)..];
        self.keys = zipped(&self.keys, over, |is, over| over.unwrap_or(is));
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
    /// What is kept, in runs.
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

    /// What these items make of each key, with others besides.
    pub(super) fn painted(&mut self, items: &Items, own: Set, besides: Set) -> Arc<Painted> {
        let height = items.sets.height();
        let painted = self.merged(items, own, height, 0);
        if besides == Set::EMPTY {
            return painted;
        }
        let besides = self.merged(items, besides, height, 0);
        if own == Set::EMPTY {
            return besides;
        }
        let mut both = Painted::clone(&besides);
        both.merge(&painted, items);
        Arc::new(both)
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        if self.kept > DONE_RUNS_KEPT {
            self.forget();
        }
    }

    /// Keeps nothing.
    fn forget(&mut self) {
        self.done = NumberMap::default();
        self.kept = 0;
    }

    fn merged(&mut self, items: &Items, set: Set, height: u32, base: usize) -> Arc<Painted> {
        if let Some(done) = self.done.get(&(set, base)) {
            return Arc::clone(done);
        }
        let mut merged = Painted::nobody();
        match items.sets.node(set) {
            Node::Leaf(bits) => {
                let found = elements(bits).map(|bit| super::items::number(base + bit));
                merged = paint(items, self.admitted(items, found));
            }
            Node::Pair(low, high) => {
                let upper = base + half(height);
                for (part, base) in [(low, base), (high, upper)] {
                    if part != Set::EMPTY {
                        let part = self.merged(items, part, height - 1, base);
                        merged.merge(&part, items);
                    }
                }
            }
        }
        let merged = Arc::new(merged);
        if self.kept < DONE_RUNS_MAX {
            self.kept += merged.keys.len() + DONE_RUNS_BESIDE;
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
fn paint(items: &Items, found: Vec<u32>) -> Painted {
    let mut result = Painted::nobody();
    let known = || {
        found
            .iter()
            .filter_map(|item| Some((*item, items.get(*item)?)))
    };
    let ranges = known().map(|(_, item)| &items.ports_of(item).ranges[..]);
    let borders = borders(ranges);
    let place = |border: u32| borders.partition_point(|at| *at < border);
    let mut painted = vec![NOBODY; borders.len() - 1];
    // next[n]: the first stretch from n on that is not painted yet.
    let mut next: Vec<usize> = (0..borders.len()).collect();
    for (number, item) in known() {
        let set = items.ports_of(item);
        let first = match (set.all, item.allows) {
            (true, false) => Some(&mut result.all_deny),
            (true, true) => Some(&mut result.all_allow),
            (false, false) if set.may_be_fragment => Some(&mut result.port_deny),
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
    result.keys = borders.into_iter().zip(painted).collect();
    result.keys.dedup_by_key(|(_, item)| *item);
    result
}

/// The keys where any of these ranges begins or ends, rising; with the first,
/// and the one behind the last.
fn borders<'a>(ranges: impl Iterator<Item = &'a [Range<u32>]>) -> Vec<u32> {
    let ends = ranges.flatten().flat_map(|range| [range.start, range.end]);
    let mut borders: Vec<u32> = ends.chain([0, KEYS]).collect();
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
