//! An endpoint's verdicts must be computed again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{EndpointId, Revision};

/// Why a regeneration was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegenerationCause {
    PolicyAdded,
    PolicyDeleted,
    LabelsChanged,
    IdentitiesChanged,
    ConfigChanged,
    DevicesChanged,
    EndpointRestored,
    RegenerationFailed,
    Requested,
    /// The kernel does not hold what was committed.
    Drift,
}

impl RegenerationCause {
    /// Label value in metrics, words in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyAdded => "policy-added",
            Self::PolicyDeleted => "policy-deleted",
            Self::LabelsChanged => "labels-changed",
            Self::IdentitiesChanged => "identities-changed",
            Self::ConfigChanged => "config-changed",
            Self::DevicesChanged => "devices-changed",
            Self::EndpointRestored => "endpoint-restored",
            Self::RegenerationFailed => "regeneration-failed",
            Self::Requested => "requested",
            Self::Drift => "drift",
        }
    }
}

/// An event of one endpoint's queue. One build in flight, one pending: a second
/// pending event is merged into the first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointRegenerationEvent {
    pub endpoint: EndpointId,
    /// Least revision that the build must contain.
    pub revision: Revision,
    pub causes: BTreeSet<RegenerationCause>,
}

impl EndpointRegenerationEvent {
    /// Newest revision wins, causes are merged.
    pub fn merge(&mut self, later: Self) {
        self.revision = self.revision.max(later.revision);
        self.causes.extend(later.causes);
    }
}
