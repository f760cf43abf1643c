//! What only an operator brought, kept once more beside the journal: should that be
//! lost, no source tells it again.

use std::sync::Arc;

use palisade_state::{Copies, Store, StoreError};

use super::known::{Known, content_of};
use crate::events::{RepositoryChange, Resource, ResourceKey, SourceName};
use crate::policy::PolicySnapshot;

/// The copies, which follow the repository. Owner: its worker.
#[derive(Debug)]
pub(super) struct Imports {
    /// Not yet written.
    changed: Copies,
    /// Some could not be written: then all are compared.
    is_behind: bool,
}

impl Imports {
    /// Makes the copies those of a restored repository, with the first write.
    pub(super) fn behind() -> Self {
        Self {
            changed: Copies::new(),
            is_behind: true,
        }
    }

    /// Notes a change that was applied.
    pub(super) fn note(&mut self, change: &RepositoryChange) {
        if change.source() != SourceName::Api {
            return;
        }
        match change {
            RepositoryChange::Upsert(resource) => match serde_json::to_vec(resource) {
                Ok(bytes) => {
                    self.changed.insert(name(&resource.key), Some(bytes));
                }
                Err(_) => self.is_behind = true,
            },
            RepositoryChange::Delete { key, .. } => {
                self.changed.insert(name(key), None);
            }
            RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => {}
        }
    }

    /// Writes what was noted; what it fails at is tried again with the next change.
    pub(super) fn write(&mut self, store: &Store, snapshot: impl Fn() -> Arc<PolicySnapshot>) {
        let changed = std::mem::take(&mut self.changed);
        let written = if self.is_behind {
            unlike(store, &snapshot()).and_then(|copies| store.put_imports(&copies))
        } else {
            store.put_imports(&changed)
        };
        self.is_behind = written.is_err();
        if let Err(error) = written {
            tracing::warn!("what was imported is kept in the journal alone: {error}");
        }
    }
}

/// What was imported and a journal that was lost does not know; and what of it
/// cannot be read.
pub(super) fn lost(
    store: &Store,
    known: &Known,
) -> Result<(Vec<RepositoryChange>, Vec<String>), StoreError> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for (name, bytes) in store.imports()? {
        match serde_json::from_slice(&bytes).map(RepositoryChange::Upsert) {
            Ok(change) if known.would_change(&change) => found.push(change),
            Ok(_) => {}
            Err(error) => unreadable.push(format!("imports/{name}.json: {error}")),
        }
    }
    Ok((found, unreadable))
}

/// What makes the copies those of a repository.
fn unlike(store: &Store, snapshot: &PolicySnapshot) -> Result<Copies, StoreError> {
    let mut found = store.imports()?;
    let mut copies = Copies::new();
    let policies = snapshot.policies.values().map(|policy| &policy.resource);
    let objects = snapshot.objects.values().map(|object| &object.resource);
    let imported = |resource: &&Arc<Resource>| resource.source == SourceName::Api;
    for resource in policies.chain(objects).filter(imported) {
        let (name, bytes) = (name(&resource.key), serde_json::to_vec(&**resource)?);
        if found.remove(&name).as_ref() != Some(&bytes) {
            copies.insert(name, Some(bytes));
        }
    }
    copies.extend(found.into_keys().map(|name| (name, None)));
    Ok(copies)
}

/// A name for a file, whatever the resource is called.
fn name(key: &ResourceKey) -> String {
    content_of(&key.to_string())
}
