//! Which item decides in each column, for a set of peers: the least rank.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::columns::Columns;
use super::gather::Gathered;
use super::sets::{Node, Set, Sets, elements, half};

/// Rank of "no item".
pub(super) const NOBODY: u32 = u32::MAX;
/// Columns kept in parts of rows while a table is computed (64 MiB), and from
/// one table to the next (4 MiB).
const DONE_COLUMNS_MAX: usize = 1 << 24;
const DONE_COLUMNS_KEPT: usize = 1 << 20;

/// What a set of peers makes of each column: the least rank.
#[derive(Clone, Debug)]
pub(super) struct Painted {
    pub(super) columns: Vec<u32>,
    /// Least rank of an L3-only deny, an L3-only allow, and a deny by port that
    /// a fragment without ports may be meant by.
    pub(super) all_deny: u32,
    pub(super) all_allow: u32,
    pub(super) port_deny: u32,
}

/// The same for one set of peers, as runs of columns: as large as its items,
/// however many columns there are.
#[derive(Debug)]
struct Layer {
    runs: Vec<(Range<usize>, u32)>,
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

    fn least(&mut self, all_deny: u32, all_allow: u32, port_deny: u32) {
        self.all_deny = self.all_deny.min(all_deny);
        self.all_allow = self.all_allow.min(all_allow);
        self.port_deny = self.port_deny.min(port_deny);
    }

    fn merge(&mut self, other: &Self) {
        for (own, other) in self.columns.iter_mut().zip(&other.columns) {
            *own = (*own).min(*other);
        }
        self.least(other.all_deny, other.all_allow, other.port_deny);
    }

    fn merge_layer(&mut self, layer: &Layer) {
        for (run, rank) in &layer.runs {
            for own in &mut self.columns[run.clone()] {
                *own = (*own).min(*rank);
            }
        }
        self.least(layer.all_deny, layer.all_allow, layer.port_deny);
    }

    fn into_layer(self) -> Layer {
        let mut runs: Vec<(Range<usize>, u32)> = Vec::new();
        for (column, rank) in self.columns.into_iter().enumerate() {
            match runs.last_mut() {
                Some((run, last)) if *last == rank && run.end == column => run.end += 1,
                _ if rank == NOBODY => {}
                _ => runs.push((column..column + 1, rank)),
            }
        }
        Layer {
            runs,
            all_deny: self.all_deny,
            all_allow: self.all_allow,
            port_deny: self.port_deny,
        }
    }
}

/// Paints sets of peers with some of the items.
#[derive(Debug)]
pub(super) struct Painter {
    /// By number of the peers.
    layers: Vec<Layer>,
    columns: usize,
    /// Parts of rows that are done: of a set of peers that stands so far from
    /// the first. Neighbours share most of them.
    done: HashMap<(Set, usize), Arc<Painted>>,
}

impl Painter {
    /// With the items that `audited` admits: policies in audit, or none of them.
    pub(super) fn new(gathered: &Gathered, columns: &Columns, audited: bool) -> Self {
        let mut by_peers: Vec<Vec<u32>> = vec![Vec::new(); gathered.peers.len()];
        for (rank, item) in (0..).zip(&gathered.items) {
            if audited || !item.audited {
                by_peers[item.peers as usize].push(rank);
            }
        }
        let covered: Vec<Vec<Range<usize>>> = gathered
            .ports
            .iter()
            .map(|set| columns.covered(set))
            .collect();
        let count = columns.count();
        Self {
            layers: by_peers
                .iter()
                .map(|ranks| paint(gathered, ranks, &covered, count).into_layer())
                .collect(),
            columns: count,
            done: HashMap::new(),
        }
    }

    /// What the items make of the identities that exactly these peers hold.
    pub(super) fn painted(&mut self, sets: &Sets, peers: Set) -> Arc<Painted> {
        self.merged(sets, peers, sets.height(), 0)
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        if self.done.len() * self.columns > DONE_COLUMNS_KEPT {
            self.done = HashMap::new();
        }
    }

    fn merged(&mut self, sets: &Sets, peers: Set, height: u32, base: usize) -> Arc<Painted> {
        if let Some(done) = self.done.get(&(peers, base)) {
            return Arc::clone(done);
        }
        let mut merged = Painted::new(self.columns);
        match sets.node(peers) {
            Node::Leaf(bits) => {
                for bit in elements(bits) {
                    merged.merge_layer(&self.layers[base + bit]);
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
