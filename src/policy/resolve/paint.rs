//! Which item decides in each column, for a set of peers: the least rank.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::columns::Columns;
use super::gather::Gathered;
use super::sets::{Node, Set, Sets, elements, half};
use crate::policy::row::{Loose, Maker as _, Part};

/// Rank of "no item".
pub(super) const NOBODY: u32 = u32::MAX;
/// Blocks kept in parts of rows while a table is computed (64 MiB), and from
/// one table to the next (4 MiB).
const DONE_BLOCKS_MAX: usize = 1 << 18;
const DONE_BLOCKS_KEPT: usize = 1 << 14;

/// What a set of peers makes of each column: the least rank.
#[derive(Clone, Debug)]
pub(super) struct Painted {
    /// By column; what it says of that of fragments means nothing.
    pub(super) columns: Part<u32>,
    /// Least rank of an L3-only deny, an L3-only allow, and a deny by port that
    /// a fragment without ports may be meant by.
    pub(super) all_deny: u32,
    pub(super) all_allow: u32,
    pub(super) port_deny: u32,
}

/// The same for one set of peers, as runs of columns; where there is none,
/// nobody decides.
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

    fn least(&mut self, all_deny: u32, all_allow: u32, port_deny: u32) {
        self.all_deny = self.all_deny.min(all_deny);
        self.all_allow = self.all_allow.min(all_allow);
        self.port_deny = self.port_deny.min(port_deny);
    }

    fn merge(&mut self, other: &Self, blocks: &mut Loose) {
        self.columns = blocks.least(&self.columns, &other.columns, NOBODY);
        self.least(other.all_deny, other.all_allow, other.port_deny);
    }

    fn merge_layer(&mut self, layer: &Layer, columns: usize, blocks: &mut Loose) {
        let row = blocks.row(columns, &layer.filled(columns));
        self.columns = blocks.least(&self.columns, &row, NOBODY);
        self.least(layer.all_deny, layer.all_allow, layer.port_deny);
    }
}

impl Layer {
    /// Runs of all columns.
    fn filled(&self, columns: usize) -> Vec<(Range<usize>, u32)> {
        let mut filled = Vec::with_capacity(2 * self.runs.len() + 1);
        let mut end = 0;
        for (run, rank) in &self.runs {
            if end < run.start {
                filled.push((end..run.start, NOBODY));
            }
            filled.push((run.clone(), *rank));
            end = run.end;
        }
        if end < columns {
            filled.push((end..columns, NOBODY));
        }
        filled
    }
}

/// Paints sets of peers with some of the items.
#[derive(Debug)]
pub(super) struct Painter {
    /// By number of the peers.
    layers: Vec<Layer>,
    /// With that of fragments.
    columns: usize,
    /// Parts of rows that are done: of a set of peers that stands so far from
    /// the first. Neighbours share most of them.
    done: HashMap<(Set, usize), Arc<Painted>>,
    /// Blocks that were made for what is done, and one for each.
    kept: usize,
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
        let sets = gathered.ports.iter();
        let covered: Vec<Vec<Range<usize>>> = sets.map(|set| columns.covered(set)).collect();
        let count = columns.count() + 1;
        Self {
            layers: by_peers
                .iter()
                .map(|ranks| paint(gathered, ranks, &covered, count))
                .collect(),
            columns: count,
            done: HashMap::new(),
            kept: 0,
        }
    }

    /// What the items make of the identities that exactly these peers hold.
    pub(super) fn painted(&mut self, sets: &Sets, peers: Set) -> Arc<Painted> {
        self.merged(sets, peers, sets.height(), 0)
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        if self.kept > DONE_BLOCKS_KEPT {
            self.done = HashMap::new();
            self.kept = 0;
        }
    }

    fn merged(&mut self, sets: &Sets, peers: Set, height: u32, base: usize) -> Arc<Painted> {
        if let Some(done) = self.done.get(&(peers, base)) {
            return Arc::clone(done);
        }
        let mut merged = Painted::nobody();
        let mut blocks = Loose::default();
        match sets.node(peers) {
            Node::Leaf(bits) => {
                for bit in elements(bits) {
                    merged.merge_layer(&self.layers[base + bit], self.columns, &mut blocks);
                }
            }
            Node::Pair(low, high) => {
                let upper = base + half(height);
                for (part, base) in [(low, base), (high, upper)] {
                    if part != Set::EMPTY {
                        let part = self.merged(sets, part, height - 1, base);
                        merged.merge(&part, &mut blocks);
                    }
                }
            }
        }
        let merged = Arc::new(merged);
        if self.kept < DONE_BLOCKS_MAX {
            self.kept += blocks.made + 1;
            self.done.insert((peers, base), Arc::clone(&merged));
        }
        merged
    }
}

/// Paints the columns of one set of peers, best rank first; each stretch between
/// two borders is painted once, however many items cover it.
fn paint(
    gathered: &Gathered,
    ranks: &[u32],
    covered: &[Vec<Range<usize>>],
    columns: usize,
) -> Layer {
    let mut layer = Layer {
        runs: Vec::new(),
        all_deny: NOBODY,
        all_allow: NOBODY,
        port_deny: NOBODY,
    };
    let ports = |rank: &u32| gathered.items[*rank as usize].ports as usize;
    let borders = borders(ranks.iter().map(|rank| &covered[ports(rank)][..]), columns);
    let place = |border: usize| borders.partition_point(|at| *at < border);
    let mut painted = vec![NOBODY; borders.len() - 1];
    // next[n]: the first stretch from n on that is not painted yet.
    let mut next: Vec<usize> = (0..borders.len()).collect();
    for rank in ranks {
        let item = &gathered.items[*rank as usize];
        let set = &gathered.ports[item.ports as usize];
        let least = match (set.all, item.allows) {
            (true, false) => Some(&mut layer.all_deny),
            (true, true) => Some(&mut layer.all_allow),
            (false, false) if set.may_be_fragment => Some(&mut layer.port_deny),
            (false, _) => None,
        };
        if let Some(least) = least {
            *least = (*least).min(*rank);
        }
        for range in &covered[item.ports as usize] {
            let end = place(range.end);
            let mut stretch = find(&mut next, place(range.start));
            while stretch < end {
                painted[stretch] = *rank;
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

/// The columns where any of these ranges may begin or end, rising; with the
/// first, and the one behind the last.
fn borders<'a>(
    ranges: impl Iterator<Item = &'a [Range<usize>]> + Clone,
    columns: usize,
) -> Vec<usize> {
    if 2 * ranges.clone().map(<[_]>::len).sum::<usize>() >= columns {
        return (0..=columns).collect();
    }
    let ends = ranges.flatten().flat_map(|range| [range.start, range.end]);
    let mut borders: Vec<usize> = ends.chain([0, columns]).collect();
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
