//! One endpoint: its state, what it shall have, what it has, and its builds.
//!
//! Shared by its worker, the committer and readers, behind one lock that is
//! held for moments only. Invariants: at most one build in flight and one
//! pending; causes are never lost; `realized` is what the committer told last.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::meters;
use super::signal::Signal;
use super::state::step;
use super::status::{
    AuditSetting, EndpointKind, EndpointPolicyStatus, EndpointRevisions, EndpointStatus, LogEntry,
    NodeFacts,
};
use crate::clock::{Clock, Moment};
use crate::events::{
    EndpointId, EndpointRegenerationEvent, EndpointState, EndpointTrigger, RegenerationCause,
    Revision,
};
use crate::identity::{LabelSet, Reserved};
use crate::limits::{ENDPOINT_LOG_MAX, REGENERATION_RETRY_FIRST, REGENERATION_RETRY_MAX};
use crate::policy::Subject;

/// What an endpoint's worker shall do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Fetch, compute and hand over.
    Build(EndpointRegenerationEvent),
    /// The verdicts hold for this revision as well: hand that over.
    Bump(Revision),
}

/// An endpoint of this node.
pub struct Endpoint {
    subject: Subject,
    clock: Arc<dyn Clock>,
    /// Wakes the endpoint's worker.
    wake: Arc<Signal>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    labels: Arc<LabelSet>,
    facts: NodeFacts,
    state: EndpointState,
    log: VecDeque<LogEntry>,
    policy: EndpointPolicyStatus,
    revision: EndpointRevisions,
    pending: Option<EndpointRegenerationEvent>,
    bump: Option<Revision>,
    in_flight: Option<InFlight>,
    failures: u32,
    retry_at: Option<Moment>,
    error: Option<String>,
}

#[derive(Debug)]
struct InFlight {
    work: Work,
    started: Moment,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("subject", &self.subject)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The host endpoint. `restored`: an earlier life of the agent knew it.
    pub fn host(
        id: EndpointId,
        restored: bool,
        facts: NodeFacts,
        clock: Arc<dyn Clock>,
        wake: Arc<Signal>,
    ) -> Self {
        let state = if restored {
            EndpointState::Restoring
        } else {
            EndpointState::WaitingForIdentity
        };
        let endpoint = Self {
            subject: Subject::Host(id),
            clock,
            wake,
            inner: Mutex::new(Inner {
                labels: Arc::default(),
                facts,
                state,
                log: VecDeque::new(),
                policy: EndpointPolicyStatus::default(),
                revision: EndpointRevisions::default(),
                pending: None,
                bump: None,
                in_flight: None,
                failures: 0,
                retry_at: None,
                error: None,
            }),
        };
        let mut inner = endpoint.inner.lock();
        if restored {
            endpoint.log(&mut inner, "restored from the last run");
        } else {
            endpoint.log(&mut inner, "created");
            // The host's identity is fixed: nobody has to assign it.
            endpoint.trigger(
                &mut inner,
                EndpointTrigger::IdentityAssigned,
                "identity 1 assigned",
            );
        }
        drop(inner);
        endpoint
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.subject.endpoint()
    }

    /// What its policy is resolved for.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The signal of its worker.
    #[must_use]
    pub fn wake(&self) -> &Arc<Signal> {
        &self.wake
    }

    /// An event of its queue: legal in every state; merged with what waits.
    pub fn request(&self, event: EndpointRegenerationEvent) {
        let mut inner = self.inner.lock();
        inner.revision.desired = inner.revision.desired.max(event.revision);
        let message = format!(
            "regeneration requested for revision {}: {}",
            event.revision,
            words(&event.causes)
        );
        // News may cure what made the last build fail: try at once.
        inner.retry_at = None;
        match &mut inner.pending {
            Some(pending) => pending.merge(event),
            None => inner.pending = Some(event),
        }
        self.trigger(&mut inner, EndpointTrigger::RegenerationRequested, &message);
        drop(inner);
        self.wake.raise();
    }

    /// The verdicts hold for `revision` as well.
    pub fn bump(&self, revision: Revision) {
        let mut inner = self.inner.lock();
        inner.revision.desired = inner.revision.desired.max(revision);
        match &mut inner.pending {
            Some(pending) => pending.revision = pending.revision.max(revision),
            None => inner.bump = inner.bump.max(Some(revision)),
        }
        drop(inner);
        self.wake.raise();
    }

    /// A bump that came too late to be right.
    pub fn forget_bump(&self, revision: Revision) {
        let mut inner = self.inner.lock();
        inner.bump = inner.bump.filter(|bump| *bump > revision);
    }

    /// What its worker shall do now. None while a build is in flight.
    #[must_use]
    pub fn next_work(&self, now: Moment) -> Option<Work> {
        let inner = self.inner.lock();
        if inner.in_flight.is_some() {
            return None;
        }
        if let Some(pending) = &inner.pending {
            let due = inner.retry_at.is_none_or(|at| at <= now);
            return due.then(|| Work::Build(pending.clone()));
        }
        inner.bump.map(Work::Bump)
    }

    /// When a failed build is tried again.
    #[must_use]
    pub fn retry_at(&self) -> Option<Moment> {
        let inner = self.inner.lock();
        inner.retry_at.filter(|_| inner.in_flight.is_none())
    }

    /// The worker begins what `next_work` gave; illegal while one is in flight.
    pub fn started(&self, work: Work) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        debug_assert!(inner.in_flight.is_none(), "one build in flight");
        match &work {
            Work::Build(event) => {
                inner.pending = None;
                inner.bump = None;
                let message = format!("building revision {}", event.revision);
                self.trigger(&mut inner, EndpointTrigger::BuildStarted, &message);
            }
            Work::Bump(_) => inner.bump = None,
        }
        inner.in_flight = Some(InFlight { work, started: now });
    }

    /// What is in flight is enforced. Returns how long it took.
    pub fn realized(
        &self,
        revision: Revision,
        policy: EndpointPolicyStatus,
        labels: Arc<LabelSet>,
        message: &str,
    ) -> Duration {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        inner.revision.realized = revision;
        inner.revision.desired = inner.revision.desired.max(revision);
        inner.policy = policy;
        inner.labels = labels;
        inner.failures = 0;
        inner.retry_at = None;
        inner.error = None;
        inner.bump = inner.bump.filter(|bump| *bump > revision);
        let flight = inner.in_flight.take();
        let span = flight
            .as_ref()
            .map_or(Duration::ZERO, |flight| now.since(flight.started));
        match flight.map(|flight| flight.work) {
            Some(Work::Build(event)) => {
                meters::regeneration(event.causes.into_iter(), true);
                self.trigger(&mut inner, EndpointTrigger::BuildSucceeded, message);
            }
            Some(Work::Bump(_)) | None => self.log(&mut inner, message),
        }
        drop(inner);
        self.wake.raise();
        span
    }

    /// What is in flight failed: the old verdicts stand, and it is tried again
    /// after a pause that doubles.
    pub fn failed(&self, error: &str) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        inner.error = Some(error.to_owned());
        let pause = retry_pause(inner.failures);
        inner.failures = inner.failures.saturating_add(1);
        inner.retry_at = Some(now.after(pause));
        let message = format!("failed, trying again in {} s: {error}", pause.as_secs());
        let work = inner.in_flight.take().map(|flight| flight.work);
        let mut again = match work {
            Some(Work::Build(event)) => event,
            Some(Work::Bump(revision)) => self.event(revision),
            None => self.event(inner.revision.desired),
        };
        meters::regeneration(again.causes.iter().copied(), false);
        again.causes.insert(RegenerationCause::RegenerationFailed);
        match inner.pending.take() {
            // A newer request waits already: it need not wait for the pause.
            Some(pending) => {
                again.merge(pending);
                inner.retry_at = None;
            }
            None if inner.state == EndpointState::Ready => {
                self.trigger(
                    &mut inner,
                    EndpointTrigger::RegenerationRequested,
                    "regeneration requested: regeneration-failed",
                );
            }
            None => {}
        }
        inner.pending = Some(again);
        match step(inner.state, EndpointTrigger::BuildFailed) {
            Ok(_) => self.trigger(&mut inner, EndpointTrigger::BuildFailed, &message),
            Err(_) => self.log(&mut inner, &message),
        }
        drop(inner);
        self.wake.raise();
    }

    fn event(&self, revision: Revision) -> EndpointRegenerationEvent {
        EndpointRegenerationEvent {
            endpoint: self.id(),
            revision,
            causes: BTreeSet::new(),
        }
    }

    /// What the datapath has been found to enforce at the agent's start.
    pub fn adopt(&self, revision: Revision, policy: EndpointPolicyStatus) {
        let mut inner = self.inner.lock();
        inner.revision.realized = revision;
        inner.revision.desired = inner.revision.desired.max(revision);
        inner.policy = policy;
        let message = format!("the datapath enforces revision {revision} from the last run");
        self.log(&mut inner, &message);
    }

    /// The repository has this revision for the endpoint.
    pub fn desire(&self, revision: Revision) {
        let mut inner = self.inner.lock();
        inner.revision.desired = inner.revision.desired.max(revision);
    }

    /// New labels.
    pub fn set_labels(&self, labels: Arc<LabelSet>) {
        self.inner.lock().labels = labels;
    }

    /// New addresses or devices.
    pub fn set_facts(&self, facts: NodeFacts) {
        self.inner.lock().facts = facts;
    }

    /// Revisions, without the rest of the status.
    #[must_use]
    pub fn revisions(&self) -> EndpointRevisions {
        self.inner.lock().revision
    }

    /// Enforcement by direction, as the datapath has it.
    #[must_use]
    pub fn policy(&self) -> EndpointPolicyStatus {
        self.inner.lock().policy
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> EndpointState {
        self.inner.lock().state
    }

    /// All that can be said about it.
    #[must_use]
    pub fn status(&self, audit: AuditSetting, audit_effective: bool) -> EndpointStatus {
        let inner = self.inner.lock();
        EndpointStatus {
            id: self.id(),
            kind: EndpointKind::Host,
            identity: Reserved::Host.number(),
            labels: LabelSet::clone(&inner.labels),
            policy: inner.policy,
            ipv4: inner.facts.ipv4,
            ipv6: inner.facts.ipv6,
            devices: inner.facts.devices.clone(),
            state: inner.state,
            revision: inner.revision,
            audit,
            audit_effective,
            error: inner.error.clone(),
            log: inner.log.iter().cloned().collect(),
        }
    }

    fn trigger(&self, inner: &mut Inner, trigger: EndpointTrigger, message: &str) {
        match step(inner.state, trigger) {
            Ok(state) => {
                inner.state = state;
                self.log(inner, message);
            }
            Err(refused) => tracing::debug!(endpoint = %self.id(), "{refused}"),
        }
    }

    fn log(&self, inner: &mut Inner, message: &str) {
        if inner.log.len() == ENDPOINT_LOG_MAX {
            inner.log.pop_front();
        }
        inner.log.push_back(LogEntry {
            time_ms: self.clock.wall_ms(),
            state: inner.state,
            failed: inner.error.is_some(),
            message: message.to_owned(),
        });
    }
}

/// 2 s, then twice as long each time, up to 2 min.
fn retry_pause(failures: u32) -> Duration {
    REGENERATION_RETRY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(REGENERATION_RETRY_MAX)
}

fn words(causes: &BTreeSet<RegenerationCause>) -> String {
    let words: Vec<&str> = causes.iter().map(|cause| cause.as_str()).collect();
    words.join(", ")
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
