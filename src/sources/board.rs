//! What each source says about itself. Written by the source's thread, read by
//! the API and the metrics.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::events::{ResourceKey, ResourceKind, SourceName};
use crate::policy::documents::Positions;
use crate::policy::language::FieldError;

/// Something a source could not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceProblem {
    /// File, directory or device, with the line where one is known.
    pub subject: String,
    pub message: String,
}

/// How far a source is with one kind of objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KindReport {
    pub kind: ResourceKind,
    pub in_sync: bool,
    pub resources: usize,
    /// Why it is not in sync, or why there is nothing.
    pub detail: String,
}

/// The state of one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceReport {
    pub in_sync: bool,
    pub resources: usize,
    /// Where it reads from.
    pub detail: String,
    pub problems: Vec<SourceProblem>,
    /// What it leaves out on purpose.
    pub notes: Vec<SourceProblem>,
    /// Each kind, where the source hears them one by one.
    pub kinds: Vec<KindReport>,
}

/// The state of every source.
#[derive(Debug, Default)]
pub struct SourceBoard {
    reports: RwLock<BTreeMap<SourceName, SourceReport>>,
    positions: RwLock<BTreeMap<ResourceKey, Positions>>,
}

impl SourceBoard {
    /// Replaces the report of a source.
    pub fn post(&self, source: SourceName, report: SourceReport) {
        self.reports.write().insert(source, report);
    }
    /// Remembers where the fields of a resource's newest version stand.
    pub fn place(&self, key: &ResourceKey, positions: Positions) {
        self.positions.write().insert(key.clone(), positions);
    }
    /// Forgets a resource.
    pub fn forget(&self, key: &ResourceKey) {
        self.positions.write().remove(key);
    }
    /// Fills in line and column of errors about a resource, where known.
    pub fn locate(&self, key: &ResourceKey, errors: &mut [FieldError]) {
        let positions = self.positions.read().get(key).cloned();
        if let Some(positions) = positions {
            positions.locate(errors);
        }
    }
    /// All reports.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<SourceName, SourceReport> {
        self.reports.read().clone()
    }
}
