//! What the repository tells of a change, and how it is kept in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::numbers::RuleNumbersRecord;
use crate::events::{Origin, RegenerationCause, Resource, ResourceKey, Revision, SourceName};
use crate::identity::AllocatorRecord;
use crate::policy::language::{FieldError, Policy};
use crate::policy::objects::Object;
use crate::policy::{RuleNumber, Subject};

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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub key: ResourceKey,
    pub source: SourceName,
    pub origin: Origin,
    pub errors: Vec<FieldError>,
    /// Whether an earlier, valid version stays in force.
    pub in_force: bool,
    /// The other source that the resource belongs to; None where the version
    /// itself is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SourceName>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Origin { file, line, .. } = &self.origin;
        if !file.is_empty() {
            write!(f, "{file}:{line}: ")?;
        }
        let stays = if self.in_force {
            "refused, its last valid version stays in force"
        } else {
            "refused, nothing of it is in force"
        };
        write!(f, "{}: {stays}", self.key)?;
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
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

/// A valid policy in force.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredPolicy {
    /// As its source gave it.
    pub resource: Arc<Resource>,
    pub policy: Policy,
    pub warnings: Vec<FieldError>,
    /// Whether one of its rules selects the host endpoint of this node.
    pub selects_host: bool,
    /// The numbers of its items, by rule and item; 0 where the rule selects no
    /// local endpoint.
    pub numbers: Vec<Vec<RuleNumber>>,
}

/// A valid context object.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredObject {
    /// As its source gave it.
    pub resource: Arc<Resource>,
    pub object: Object,
}

/// The repository as the journal's snapshot holds it. Resources are kept as
/// written and read again: the parsed form is not a format.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Layout of this record.
    pub version: u32,
    pub revision: Revision,
    pub policies: Vec<Resource>,
    /// Layout 1 has only nodes here.
    #[serde(alias = "nodes")]
    pub objects: Vec<Resource>,
    pub local_addresses: Vec<IpAddr>,
    pub node_labels: BTreeMap<String, String>,
    pub refused: Vec<Refusal>,
    pub rule_numbers: RuleNumbersRecord,
    pub identities: AllocatorRecord,
}

/// Why a record could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryImportError {
    #[error("the snapshot has layout {found}, this version of palisade knows layout {known}")]
    Version { found: u32, known: u32 },
}
