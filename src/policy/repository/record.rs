//! The repository as a record in the journal's snapshots, and back.

use super::effects::Ledger;
use super::numbers::RuleNumbers;
use super::{Repository, RepositoryImportError, RepositoryRecord};
use crate::events::Resource;
use crate::identity::IdentityAllocator;
use crate::policy::PolicyOptions;

/// Layout of [`RepositoryRecord`].
const RECORD_VERSION: u32 = 1;

impl Repository {
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
                .objects
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
        repository.refresh_selections();
        Ok(repository)
    }
}
