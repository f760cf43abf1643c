//! One pass over everything, in pieces that each take about a millisecond, so
//! that a commit never waits for longer than that. Owner: whoever holds it, one
//! at a time.

use super::compare::Piece;
use super::{AuditReport, Guarded};
use crate::datapath::kernel::Attachments;

/// Compares and mends.
#[derive(Debug)]
pub struct Auditor {
    datapath: Guarded,
    attachments: Attachments,
    next: Option<Piece>,
    report: AuditReport,
}

impl Auditor {
    #[must_use]
    pub fn new(datapath: &Guarded) -> Self {
        let attachments = datapath.lock().attachments();
        Self {
            datapath: datapath.clone(),
            attachments,
            next: None,
            report: AuditReport::default(),
        }
    }

    /// Compares the next piece. The report at the end of a pass; the next call
    /// begins another one.
    pub fn step(&mut self) -> Option<AuditReport> {
        let piece = self.next.take().unwrap_or(Piece::FIRST);
        self.next = match piece {
            // Not under the datapath's lock: it has one of its own.
            Piece::Devices => {
                self.attachments.audit(&mut self.report);
                None
            }
            of_maps => Some(self.datapath.lock().audit(of_maps, &mut self.report)),
        };
        match self.next {
            Some(_) => None,
            None => Some(std::mem::take(&mut self.report)),
        }
    }

    /// A whole pass, from its beginning.
    pub fn pass(&mut self) -> AuditReport {
        self.next = None;
        // What half a pass has found is not forgotten.
        let before = std::mem::take(&mut self.report).findings;
        loop {
            if let Some(mut report) = self.step() {
                before.into_iter().for_each(|finding| report.found(finding));
                return report;
            }
        }
    }
}

impl Piece {
    const FIRST: Self = Self::Word;
}
