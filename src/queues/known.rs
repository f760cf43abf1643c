//! What each source told last: by it, a change that changes nothing is noticed
//! before it is journaled, and what vanished is found when a source is in sync.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::events::{RepositoryChange, ResourceKey, SourceName};

/// Hash of a resource's content.
type Content = String;

/// What was told last. Two exist: the intake's counts what is still queued, the
/// desk's what was applied, and only that is part of a snapshot.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "KnownRecord", into = "KnownRecord")]
pub struct Known {
    resources: BTreeMap<(SourceName, ResourceKey), Content>,
    /// What the node says about itself.
    local_addresses: Option<Content>,
    node_labels: Option<Content>,
}

#[derive(Serialize, Deserialize)]
struct KnownRecord {
    resources: Vec<(SourceName, ResourceKey, Content)>,
    local_addresses: Option<Content>,
    node_labels: Option<Content>,
}

impl From<KnownRecord> for Known {
    fn from(record: KnownRecord) -> Self {
        Self {
            resources: record
                .resources
                .into_iter()
                .map(|(source, key, content)| ((source, key), content))
                .collect(),
            local_addresses: record.local_addresses,
            node_labels: record.node_labels,
        }
    }
}

impl From<Known> for KnownRecord {
    fn from(known: Known) -> Self {
        Self {
            resources: known
                .resources
                .into_iter()
                .map(|((source, key), content)| (source, key, content))
                .collect(),
            local_addresses: known.local_addresses,
            node_labels: known.node_labels,
        }
    }
}

impl Known {
    /// Whether the change says anything new.
    #[must_use]
    pub fn would_change(&self, change: &RepositoryChange) -> bool {
        match change {
            RepositoryChange::Upsert(resource) => {
                let key = (resource.source, resource.key.clone());
                self.resources.get(&key) != Some(&content_of(&resource.body))
            }
            RepositoryChange::Delete { key, source } => {
                self.resources.contains_key(&(*source, key.clone()))
            }
            RepositoryChange::LocalAddresses(addresses) => {
                self.local_addresses.as_ref() != Some(&content_of(&serde_json::json!(addresses)))
            }
            RepositoryChange::NodeLabels(labels) => {
                self.node_labels.as_ref() != Some(&content_of(&serde_json::json!(labels)))
            }
        }
    }

    /// Notes a change.
    pub fn note(&mut self, change: &RepositoryChange) {
        match change {
            RepositoryChange::Upsert(resource) => {
                let key = (resource.source, resource.key.clone());
                self.resources.insert(key, content_of(&resource.body));
            }
            RepositoryChange::Delete { key, source } => {
                self.resources.remove(&(*source, key.clone()));
                // The key may be free now: what another source told about it
                // before, while it did not own it, would be news.
                for ((_, other), content) in &mut self.resources {
                    if other == key {
                        content.clear();
                    }
                }
            }
            RepositoryChange::LocalAddresses(addresses) => {
                self.local_addresses = Some(content_of(&serde_json::json!(addresses)));
            }
            RepositoryChange::NodeLabels(labels) => {
                self.node_labels = Some(content_of(&serde_json::json!(labels)));
            }
        }
    }

    /// What a source told and does not own any more.
    #[must_use]
    pub fn vanished(&self, source: SourceName, owned: &BTreeSet<ResourceKey>) -> Vec<ResourceKey> {
        self.resources
            .keys()
            .filter(|(owner, key)| *owner == source && !owned.contains(key))
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// Every source that told something.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<SourceName> {
        self.resources.keys().map(|(source, _)| *source).collect()
    }
}

fn content_of(body: &serde_json::Value) -> Content {
    let digest = Sha256::digest(body.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
