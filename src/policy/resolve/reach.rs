//! From what selects an identity to the items' peers that hold it.

use std::collections::HashMap;

use super::gather::{Gathered, PeerSet, number};
use super::sets::{Set, Sets};
use crate::policy::{SelectorId, Signature};

/// Which sets of peers each selector reaches, as sets of their numbers.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) sets: Sets,
    /// The sets of peers that hold everyone.
    everyone: Set,
    of_selector: HashMap<SelectorId, Set>,
    of_signature: HashMap<Signature, Set>,
}

impl Reach {
    pub(super) fn new(gathered: &Gathered) -> Self {
        let mut everyone = Vec::new();
        let mut by_selector: HashMap<SelectorId, Vec<u32>> = HashMap::new();
        for (peers, set) in gathered.peers.iter().enumerate() {
            let peers = number(peers);
            match set {
                PeerSet::Everyone => everyone.push(peers),
                PeerSet::Selected(selectors) => {
                    for selector in selectors {
                        by_selector.entry(*selector).or_default().push(peers);
                    }
                }
            }
        }
        let mut sets = Sets::new(gathered.peers.len());
        Self {
            everyone: sets.of(&everyone),
            of_selector: by_selector
                .into_iter()
                .map(|(selector, peers)| (selector, sets.of(&peers)))
                .collect(),
            of_signature: HashMap::new(),
            sets,
        }
    }

    /// The peers that hold the identities of this signature.
    pub(super) fn peers(&mut self, signature: &Signature) -> Set {
        if let Some(peers) = self.of_signature.get(signature) {
            return *peers;
        }
        let peers = signature
            .iter()
            .filter_map(|selector| self.of_selector.get(selector))
            .fold(self.everyone, |peers, more| self.sets.union(peers, *more));
        self.of_signature.insert(Signature::clone(signature), peers);
        peers
    }

    /// The peers that hold an identity that nothing selects.
    pub(super) fn stranger(&self) -> Set {
        self.everyone
    }

    /// Forgets signatures of old when there are more than so many.
    pub(super) fn forget_beyond(&mut self, signatures_max: usize) {
        if self.of_signature.len() > signatures_max {
            self.of_signature = HashMap::new();
        }
    }
}
