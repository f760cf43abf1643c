//! The repository as a record in the journal's snapshots, and back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::numbers::RuleNumbers;
use super::{Repository, RepositoryImportError, RepositoryRecord, StoredObject, StoredPolicy};
use crate::events::{RepositoryChange, Resource};
use crate::identity::IdentityTable;
use crate::policy::PolicyOptions;
use crate::policy::language::read_policy;
use crate::policy::objects::read_object;

/// Layout of [`RepositoryRecord`]. 2: all kinds of objects, identities of nodes
/// and pods.
const RECORD_VERSION: u32 = 2;
/// The oldest layout that is still read.
const RECORD_VERSION_FIRST: u32 = 1;

impl Repository {
    /// The whole state, for the journal's snapshot.
    #[must_use]
    pub fn export(&self) -> RepositoryRecord {
        RepositoryRecord {
            version: RECORD_VERSION,
            revision: self.revision,
            policies: self
                .state
                .policies
                .values()
                .map(|stored| Resource::clone(&stored.resource))
                .collect(),
            objects: self
                .state
                .objects
                .values()
                .map(|stored| Resource::clone(&stored.resource))
                .collect(),
            local_addresses: self.state.local_addresses.to_vec(),
            node_labels: BTreeMap::clone(&self.state.node_labels),
            refused: self.refused.values().cloned().collect(),
            rule_numbers: self.state.numbers.export(),
            identities: self.state.identities.export(),
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
        if !(RECORD_VERSION_FIRST..=RECORD_VERSION).contains(&record.version) {
            return Err(RepositoryImportError::Version {
                found: record.version,
                known: RECORD_VERSION,
            });
        }
        options.node_labels = record.node_labels;
        let mut identities =
            IdentityTable::new(options.cidr_match_nodes, options.numbers_are_shared);
        identities.import(&record.identities);
        let numbers = RuleNumbers::import(record.rule_numbers);
        let mut repository = Self::with(options, numbers, identities, record.revision);
        repository.restore(&record.local_addresses, record.objects, record.policies);
        for refusal in record.refused {
            let key = (refusal.key.clone(), refusal.source);
            repository.refused.entry(key).or_insert(refusal);
        }
        repository.state.drop_unused();
        repository.state.give_up_unclaimed();
        repository.state.drop_unused_numbers();
        Ok(repository)
    }

    /// Takes the resources of a record, all at once: what an identity was
    /// needed for comes before anyone asks whether it is still needed.
    fn restore(&mut self, local: &[IpAddr], objects: Vec<Resource>, policies: Vec<Resource>) {
        let mut valid_objects = Vec::new();
        for resource in objects {
            let reading = read_object(&resource.key, &resource.body.value());
            match reading.value {
                Some(object) => {
                    let resource = Arc::new(resource);
                    valid_objects.push(Arc::new(StoredObject { resource, object }));
                }
                None => drop(self.refuse(&resource, reading.errors, false)),
            }
        }
        let mut valid_policies = Vec::new();
        for resource in policies {
            let reading = read_policy(&resource.key, &resource.body.value());
            match reading.value {
                Some(policy) => valid_policies.push(StoredPolicy {
                    resource: Arc::new(resource),
                    policy,
                    warnings: reading.warnings,
                    selects_host: false,
                    numbers: Vec::new(),
                }),
                None => drop(self.refuse(&resource, reading.errors, false)),
            }
        }
        let whole = self.attempt(|state, touched| {
            state.put_local_addresses(local.to_vec(), touched);
            for stored in &valid_objects {
                let key = stored.resource.key.clone();
                state.put_object(&key, Some(Arc::clone(stored)), touched);
            }
            state.refresh_host_labels(touched)?;
            for stored in &valid_policies {
                let key = stored.resource.key.clone();
                state.put_policy(&key, Some(stored.clone()), touched)?;
            }
            Ok(())
        });
        if whole.is_err() {
            self.restore_one_by_one(local, &valid_objects, &valid_policies);
        }
    }

    /// With other options not all may fit any more: what does not is refused.
    fn restore_one_by_one(
        &mut self,
        local: &[IpAddr],
        objects: &[Arc<StoredObject>],
        policies: &[StoredPolicy],
    ) {
        let revision = self.revision;
        self.set_local_addresses(local);
        let objects = objects.iter().map(|stored| &stored.resource);
        for resource in objects.chain(policies.iter().map(|stored| &stored.resource)) {
            self.apply(&RepositoryChange::Upsert(Resource::clone(resource)));
        }
        self.revision = revision;
    }
}
