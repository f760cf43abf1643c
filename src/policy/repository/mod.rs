//! The repository: all resources of this node, one revision per change.
//!
//! Owner: the thread of the RepositoryChangeQueue. Invariant: the same changes
//! in the same order give the same revision, numbers and snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::language::FieldError;
use super::{PolicyOptions, PolicySnapshot, Subject};
use crate::events::{
    Origin, RegenerationCause, RepositoryChange, ResourceKey, Revision, SourceName,
};

/// What a change did.
#[derive(Clone, PartialEq, Debug)]
pub enum Applied {
    /// Nothing that matters changed: no new revision.
    Unchanged,
    /// The change is invalid: what was in force stays in force.
    Refused(Refusal),
    /// One new revision.
    Changed(Change),
}

/// A refused version of a resource.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub key: ResourceKey,
    pub source: SourceName,
    pub origin: Origin,
    pub errors: Vec<FieldError>,
    /// Whether an earlier, valid version stays in force.
    pub in_force: bool,
}

/// An applied change.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub revision: Revision,
    pub affected: Affected,
    pub causes: BTreeSet<RegenerationCause>,
    pub warnings: Vec<FieldError>,
}

/// Which endpoints must regenerate; the others get their revision bumped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affected {
    /// The host endpoint.
    pub host: bool,
}

impl Affected {
    /// Whether the endpoint behind `subject` must regenerate.
    #[must_use]
    pub fn contains(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Host(_) => self.host,
        }
    }
}

/// The repository as the journal's snapshot holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Layout of this record.
    pub version: u32,
    pub revision: Revision,
}

/// All resources, and what follows from them.
#[derive(Clone, Debug)]
pub struct Repository {
    options: Arc<PolicyOptions>,
    revision: Revision,
}

impl Repository {
    /// An empty repository, at revision 1.
    #[must_use]
    pub fn new(options: PolicyOptions) -> Self {
        Self {
            options: Arc::new(options),
            revision: Revision(1),
        }
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Applies one change: one revision if anything that matters changed.
    pub fn apply(&mut self, change: &RepositoryChange) -> Applied {
        let _ = change;
        Applied::Unchanged
    }

    /// The current state, immutable.
    #[must_use]
    pub fn snapshot(&self) -> Arc<PolicySnapshot> {
        Arc::new(PolicySnapshot {
            revision: self.revision,
            options: Arc::clone(&self.options),
            host_labels: Arc::default(),
            identities: Arc::default(),
            ipcache4: Arc::default(),
            ipcache6: Arc::default(),
            rules: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// The whole state, for the journal's snapshot.
    #[must_use]
    pub fn export(&self) -> RepositoryRecord {
        RepositoryRecord {
            version: 1,
            revision: self.revision,
        }
    }

    /// The repository of a record. `options` are those of the running agent,
    /// except for `node_labels`, which are those of the record.
    pub fn import(
        record: RepositoryRecord,
        options: PolicyOptions,
    ) -> Result<Self, RepositoryImportError> {
        if record.version != 1 {
            return Err(RepositoryImportError::Version(record.version));
        }
        Ok(Self {
            options: Arc::new(options),
            revision: record.revision,
        })
    }
}

/// Why a record could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryImportError {
    #[error("the snapshot has layout {0}, this version of palisade knows layout 1")]
    Version(u32),
}
