//! What each source says about itself. Written by the source's thread, read by
//! the API and the metrics.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::events::SourceName;

/// Something a source could not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceProblem {
    /// File, directory or device, with the line where one is known.
    pub subject: String,
    pub message: String,
}

/// The state of one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceReport {
    pub in_sync: bool,
    pub resources: usize,
    /// Where it reads from.
    pub detail: String,
    pub problems: Vec<SourceProblem>,
}

/// The state of every source.
#[derive(Debug, Default)]
pub struct SourceBoard {
    reports: RwLock<BTreeMap<SourceName, SourceReport>>,
}

impl SourceBoard {
    /// Replaces the report of a source.
    pub fn post(&self, source: SourceName, report: SourceReport) {
        self.reports.write().insert(source, report);
    }
    /// All reports.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<SourceName, SourceReport> {
        self.reports.read().clone()
    }
}
