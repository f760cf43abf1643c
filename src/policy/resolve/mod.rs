//! From snapshots to the verdict tables of one endpoint. Pure.
//!
//! In reading order: the items that select the endpoint (items, ports), whom
//! they hold (holders, population), which item decides where (paint),
//! verdicts (cells), the table of a direction and what is kept of
//! it (direction), the resolver. Sets and maps of numbers (hashing) are their tools.

mod cells;
mod direction;
#[cfg(test)]
mod edit_tests;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod growth_tests;
mod hashing;
mod holders;
mod items;
mod paint;
mod population;
mod ports;
#[cfg(test)]
mod property_tests;
mod resolver;
mod sets;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;

use super::{EndpointPolicy, PolicySnapshot};
use crate::events::EndpointId;
pub use resolver::{Resolver, Work};

/// The endpoint whose policy is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// The host endpoint of this node: labels and rules of `nodeSelector`.
    Host(EndpointId),
}

impl Subject {
    /// Its endpoint.
    #[must_use]
    pub fn endpoint(self) -> EndpointId {
        match self {
            Self::Host(id) => id,
        }
    }
}

/// A policy that does not fit into the tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(
        "{direction}: {rows} classes of peers: {}{needed} blocks of verdicts are needed in both \
         directions, {max} fit; merge rules or use fewer distinct peers and ports",
        if *at_least { "at least " } else { "" }
    )]
    Blocks {
        /// The one that needs more of them.
        direction: &'static str,
        rows: usize,
        /// Not all of them were counted.
        at_least: bool,
        needed: usize,
        max: usize,
    },
}

/// The verdicts of `subject`, computed from nothing. `audit`: the endpoint's
/// own audit switch (the agent's is in the snapshot).
pub fn resolve(
    snapshot: &PolicySnapshot,
    subject: Subject,
    audit: bool,
) -> Result<EndpointPolicy, ResolveError> {
    Resolver::new(subject).resolve(snapshot, audit)
}
