//! Named ports of egress rules: what a name means is the peer's affair.

use std::collections::HashMap;

use super::gather::Gathered;
use super::paint::NOBODY;
use super::ports::{PortName, position};
use super::sets::{Set, Sets};
use crate::policy::language::NamedPort;

/// What a name means to an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Meaning {
    /// Place of the name among [`Gathered::names`].
    name: u32,
    /// The port, as a key of the line.
    pub(super) key: usize,
}

/// The names in use, and the items that use them.
#[derive(Debug)]
pub(super) struct Names {
    numbers: HashMap<PortName, u32>,
    /// Ranks of the items, rising, by name.
    ranks: Vec<Vec<u32>>,
}

impl Names {
    pub(super) fn new(gathered: &Gathered) -> Self {
        let mut ranks = vec![Vec::new(); gathered.names.len()];
        if !ranks.is_empty() {
            for (rank, item) in (0..).zip(&gathered.items) {
                for name in &gathered.ports[item.ports as usize].names {
                    ranks[*name as usize].push(rank);
                }
            }
        }
        Self {
            numbers: (0..)
                .zip(&gathered.names)
                .map(|(number, name)| (name.clone(), number))
                .collect(),
            ranks,
        }
    }

    /// Whether no item names a port.
    pub(super) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// What an identity that `peers` hold makes of its named ports: those that
    /// an item of theirs names.
    pub(super) fn meanings(
        &self,
        gathered: &Gathered,
        sets: &Sets,
        peers: Set,
        ports: &[NamedPort],
    ) -> Vec<Meaning> {
        let mut meanings: Vec<Meaning> = ports
            .iter()
            .filter_map(|port| {
                let name = *self.numbers.get(&PortName {
                    protocol: port.protocol,
                    name: port.name.clone(),
                })?;
                let meaning = Meaning {
                    name,
                    key: position(port.protocol, port.port),
                };
                (self.rank(gathered, sets, peers, meaning, true) != NOBODY).then_some(meaning)
            })
            .collect();
        meanings.sort_unstable();
        meanings.dedup();
        meanings
    }

    /// The first item that names the port and holds the peers.
    pub(super) fn rank(
        &self,
        gathered: &Gathered,
        sets: &Sets,
        peers: Set,
        meaning: Meaning,
        audited: bool,
    ) -> u32 {
        let mut ranks = self.ranks[meaning.name as usize].iter().copied();
        ranks
            .find(|rank| {
                let item = &gathered.items[*rank as usize];
                (audited || !item.audited) && sets.contains(peers, item.peers)
            })
            .unwrap_or(NOBODY)
    }
}
