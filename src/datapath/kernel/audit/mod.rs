//! The audit: what the kernel holds against what it should hold, mended where
//! they differ.
//!
//! In reading order: this file (what a finding is), `guarded` (the datapath as
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
mod trust;

use std::collections::BTreeMap;

pub use auditor::Auditor;
pub use guarded::Guarded;
pub(crate) use trust::Trust;

use crate::limits::AUDIT_FINDINGS_MAX;

/// What is compared, part by part: the kinds of drift.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The commit word: slot, enforced directions, generation.
    CommitWord,
    /// What user space noted about the slot.
    SlotRecord,
    /// The tail-call entries of the slot.
    ProgramArray,
    Settings,
    Vlans,
    Failsafe,
    /// Rows and columns of the verdict tables.
    RowsAndColumns,
    /// Blocks of the verdict tables.
    Blocks,
    IpcacheV4,
    IpcacheV6,
    /// The file system of the pins.
    BpfFileSystem,
    Pin,
    /// Our program is on each device that it was put on.
    Attachment,
    /// Our program runs first on ingress, last on egress.
    Order,
}

impl Part {
    pub const ALL: [Self; 14] = [
        Self::CommitWord,
        Self::SlotRecord,
        Self::ProgramArray,
        Self::Settings,
        Self::Vlans,
        Self::Failsafe,
        Self::RowsAndColumns,
        Self::Blocks,
        Self::IpcacheV4,
        Self::IpcacheV6,
        Self::BpfFileSystem,
        Self::Pin,
        Self::Attachment,
        Self::Order,
    ];

    /// Label value in metrics, name in `status --verify`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommitWord => "commit-word",
            Self::SlotRecord => "slot-record",
            Self::ProgramArray => "program-array",
            Self::Settings => "settings",
            Self::Vlans => "vlans",
            Self::Failsafe => "failsafe",
            Self::RowsAndColumns => "rows-and-columns",
            Self::Blocks => "blocks",
            Self::IpcacheV4 => "ipcache-ipv4",
            Self::IpcacheV6 => "ipcache-ipv6",
            Self::BpfFileSystem => "bpf-file-system",
            Self::Pin => "pin",
            Self::Attachment => "attachment",
            Self::Order => "order",
        }
    }
}

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
