//! The facade of the pipeline: what sources, API, metrics and daemon call.
//!
//! Any thread may call it. The workers behind it run on threads that
//! `daemon::threads` starts from [`Pipeline::workers`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use palisade_state::Store;
use parking_lot::Mutex;
use serde::Serialize;

use super::QueueStats;
use crate::clock::Clock;
use crate::datapath::{Datapath, DatapathSettings, GenerationNumber, Realized};
use crate::endpoint::{AuditSetting, EndpointStatus, LogEntry, NodeFacts};
use crate::events::{
    EndpointId, HistoryEntry, RepositoryChange, ResourceKey, Revision, Sequence, SourceName,
};
use crate::policy::language::FieldError;
use crate::policy::{PolicyOptions, PolicySnapshot, Refusal, Repository, RuleCatalogue};

/// What the pipeline is started with.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Sources that must say `in sync` before anything is deleted or, on a node
    /// that is already enforcing, regenerated.
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

/// What became of an accepted change, told after it was journalled and applied.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum ChangeOutcome {
    /// In the repository, as this revision. Not yet enforced: see
    /// [`Pipeline::wait_enforced`].
    Applied {
        revision: Revision,
        warnings: Vec<FieldError>,
    },
    /// Invalid or owned by another source; the last valid version stays.
    Refused {
        revision: Revision,
        refusal: Refusal,
    },
    /// Nothing to change.
    Unchanged { revision: Revision },
    /// A deletion that waits until every source is in sync.
    Deferred { revision: Revision },
}

/// A change that was taken.
#[derive(Debug)]
pub struct Submission {
    /// Its place in the journal; None when it changes nothing.
    pub sequence: Option<Sequence>,
    result: Receiver<ChangeOutcome>,
}

/// Why a change was not taken, or its outcome is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("the agent is stopping; the change was cancelled")]
    Stopped,
    #[error("the queue is full")]
    Full,
    /// Too large for the journal; nothing was done.
    #[error("{0}")]
    Journal(String),
    #[error("not done within the time limit; it goes on in the background")]
    TimedOut,
}

impl Submission {
    /// Waits until the change is on the disk and in the repository.
    pub fn wait(self, timeout: Duration) -> Result<ChangeOutcome, SubmitError> {
        self.result
            .recv_timeout(timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => SubmitError::TimedOut,
                RecvTimeoutError::Disconnected => SubmitError::Stopped,
            })
    }
}

/// Names of what a generation's events and counters speak of.
#[derive(Clone, Debug)]
pub struct GenerationNames {
    pub generation: GenerationNumber,
    pub revision: Revision,
    pub rules: Arc<RuleCatalogue>,
    /// The policies that made each direction default-deny.
    pub enforcing: [Vec<ResourceKey>; 2],
    /// Labels of the identities, and all else of that revision.
    pub snapshot: Arc<PolicySnapshot>,
}

/// The pipeline's own health, for `status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct PipelineStatus {
    /// Sources that have not said `in sync`.
    pub waiting_for: Vec<SourceName>,
    /// Why the agent runs without history; None when the store is fine.
    pub store_problem: Option<String>,
    /// Why the last generation was refused; None after a success.
    pub datapath_problem: Option<String>,
    /// The agent's audit mode: flag or runtime setting.
    pub audit: bool,
    /// Last sequence that is on the disk.
    pub journal: Sequence,
    /// Newest revision of the repository.
    pub revision: Revision,
}

/// A worker's loop with the name of its thread.
pub type Worker = (String, Box<dyn FnOnce() + Send>);

/// The running pipeline.
pub struct Pipeline {
    state: Mutex<PipelineStatus>,
    snapshot: Arc<PolicySnapshot>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
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
        let _ = (datapath, store, clock);
        let state = PipelineStatus {
            waiting_for: options.sources.iter().copied().collect(),
            audit: options.policy.audit,
            ..PipelineStatus::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            snapshot: Repository::new(options.policy).snapshot(),
        })
    }

    /// The loops to run, each on a thread of its own. They end after
    /// [`Self::shutdown`].
    #[must_use]
    pub fn workers(self: Arc<Self>) -> Vec<Worker> {
        Vec::new()
    }

    /// Journals the change and puts it into the RepositoryChangeQueue; waits
    /// while that is full. Wait on the submission for durability and outcome.
    pub fn submit(&self, change: RepositoryChange) -> Result<Submission, SubmitError> {
        let _ = change;
        Err(SubmitError::Stopped)
    }

    /// A source has told everything it holds: `owned`. What it owned in an
    /// earlier life of the agent and holds no more is deleted.
    pub fn source_in_sync(
        &self,
        source: SourceName,
        owned: &BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        let _ = owned;
        self.state.lock().waiting_for.retain(|name| *name != source);
        Ok(())
    }

    /// All endpoints, by id.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        Vec::new()
    }

    /// One endpoint, with its log.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointStatus> {
        let _ = id;
        None
    }

    /// The last transitions of an endpoint, oldest first.
    #[must_use]
    pub fn endpoint_log(&self, id: EndpointId) -> Option<Vec<LogEntry>> {
        let _ = id;
        None
    }

    /// Sets `PolicyAuditMode` of an endpoint, durably, and regenerates it.
    /// False if there is no such endpoint.
    pub fn set_audit(&self, id: EndpointId, setting: AuditSetting) -> Result<bool, SubmitError> {
        let _ = (id, setting);
        Ok(false)
    }

    /// Sets the agent's audit mode, durably, and regenerates.
    pub fn set_global_audit(&self, audit: bool) -> Result<(), SubmitError> {
        self.state.lock().audit = audit;
        Ok(())
    }

    /// Asks for a regeneration. False if there is no such endpoint.
    pub fn regenerate(&self, id: EndpointId) -> Result<bool, SubmitError> {
        let _ = id;
        Ok(false)
    }

    /// New addresses or devices of the node.
    pub fn set_node_facts(&self, facts: NodeFacts) {
        let _ = facts;
    }

    /// Every queue.
    #[must_use]
    pub fn queue_stats(&self) -> Vec<QueueStats> {
        Vec::new()
    }

    /// The last major events, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        Vec::new()
    }

    /// Resources whose newest version is not in force, with the reasons.
    #[must_use]
    pub fn refused(&self) -> Arc<Vec<Refusal>> {
        Arc::clone(&self.snapshot.refused)
    }

    /// The newest state of the repository; enforced or not, see
    /// [`Self::endpoints`].
    #[must_use]
    pub fn repository(&self) -> Arc<PolicySnapshot> {
        Arc::clone(&self.snapshot)
    }

    /// What the datapath enforces; None before the first commit.
    #[must_use]
    pub fn realized(&self) -> Option<Realized> {
        None
    }

    /// Waits until every endpoint enforces at least `revision`.
    pub fn wait_enforced(
        &self,
        revision: Revision,
        timeout: Duration,
    ) -> Result<Revision, SubmitError> {
        let _ = (revision, timeout);
        Err(SubmitError::TimedOut)
    }

    /// The names of a generation's rules, for one of the last generations.
    #[must_use]
    pub fn rules_of(&self, generation: GenerationNumber) -> Option<Arc<GenerationNames>> {
        let _ = generation;
        None
    }

    /// Health of the pipeline itself.
    #[must_use]
    pub fn status(&self) -> PipelineStatus {
        self.state.lock().clone()
    }

    /// Stops intake and workers. The datapath enforces on.
    pub fn shutdown(&self) {}
}
