//! Which identities each peer selector selects, at one revision.
//!
//! The repository keeps it up to date by what changes; a regeneration reads it
//! and compares it with the one before (maps share what did not change).

mod anchor;
mod cache;
mod expansion;
mod ids;
mod matching;
mod mention;
#[cfg(test)]
mod scratch;
#[cfg(test)]
mod tests;
mod touched;

use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::language::{NamedPort, Peer};
use crate::identity::{DenseKey, DenseMap, IdentityIndex};
pub(super) use cache::SelectorCache;
pub(super) use expansion::{
    Contribution, EVERYONE, NAMESPACE_KEY, Objects, Slices, names_everyone, selectors_of,
};
pub use ids::SelectorIds;
pub(super) use matching::CLUSTER_KEY;
pub(super) use mention::{Things, tells_nodes_apart};
pub(super) use touched::{Touched, taken};

/// Something that selects identities.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Selector {
    /// A peer of a rule.
    Peer(Peer),
    /// Addresses within the prefix of a failsafe entry, whoever they belong to
    /// but this host.
    Address(IpNet),
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Address(prefix) => write!(f, "failsafe {prefix}"),
        }
    }
}

/// Number of a selector in use. Not stable over restarts; never in a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SelectorId(pub u32);

impl DenseKey for SelectorId {
    fn number(self) -> u32 {
        self.0
    }
    fn of_number(number: u32) -> Self {
        Self(number)
    }
}

/// The selectors that select one identity, sorted.
pub type Signature = Arc<[SelectorId]>;

/// All selectors in use by rules that select a local endpoint, and whom they
/// select.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Selections {
    /// The selectors in use.
    pub ids: SelectorIds,
    /// For every live identity the selectors that select it.
    pub by_identity: DenseMap<IdentityIndex, Signature>,
    /// Named ports of the pods of an identity, sorted; absent where it has none.
    pub named_ports: OrdMap<IdentityIndex, Arc<[NamedPort]>>,
}
