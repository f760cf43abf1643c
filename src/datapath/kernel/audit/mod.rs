//! The audit: what the kernel holds against what it should hold, mended where
//! they differ.
//!
//! In reading order: this file (what a finding is), `part`, `guarded` (the datapath as
//! the committer and the auditor share it), `trust` (what is remembered of the
//! last commit), `compare` (one part after the other), `auditor` (a pass in
//! bounded pieces, so that no commit waits for long).
//!
//! A repair never opens anything in between: it writes the right value where
//! one write is enough, and else asks for a new generation, which is staged in
//! the other slot and flipped. Whatever was judged meanwhile is judged again.

mod auditor;
mod compare;
mod guarded;
mod part;
mod trust;

use std::collections::BTreeMap;

pub use auditor::Auditor;
pub use guarded::Guarded;
pub use part::Part;
pub(crate) use trust::Trust;

use crate::limits::AUDIT_FINDINGS_MAX;

/// What became of a finding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mending {
    Done,
    /// The current slot is wrong: a new generation must take its place.
    NeedsGeneration,
    /// Why it could not be mended.
    Failed(String),
}

/// Something that was not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub part: Part,
    /// Elements that differed.
    pub count: u64,
    /// For the operator: where, and what was found.
    pub what: String,
    pub mending: Mending,
}

impl Finding {
    pub(crate) fn new(part: Part, what: impl Into<String>, mending: Mending) -> Self {
        Self {
            part,
            count: 1,
            what: what.into(),
            mending,
        }
    }
}

/// What one pass compared and found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    /// Elements compared. A part that is not listed could not be compared yet.
    pub compared: BTreeMap<Part, u64>,
    pub findings: Vec<Finding>,
}

impl AuditReport {
    pub(crate) fn compared(&mut self, part: Part, count: usize) {
        *self.compared.entry(part).or_default() += count as u64;
    }

    /// Several elements of one part are one finding: the first is named.
    pub(crate) fn found(&mut self, finding: Finding) {
        let is_alike = |it: &&mut Finding| it.part == finding.part && it.mending == finding.mending;
        if let Some(same) = self.findings.iter_mut().find(is_alike) {
            same.count += finding.count;
        } else if self.findings.len() < AUDIT_FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}
