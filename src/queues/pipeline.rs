//! The facade of the pipeline: what sources, API, metrics and daemon call.
//!
//! Any thread may call it. The workers behind it run on threads that
//! `daemon::threads` starts from [`Pipeline::workers`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade_state::{Store, StoreError};
use parking_lot::Mutex;
use serde::Serialize;

use super::QueueStats;
use super::event_queue::EnqueueError;
use super::intake::Intake;
use super::outcome::{Submission, SubmitError};
use super::past::{PastError, rebuild};
use super::shared::{EndpointEvent, Shared};
use super::start::start;
use super::workers::{Worker, Workers};
use crate::clock::Clock;
use crate::datapath::{Datapath, DatapathSettings, GenerationNumber, Realized};
use crate::endpoint::{AuditSetting, EndpointStatus, GenerationNames, LogEntry, NodeFacts};
use crate::events::{
    EndpointId, EndpointRegenerationEvent, HistoryEntry, RegenerationCause, RepositoryChange,
    ResourceKey, Revision, Sequence, SourceName,
};
use crate::limits::PAST_TURN_WAIT;
use crate::policy::{PolicyOptions, PolicySnapshot, Refusal};

/// What the pipeline is started with.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Sources that must say `in sync` before anything is deleted or, on a node
    /// that enforces what the store holds, regenerated.
    pub sources: BTreeSet<SourceName>,
    /// Options of the repository. `audit` counts for every endpoint that has
    /// no setting of its own.
    pub policy: PolicyOptions,
    /// Settings that each generation carries.
    pub settings: DatapathSettings,
    /// Builds that may run at once: max(2, CPUs).
    pub build_permits: usize,
    /// Addresses and devices as known at start.
    pub facts: NodeFacts,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// The pipeline's own health, for `status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct PipelineStatus {
    /// Sources that have not said `in sync`.
    pub waiting_for: Vec<SourceName>,
    /// Policy options of this start wait for them.
    pub options_wait: bool,
    /// Why the agent runs without history; None when the store is fine.
    pub store_problem: Option<String>,
    /// Whether what is accepted is written to the disk.
    pub has_history: bool,
    /// Writes and flushes of the store that failed.
    pub store_failures: u64,
    /// Why the last generation was refused; None after a success.
    pub datapath_problem: Option<String>,
    /// The agent's audit mode: flag or runtime setting.
    pub audit: bool,
    /// Last sequence that is on the disk.
    pub journal: Sequence,
    /// Newest revision of the repository.
    pub revision: Revision,
}

/// The running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    intake: Intake,
    workers: Mutex<Option<Workers>>,
    /// Held by the one that rebuilds an old revision.
    past_turn: Mutex<()>,
    stopping: Arc<AtomicBool>,
}

impl Pipeline {
    /// Restores the repository from the store and gets everything ready; the
    /// loops of [`Self::workers`] then do the work.
    #[must_use]
    pub fn start(
        options: PipelineOptions,
        datapath: Box<dyn Datapath>,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let configured = options.sources.clone();
        let (shared, known, workers) = start(options, datapath, store, clock);
        Arc::new(Self {
            intake: Intake::new(Arc::clone(&shared), known, configured),
            shared,
            workers: Mutex::new(Some(workers)),
            past_turn: Mutex::new(()),
            stopping: Arc::default(),
        })
    }

    /// The loops to run, each on a thread of its own. They end after
    /// [`Self::shutdown`]. The second call gives none.
    #[must_use]
    pub fn workers(self: Arc<Self>) -> Vec<Worker> {
        self.take_workers().map_or_else(Vec::new, |workers| {
            workers.into_loops(&self.shared, &self.stopping)
        })
    }

    /// The workers themselves, to be stepped by a simulation.
    #[must_use]
    pub fn take_workers(&self) -> Option<Workers> {
        self.workers.lock().take()
    }

    /// Journals the change and puts it into the RepositoryChangeQueue; waits
    /// while that is full. Wait on the submission for durability and outcome.
    pub fn submit(&self, change: RepositoryChange) -> Result<Submission, SubmitError> {
        if change.source() == SourceName::Api {
            self.must_last()?;
        }
        let revision = self.repository().revision;
        let (sequence, ticket) = self.intake.submit(change)?.unzip();
        Ok(Submission {
            sequence,
            ticket,
            revision,
        })
    }

    /// Whether what is done now is on the disk when it is told as done.
    #[must_use]
    pub fn has_history(&self) -> bool {
        !self.shared.store.is_forgetful()
    }

    /// Whether an event of the journal is on the disk.
    #[must_use]
    pub fn lasts(&self, sequence: Sequence) -> bool {
        sequence.0 <= self.shared.store.durable()
    }

    /// A source has told everything it holds: `owned`. What it owned in an
    /// earlier life of the agent and holds no more is deleted.
    pub fn source_in_sync(
        &self,
        source: SourceName,
        owned: &BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        self.intake.in_sync(source, owned)
    }

    /// All endpoints, by id.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let ids = self.shared.endpoints.iter().map(|endpoint| endpoint.id());
        ids.filter_map(|id| self.endpoint(id)).collect()
    }

    /// One endpoint, with its log.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointStatus> {
        let endpoint = self.shared.endpoints.get(id)?;
        let audit = &self.shared.audit;
        Some(endpoint.status(audit.setting(id), audit.effective(id)))
    }

    /// The last transitions of an endpoint, oldest first.
    #[must_use]
    pub fn endpoint_log(&self, id: EndpointId) -> Option<Vec<LogEntry>> {
        self.endpoint(id).map(|status| status.log)
    }

    /// Sets `PolicyAuditMode` of an endpoint, durably, and regenerates it.
    /// False if there is no such endpoint.
    pub fn set_audit(&self, id: EndpointId, setting: AuditSetting) -> Result<bool, SubmitError> {
        if self.shared.endpoints.get(id).is_none() {
            return Ok(false);
        }
        self.change_audit(Some(id), setting)?;
        self.shared.snapshots.write().release();
        self.ask(id, RegenerationCause::ConfigChanged)
    }

    /// Sets the agent's audit mode, durably, and regenerates.
    pub fn set_global_audit(&self, audit: bool) -> Result<(), SubmitError> {
        let setting = if audit {
            AuditSetting::Enabled
        } else {
            AuditSetting::Disabled
        };
        self.change_audit(None, setting)?;
        for endpoint in self.shared.endpoints.iter() {
            self.ask(endpoint.id(), RegenerationCause::ConfigChanged)?;
        }
        Ok(())
    }

    fn change_audit(
        &self,
        endpoint: Option<EndpointId>,
        setting: AuditSetting,
    ) -> Result<(), SubmitError> {
        let shared = &self.shared;
        shared.audit.set(&shared.store, endpoint, setting, |audit| {
            self.intake.audit(audit, endpoint)
        })
    }

    /// What only the journal remembers is not taken without one.
    fn must_last(&self) -> Result<(), SubmitError> {
        let store = &self.shared.store;
        if store.is_forgetful() {
            let problem = store.problem().unwrap_or_default();
            return Err(SubmitError::NotLasting(problem));
        }
        Ok(())
    }

    /// Asks for a regeneration. False if there is no such endpoint.
    pub fn regenerate(&self, id: EndpointId) -> Result<bool, SubmitError> {
        self.shared.snapshots.write().release();
        self.ask(id, RegenerationCause::Requested)
    }

    /// Has every endpoint built anew and made current by a new generation; waits
    /// for that. The reason, if it does not happen within `span`.
    pub fn renew(&self, span: Duration) -> Result<(), String> {
        let before = self.realized().map(|realized| realized.generation);
        for endpoint in self.shared.endpoints.iter() {
            let asked = self.ask(endpoint.id(), RegenerationCause::Drift);
            asked.map_err(|error| error.to_string())?;
        }
        let is_new = || self.realized().map(|realized| realized.generation) != before;
        if self.shared.published.wait(span, is_new) {
            return Ok(());
        }
        let waiting = self.status().waiting_for;
        if waiting.is_empty() {
            let problem = self.shared.published.problem();
            return Err(problem.unwrap_or_else(|| "it is under way".to_owned()));
        }
        let names: Vec<&str> = waiting.iter().map(|source| source.as_str()).collect();
        Err(format!(
            "it waits until these sources are in sync: {}",
            names.join(", ")
        ))
    }

    /// Tells the history that the kernel did not hold what it should.
    pub fn tell_drift(&self, kind: &str, message: &str) {
        self.record("drift", kind, message);
    }

    fn record(&self, event: &str, subject: &str, message: &str) {
        let revision = self.repository().revision;
        self.shared
            .published
            .record(event, revision, subject, message);
    }

    fn ask(&self, id: EndpointId, cause: RegenerationCause) -> Result<bool, SubmitError> {
        let Some(room) = self.shared.room(id) else {
            return Ok(false);
        };
        let event = EndpointEvent::Regenerate(EndpointRegenerationEvent {
            endpoint: id,
            revision: self.repository().revision,
            causes: BTreeSet::from([cause]),
        });
        match room.queue.enqueue(event) {
            Ok(_) => Ok(true),
            Err(EnqueueError::Full(_) | EnqueueError::Stopped(_)) => Err(SubmitError::Stopped),
        }
    }

    /// New addresses or devices of the node.
    pub fn set_node_facts(&self, facts: NodeFacts) {
        for endpoint in self.shared.endpoints.iter() {
            endpoint.set_facts(facts.clone());
        }
    }

    /// Every queue.
    #[must_use]
    pub fn queue_stats(&self) -> Vec<QueueStats> {
        let mut stats = vec![self.shared.changes.stats(), self.shared.reactions.stats()];
        stats.extend(self.shared.rooms.iter().map(|room| room.queue.stats()));
        stats
    }

    /// The last major events, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.shared.published.history()
    }

    /// All major events that are kept, those of earlier lives too, oldest first.
    /// Reads the store: not for a thread that must not wait.
    pub fn whole_history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        self.shared.published.whole_history()
    }

    /// The repository at an earlier revision, rebuilt from the store beside the
    /// pipeline, which does not wait for it. One at a time; may take seconds.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Arc<PolicySnapshot>, PastError> {
        let newest = self.repository();
        if revision == newest.revision {
            return Ok(newest);
        }
        if revision > newest.revision {
            return Err(PastError::NotYet {
                asked: revision,
                newest: newest.revision,
            });
        }
        let turn = self.past_turn.try_lock_for(PAST_TURN_WAIT);
        let _turn = turn.ok_or(PastError::Busy)?;
        let state = rebuild(&self.shared.store, revision, &newest.options)?;
        Ok(state.repository.snapshot())
    }

    /// Resources whose newest version is not in force, with the reasons.
    #[must_use]
    pub fn refused(&self) -> Arc<Vec<Refusal>> {
        Arc::clone(&self.repository().refused)
    }

    /// The newest state of the repository; enforced or not, see
    /// [`Self::endpoints`].
    #[must_use]
    pub fn repository(&self) -> Arc<PolicySnapshot> {
        Arc::clone(&self.shared.snapshots.read().newest)
    }

    /// What the datapath enforces; None before the first commit.
    #[must_use]
    pub fn realized(&self) -> Option<Realized> {
        self.shared.published.realized()
    }

    /// A policy is known that is not enforced yet (the store holds it, or, where
    /// nothing is enforced, all sources told theirs), and nothing is in its way.
    #[must_use]
    pub fn is_about_to_enforce(&self) -> bool {
        let is_known = {
            let snapshots = self.shared.snapshots.read();
            match self.realized() {
                None => snapshots.buildable.is_some(),
                Some(realized) => snapshots.ahead > Some(realized.revision),
            }
        };
        is_known && self.shared.published.problem().is_none()
    }

    /// Waits until every endpoint enforces at least `revision`; returns what
    /// they enforce.
    pub fn wait_enforced(
        &self,
        revision: Revision,
        span: Duration,
    ) -> Result<Revision, SubmitError> {
        let endpoints = &self.shared.endpoints;
        if self
            .shared
            .published
            .wait(span, || endpoints.realized() >= revision)
        {
            return Ok(endpoints.realized());
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Err(SubmitError::Stopped);
        }
        Err(SubmitError::TimedOut)
    }

    /// Waits until an endpoint enforces in the audit mode that is set for it.
    /// False after `span`, or if there is no such endpoint.
    pub fn wait_audit(&self, id: EndpointId, span: Duration) -> bool {
        let in_force = || {
            self.endpoint(id)
                .is_some_and(|status| status.audit_in_force())
        };
        self.shared.published.wait(span, in_force)
    }

    /// The names of a generation's rules, for one of the last generations.
    #[must_use]
    pub fn rules_of(&self, generation: GenerationNumber) -> Option<Arc<GenerationNames>> {
        self.shared.published.names(generation)
    }

    /// Health of the pipeline itself.
    #[must_use]
    pub fn status(&self) -> PipelineStatus {
        PipelineStatus {
            waiting_for: self.shared.waiting.read().iter().copied().collect(),
            options_wait: self.shared.options_wait.load(Ordering::SeqCst),
            store_problem: self.shared.store_problem(),
            has_history: !self.shared.store.is_forgetful(),
            store_failures: self.shared.store.failures(),
            datapath_problem: self.shared.published.problem(),
            audit: self.shared.audit.agent(),
            journal: Sequence(self.shared.store.durable()),
            revision: self.repository().revision,
        }
    }

    /// Stops intake and workers. The datapath enforces on; what was accepted
    /// and not run is in the journal.
    pub fn shutdown(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.shared.changes.stop();
        self.shared.reactions.stop();
        for room in &self.shared.rooms {
            room.queue.stop();
        }
        self.shared.signals.committer.raise();
        self.shared.published.stop();
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
