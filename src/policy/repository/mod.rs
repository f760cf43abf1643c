//! The repository: all resources of this node, one revision per change.
//!
//! Owner: the thread of the RepositoryChangeQueue. Invariant: the same changes
//! in the same order give the same revision, numbers and snapshot.

mod apply;
mod effects;
mod numbers;
#[cfg(test)]
pub(super) mod tests;
mod types;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::language::NodeObject;
use super::{PolicyOptions, PolicySnapshot};
use crate::events::{Resource, ResourceKey, Revision, SourceName};
use crate::identity::{IdentityAllocator, IdentityTable, LabelSet};
use effects::Ledger;
pub(super) use effects::selects_host;
use numbers::RuleNumbers;
pub use numbers::RuleNumbersRecord;
pub use types::{
    Affected, Applied, Change, Refusal, RepositoryImportError, RepositoryRecord, StoredPolicy,
};

/// Layout of [`RepositoryRecord`].
const RECORD_VERSION: u32 = 1;

/// All resources, and what follows from them.
#[derive(Clone, Debug)]
pub struct Repository {
    options: Arc<PolicyOptions>,
    revision: Revision,
    policies: Arc<BTreeMap<ResourceKey, Arc<StoredPolicy>>>,
    nodes: BTreeMap<ResourceKey, StoredNode>,
    /// Sorted, without duplicates.
    local_addresses: Vec<IpAddr>,
    node_labels: BTreeMap<String, String>,
    refused: BTreeMap<(ResourceKey, SourceName), Refusal>,
    host_labels: Arc<LabelSet>,
    ledger: Ledger,
    identities: Arc<IdentityTable>,
}

/// A valid Node or CiliumNode.
#[derive(Clone, Debug)]
struct StoredNode {
    resource: Arc<Resource>,
    node: NodeObject,
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
            policies: Arc::default(),
            nodes: BTreeMap::new(),
            local_addresses: Vec::new(),
            refused: BTreeMap::new(),
            host_labels: Arc::default(),
            ledger,
            identities: Arc::default(),
        };
        repository.host_labels = repository.labels_of_host();
        repository.refresh_identities();
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
            policies: Arc::clone(&self.policies),
            nodes: self
                .nodes
                .values()
                .map(|stored| Arc::clone(&stored.resource))
                .collect(),
            identities: Arc::clone(&self.identities),
            ipcache4: self.ledger.ipcache.v4(),
            ipcache6: self.ledger.ipcache.v6(),
            rules: self.ledger.numbers.catalogue(),
            refused: Arc::new(self.refused.values().cloned().collect()),
        })
    }

    /// The whole state, for the journal's snapshot.
    #[must_use]
    pub fn export(&self) -> RepositoryRecord {
        RepositoryRecord {
            version: RECORD_VERSION,
            revision: self.revision,
            policies: self
                .policies
                .values()
                .map(|stored| Resource::clone(&stored.resource))
                .collect(),
            nodes: self
                .nodes
                .values()
                .map(|stored| Resource::clone(&stored.resource))
                .collect(),
            local_addresses: self.local_addresses.clone(),
            node_labels: self.node_labels.clone(),
            refused: self.refused.values().cloned().collect(),
            rule_numbers: self.ledger.numbers.export(),
            identities: self.ledger.allocator.export(),
        }
    }

    /// The repository of a record. `options` are those of the running agent,
    /// except for `node_labels`, which are those of the record: send
    /// `RepositoryChange::NodeLabels` to change them.
    ///
    /// A resource that this version refuses is reported as refused.
    pub fn import(
        record: RepositoryRecord,
        mut options: PolicyOptions,
    ) -> Result<Self, RepositoryImportError> {
        if record.version != RECORD_VERSION {
            return Err(RepositoryImportError::Version {
                found: record.version,
                known: RECORD_VERSION,
            });
        }
        options.node_labels = record.node_labels;
        let ledger = Ledger::new(
            &options.failsafe,
            RuleNumbers::import(record.rule_numbers),
            IdentityAllocator::import(&record.identities),
        );
        let mut repository = Self::with_ledger(options, ledger, record.revision);
        for refusal in record.refused {
            let key = (refusal.key.clone(), refusal.source);
            repository.refused.insert(key, refusal);
        }
        repository.restore_addresses(record.local_addresses);
        for resource in record.nodes {
            repository.restore_node(resource);
        }
        repository.host_labels = repository.labels_of_host();
        for resource in record.policies {
            repository.restore_policy(resource);
        }
        repository.drop_unused();
        repository.refresh_identities();
        Ok(repository)
    }

    fn refresh_identities(&mut self) {
        self.identities = Arc::new(IdentityTable::new(
            &self.ledger.allocator,
            Arc::clone(&self.host_labels),
        ));
    }
}
