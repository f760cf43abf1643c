//! The repository: all resources of this node, one revision per change.
//!
//! Owner: the thread of the RepositoryChangeQueue. Invariant: the same changes
//! in the same order give the same revision, numbers and snapshot. Invariant:
//! the cost of a change grows with what it touches, not with what there is.

mod addresses;
mod apply;
mod claims;
mod effects;
#[cfg(test)]
mod identity_tests;
mod numbers;
mod objects;
mod policies;
#[cfg(test)]
mod property_tests;
mod record;
mod settle;
mod state;
#[cfg(test)]
pub(super) mod tests;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PolicyOptions, PolicySnapshot};
use crate::events::{ResourceKey, Revision, SourceName};
use crate::identity::IdentityTable;
pub(super) use addresses::Owner;
pub(super) use effects::selects_host;
use numbers::RuleNumbers;
pub use numbers::RuleNumbersRecord;
use state::State;
pub use types::{
    Affected, Applied, Change, Refusal, RepositoryImportError, RepositoryRecord, StoredObject,
    StoredPolicy,
};

/// All resources, and what follows from them.
#[derive(Clone, Debug)]
pub struct Repository {
    revision: Revision,
    state: State,
    refused: BTreeMap<(ResourceKey, SourceName), Refusal>,
}

impl Repository {
    /// An empty repository, at revision 1.
    #[must_use]
    pub fn new(options: PolicyOptions) -> Self {
        let identities = IdentityTable::new(options.cidr_match_nodes, options.numbers_are_shared);
        Self::with(options, RuleNumbers::default(), identities, Revision(1))
    }

    fn with(
        options: PolicyOptions,
        numbers: RuleNumbers,
        identities: IdentityTable,
        revision: Revision,
    ) -> Self {
        Self {
            revision,
            state: State::new(Arc::new(options), numbers, identities),
            refused: BTreeMap::new(),
        }
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The current state, immutable. Cheap: shares what did not change.
    #[must_use]
    pub fn snapshot(&self) -> Arc<PolicySnapshot> {
        let state = &self.state;
        Arc::new(PolicySnapshot {
            revision: self.revision,
            options: Arc::clone(&state.options),
            host_labels: Arc::clone(&state.host_labels),
            policies: state.policies.clone(),
            objects: state.objects.clone(),
            local_addresses: Arc::clone(&state.local_addresses),
            selections: state.selectors.selections.clone(),
            identities: Arc::new(state.identities.clone()),
            ipcache4: state.ipcache.v4(),
            ipcache6: state.ipcache.v6(),
            owners: state.addresses.known.clone(),
            rules: state.numbers.catalogue(),
            refused: Arc::new(self.refused.values().cloned().collect()),
        })
    }
}
