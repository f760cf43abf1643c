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
    resources: BTreeMap<ResourceKey, BTreeMap<SourceName, Content>>,
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
        let mut known = Self {
            resources: BTreeMap::new(),
            local_addresses: record.local_addresses,
            node_labels: record.node_labels,
        };
        for (source, key, content) in record.resources {
            known.put(source, key, content);
        }
        known
    }
}

impl From<Known> for KnownRecord {
    fn from(known: Known) -> Self {
        let resources = known.resources.into_iter().flat_map(|(key, told)| {
            let told = told.into_iter();
            told.map(move |(source, content)| (source, key.clone(), content))
        });
        Self {
            resources: resources.collect(),
            local_addresses: known.local_addresses,
            node_labels: known.node_labels,
        }
    }
}

impl Known {
    fn put(&mut self, source: SourceName, key: ResourceKey, content: Content) {
        self.resources
            .entry(key)
            .or_default()
            .insert(source, content);
    }

    fn content(&self, source: SourceName, key: &ResourceKey) -> Option<&Content> {
        self.resources.get(key)?.get(&source)
    }

    /// Whether the change says anything new.
    #[must_use]
    pub fn would_change(&self, change: &RepositoryChange) -> bool {
        match change {
            RepositoryChange::Upsert(resource) => {
                let known = self.content(resource.source, &resource.key);
                known != Some(&content_of(resource.body.text()))
            }
            RepositoryChange::Delete { key, source } => self.content(*source, key).is_some(),
            RepositoryChange::LocalAddresses(addresses) => {
                self.local_addresses.as_ref()
                    != Some(&content_of(&serde_json::json!(addresses).to_string()))
            }
            RepositoryChange::NodeLabels(labels) => {
                self.node_labels.as_ref()
                    != Some(&content_of(&serde_json::json!(labels).to_string()))
            }
        }
    }

    /// Notes a change.
    pub fn note(&mut self, change: &RepositoryChange) {
        match change {
            RepositoryChange::Upsert(resource) => {
                let content = content_of(resource.body.text());
                self.put(resource.source, resource.key.clone(), content);
            }
            RepositoryChange::Delete { key, source } => {
                let Some(told) = self.resources.get_mut(key) else {
                    return;
                };
                told.remove(source);
                // The key may be free now: what another source told about it
                // before, while it did not own it, would be news.
                told.values_mut().for_each(String::clear);
                if told.is_empty() {
                    self.resources.remove(key);
                }
            }
            RepositoryChange::LocalAddresses(addresses) => {
                self.local_addresses = Some(content_of(&serde_json::json!(addresses).to_string()));
            }
            RepositoryChange::NodeLabels(labels) => {
                self.node_labels = Some(content_of(&serde_json::json!(labels).to_string()));
            }
        }
    }

    /// What a source told and does not own any more.
    #[must_use]
    pub fn vanished(&self, source: SourceName, owned: &BTreeSet<ResourceKey>) -> Vec<ResourceKey> {
        self.resources
            .iter()
            .filter(|(key, told)| told.contains_key(&source) && !owned.contains(key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Every source that told something.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<SourceName> {
        let told = self.resources.values().flat_map(BTreeMap::keys);
        told.copied().collect()
    }
}

pub(super) fn content_of(text: &str) -> Content {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
