//! What can happen: plain data, no I/O. One closed enum per queue.

mod body;
mod envelope;
mod history;
mod lifecycle;
mod reaction;
mod regeneration;
mod repository_change;

pub use body::Body;
pub use envelope::{Envelope, Sequence};
pub use history::{History, HistoryEntry, Outcome, join_generations};
pub use lifecycle::{EndpointState, EndpointTrigger};
pub use reaction::RuleReaction;
pub use regeneration::{EndpointRegenerationEvent, RegenerationCause};
pub use repository_change::{
    Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName,
};

use serde::{Deserialize, Serialize};

/// Number of a state of the policy repository; starts at 1, +1 per change.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of an endpoint on this node (Cilium: endpoint id).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EndpointId(pub u16);

impl std::fmt::Display for EndpointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
