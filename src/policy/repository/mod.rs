//! The repository: all resources of this node, one revision per change.
//!
//! Owner: the thread of the RepositoryChangeQueue. Invariant: the same changes
//! in the same order give the same revision, numbers and snapshot.

mod apply;
mod effects;
mod numbers;
mod record;
#[cfg(test)]
pub(super) mod tests;
mod types;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::selections::selectors_in_use;
use super::{PolicyOptions, PolicySnapshot, Selections};
use crate::events::{ResourceKey, Revision, SourceName};
use crate::identity::{IdentityAllocator, IdentityTable, LabelSet};
use effects::Ledger;
pub(super) use effects::selects_host;
use numbers::RuleNumbers;
pub use numbers::RuleNumbersRecord;
pub use types::{
    Affected, Applied, Change, Refusal, RepositoryImportError, RepositoryRecord, StoredObject,
    StoredPolicy,
};

/// All resources, and what follows from them.
#[derive(Clone, Debug)]
pub struct Repository {
    options: Arc<PolicyOptions>,
    revision: Revision,
    policies: OrdMap<ResourceKey, Arc<StoredPolicy>>,
    objects: OrdMap<ResourceKey, Arc<StoredObject>>,
    /// Sorted, without duplicates.
    local_addresses: Vec<IpAddr>,
    node_labels: BTreeMap<String, String>,
    refused: BTreeMap<(ResourceKey, SourceName), Refusal>,
    host_labels: Arc<LabelSet>,
    ledger: Ledger,
    identities: Arc<IdentityTable>,
    selections: Selections,
}

impl Repository {
    /// An empty repository, at revision 1.
    #[must_use]
    pub fn new(options: PolicyOptions) -> Self {
        let ledger = Ledger::new(
            &options.failsafe,
            RuleNumbers::default(),
            IdentityAllocator::default(),
        );
        Self::with_ledger(options, ledger, Revision(1))
    }

    fn with_ledger(options: PolicyOptions, ledger: Ledger, revision: Revision) -> Self {
        let mut repository = Self {
            node_labels: options.node_labels.clone(),
            options: Arc::new(options),
            revision,
            policies: OrdMap::new(),
            objects: OrdMap::new(),
            local_addresses: Vec::new(),
            refused: BTreeMap::new(),
            host_labels: Arc::default(),
            ledger,
            identities: Arc::default(),
            selections: Selections::default(),
        };
        repository.host_labels = repository.labels_of_host();
        repository.refresh_identities();
        repository.refresh_selections();
        repository
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The current state, immutable. Cheap: shares what did not change.
    #[must_use]
    pub fn snapshot(&self) -> Arc<PolicySnapshot> {
        Arc::new(PolicySnapshot {
            revision: self.revision,
            options: Arc::clone(&self.options),
            host_labels: Arc::clone(&self.host_labels),
            policies: self.policies.clone(),
            objects: self.objects.clone(),
            local_addresses: self.local_addresses.clone().into(),
            selections: self.selections.clone(),
            identities: Arc::clone(&self.identities),
            ipcache4: self.ledger.ipcache.v4(),
            ipcache6: self.ledger.ipcache.v6(),
            rules: self.ledger.numbers.catalogue(),
            refused: Arc::new(self.refused.values().cloned().collect()),
        })
    }

    fn refresh_identities(&mut self) {
        self.identities = Arc::new(IdentityTable::new(
            &self.ledger.allocator,
            Arc::clone(&self.host_labels),
        ));
    }

    fn refresh_selections(&mut self) {
        let selectors = selectors_in_use(&self.policies, &self.host_labels, &self.options);
        self.selections =
            Selections::from_scratch(&selectors, &self.identities, &self.objects, &self.options);
    }
}
