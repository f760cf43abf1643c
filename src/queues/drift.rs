//! The audit of the kernel: runs it in the background and on demand, has what a
//! write cannot mend replaced by a new generation, and tells what it found.
//!
//! Owner of the auditor: the thread `audit`, or the request that asks for a whole
//! pass now; one at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use metrics::{counter, histogram};
use parking_lot::{Mutex, RwLock};

use super::Pipeline;
use crate::clock::{Clock, Moment};
use crate::datapath::kernel::{AuditReport, Auditor, Finding, Mending};
use crate::limits::{AUDIT_PAUSE, DRIFT_MEND_WAIT, DRIFT_REMEMBERED_MAX};

const DRIFT: &str = "datapath_drift_total";
const AUDIT_DURATION: &str = "datapath_audit_duration_seconds";
const AUDIT_PIECE: &str = "datapath_audit_piece_duration_seconds";

/// A finding with its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub finding: Finding,
}

/// What the passes of this life found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DriftReport {
    pub passes: u64,
    /// Milliseconds since 1970; 0 before the first pass.
    pub last_pass_ms: u64,
    pub found: u64,
    pub repaired: u64,
    /// The last ones, oldest first.
    pub last: VecDeque<Found>,
    /// What the last pass could not mend.
    pub open: Vec<Finding>,
}

/// The auditor and what it found.
pub struct Drift {
    auditor: Mutex<Auditor>,
    pipeline: Arc<Pipeline>,
    clock: Arc<dyn Clock>,
    report: RwLock<DriftReport>,
}

impl std::fmt::Debug for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drift")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl Drift {
    #[must_use]
    pub fn new(auditor: Auditor, pipeline: Arc<Pipeline>, clock: Arc<dyn Clock>) -> Self {
        Self {
            auditor: Mutex::new(auditor),
            pipeline,
            clock,
            report: RwLock::default(),
        }
    }

    /// What was found in this life.
    #[must_use]
    pub fn report(&self) -> DriftReport {
        self.report.read().clone()
    }

    /// Audits in small pieces, with a rest of `interval` between two passes,
    /// until stopped.
    pub fn run(&self, interval: Duration, stop: &Receiver<()>) {
        let mut pause = interval;
        let mut began = None;
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let began_at = *began.get_or_insert_with(|| self.clock.now());
            let mut auditor = self.auditor.lock();
            let started = self.clock.now();
            let ended = auditor.step();
            drop(auditor);
            histogram!(AUDIT_PIECE).record(self.clock.now().since(started).as_secs_f64());
            pause = match ended {
                None => AUDIT_PAUSE,
                Some(mut report) => {
                    began = None;
                    self.settle(&mut report, began_at);
                    interval
                }
            };
        }
    }

    /// A whole pass, now; what it compared, found and mended.
    #[must_use]
    pub fn verify(&self) -> AuditReport {
        let began = self.clock.now();
        let mut auditor = self.auditor.lock();
        let mut report = auditor.pass();
        self.settle(&mut report, began);
        report
    }

    /// Has mended what is left, and tells all of it.
    fn settle(&self, report: &mut AuditReport, began: Moment) {
        let needs = |finding: &Finding| finding.mending == Mending::NeedsGeneration;
        if report.findings.iter().any(needs) {
            let mended = self.pipeline.renew(DRIFT_MEND_WAIT);
            for finding in report.findings.iter_mut().filter(|it| needs(it)) {
                finding.mending = match &mended {
                    Ok(()) => Mending::Done,
                    Err(reason) => Mending::Failed(reason.clone()),
                };
            }
        }
        let time_ms = self.clock.wall_ms();
        for finding in &report.findings {
            self.tell(finding);
        }
        histogram!(AUDIT_DURATION).record(self.clock.now().since(began).as_secs_f64());
        let mut total = self.report.write();
        total.passes += 1;
        total.last_pass_ms = time_ms;
        total.open.clear();
        for finding in &report.findings {
            total.found += finding.count;
            if finding.mending == Mending::Done {
                total.repaired += finding.count;
            } else {
                total.open.push(finding.clone());
            }
            if total.last.len() == DRIFT_REMEMBERED_MAX {
                total.last.pop_front();
            }
            let finding = finding.clone();
            total.last.push_back(Found { time_ms, finding });
        }
    }

    fn tell(&self, finding: &Finding) {
        let outcome = match &finding.mending {
            Mending::Done => "repaired",
            Mending::NeedsGeneration | Mending::Failed(_) => "failed",
        };
        let kind = finding.part.as_str();
        counter!(DRIFT, "kind" => kind, "outcome" => outcome).increment(finding.count);
        tracing::warn!(kind, outcome, "drift: {}", line(finding));
        self.pipeline.tell_drift(kind, &line(finding));
    }
}

/// A finding in words.
#[must_use]
pub fn line(finding: &Finding) -> String {
    let count = match finding.count {
        1 => String::new(),
        more => format!(" ({more} differed)"),
    };
    let outcome = match &finding.mending {
        Mending::Done => "repaired".to_owned(),
        Mending::NeedsGeneration => "not repaired yet".to_owned(),
        Mending::Failed(reason) => format!("NOT REPAIRED: {reason}"),
    };
    format!("{}{count}; {outcome}", finding.what)
}
