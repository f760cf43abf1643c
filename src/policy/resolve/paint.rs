//! From ranked items to rows of cells.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::classes::Classes;
use super::gather::{Gathered, PortSet, Ranked};
use super::sets::{Node, Set, Sets, elements, half};

/// Rank of "no item".
const NOBODY: u32 = u32::MAX;

/// What one set of peers makes of each column: the least rank.
#[derive(Clone)]
struct Painted {
    columns: Vec<u32>,
    /// Least rank of an L3-only deny, an L3-only allow, and a deny by port that
    /// a fragment without ports may be meant by.
    all_deny: u32,
    all_allow: u32,
    port_deny: u32,
}

impl Painted {
    fn new(columns: usize) -> Self {
        Self {
            columns: vec![NOBODY; columns],
            all_deny: NOBODY,
            all_allow: NOBODY,
            port_deny: NOBODY,
        }
    }
    fn merge(&mut self, other: &Self) {
        for (own, other) in self.columns.iter_mut().zip(&other.columns) {
            *own = (*own).min(*other);
        }
        self.all_deny = self.all_deny.min(other.all_deny);
        self.all_allow = self.all_allow.min(other.all_allow);
        self.port_deny = self.port_deny.min(other.port_deny);
    }
}

/// Computes rows; the last column of each is that of fragments.
pub(super) struct Painter<'a> {
    gathered: &'a Gathered,
    audit: bool,
    painted: Vec<Painted>,
    columns: usize,
    /// Parts of rows that are done: of a set of peers that stands so far from
    /// the first. Neighbours share most of them.
    done: HashMap<(Set, usize), Arc<Painted>>,
}

/// Columns kept in parts of rows: bounds the memory (64 MiB).
const DONE_COLUMNS_MAX: usize = 1 << 24;

impl<'a> Painter<'a> {
    /// `columns`: the classes of the line of keys.
    pub(super) fn new(gathered: &'a Gathered, columns: &Classes, audit: bool) -> Self {
        let count = columns.members.len();
        let mut by_peers: Vec<Vec<u32>> = vec![Vec::new(); gathered.peers.len()];
        for (rank, item) in (0..).zip(&gathered.items) {
            by_peers[item.peers as usize].push(rank);
        }
        // A class stands for all its positions: its first one is enough.
        let mut firsts = vec![0; count];
        for run in columns.runs.iter().rev() {
            firsts[run.class] = run.positions.start;
        }
        let covered: Vec<Vec<Range<usize>>> = gathered
            .ports
            .iter()
            .map(|set| covered_columns(&firsts, set))
            .collect();
        let painted = by_peers
            .iter()
            .map(|ranks| paint(gathered, ranks, &covered, count))
            .collect();
        Self {
            gathered,
            audit,
            painted,
            columns: count,
            done: HashMap::new(),
        }
    }

    /// The row of the identities that exactly these sets of peers hold.
    pub(super) fn row(&mut self, sets: &Sets, peers: Set) -> Vec<Cell> {
        let merged = self.merged(sets, peers, sets.height(), 0);
        let mut row: Vec<Cell> = merged.columns.iter().map(|rank| self.cell(*rank)).collect();
        row.push(self.fragment(&merged));
        row
    }

    fn merged(&mut self, sets: &Sets, peers: Set, height: u32, base: usize) -> Arc<Painted> {
        if let Some(done) = self.done.get(&(peers, base)) {
            return Arc::clone(done);
        }
        let mut merged = Painted::new(self.columns);
        match sets.node(peers) {
            Node::Leaf(bits) => {
                for bit in elements(bits) {
                    merged.merge(&self.painted[base + bit]);
                }
            }
            Node::Pair(low, high) => {
                let upper = base + half(height);
                for (part, base) in [(low, base), (high, upper)] {
                    if part != Set::EMPTY {
                        merged.merge(&self.merged(sets, part, height - 1, base));
                    }
                }
            }
        }
        let merged = Arc::new(merged);
        if self.done.len() * self.columns < DONE_COLUMNS_MAX {
            self.done.insert((peers, base), Arc::clone(&merged));
        }
        merged
    }

    fn cell(&self, rank: u32) -> Cell {
        let item = self.gathered.items.get(rank as usize);
        match item {
            Some(Ranked { allows, number, .. }) if *allows => {
                Cell::new(action::ALLOW, false, number.0)
            }
            Some(Ranked { number, .. }) => Cell::new(action::DENY, self.audit, number.0),
            None if self.gathered.open => Cell::new(action::ALLOW, false, 0),
            None => Cell::new(action::NO_MATCH, self.audit, 0),
        }
    }

    /// Allows what L3-only rules allow and no deny by port may be meant for.
    fn fragment(&self, merged: &Painted) -> Cell {
        let by_port = self.gathered.items.get(merged.port_deny as usize);
        if merged.all_deny != NOBODY {
            self.cell(merged.all_deny)
        } else if let Some(deny) = by_port {
            Cell::new(action::FRAGMENT, self.audit, deny.number.0)
        } else if merged.all_allow != NOBODY || self.gathered.open {
            self.cell(merged.all_allow)
        } else {
            Cell::new(action::FRAGMENT, self.audit, 0)
        }
    }
}

/// The columns that a set of ports covers. Columns are numbered by their first
/// positions, so that each range of ports covers a range of columns; members of
/// a class that lie elsewhere are covered by another range of the same set.
fn covered_columns(firsts: &[usize], set: &PortSet) -> Vec<Range<usize>> {
    set.ranges
        .iter()
        .map(|range| {
            let start = firsts.partition_point(|first| *first < range.start);
            let end = firsts.partition_point(|first| *first < range.end);
            start..end
        })
        .filter(|range| !range.is_empty())
        .collect()
}

/// Paints the columns of one set of peers, best rank first; each column is
/// painted once, however many items cover it.
fn paint(
    gathered: &Gathered,
    ranks: &[u32],
    covered: &[Vec<Range<usize>>],
    columns: usize,
) -> Painted {
    let mut painted = Painted::new(columns);
    // next[c]: the first column from c on that is not painted yet.
    let mut next: Vec<usize> = (0..=columns).collect();
    for rank in ranks {
        let item = &gathered.items[*rank as usize];
        let set = &gathered.ports[item.ports as usize];
        let least = match (set.all, item.allows) {
            (true, false) => Some(&mut painted.all_deny),
            (true, true) => Some(&mut painted.all_allow),
            (false, false) if set.may_be_fragment => Some(&mut painted.port_deny),
            (false, _) => None,
        };
        if let Some(least) = least {
            *least = (*least).min(*rank);
        }
        for range in &covered[item.ports as usize] {
            let mut column = find(&mut next, range.start);
            while column < range.end {
                painted.columns[column] = *rank;
                next[column] = column + 1;
                column = find(&mut next, column + 1);
            }
        }
    }
    painted
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
