//! What the workers and the facade share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use palisade_state::{AuditFlag, AuditRecord, Store};
use parking_lot::{Mutex, RwLock};

use crate::clock::{Clock, Moment};
use crate::endpoint::{AuditSetting, Endpoint, EndpointManager, Published, Signal};
use crate::events::{
    EndpointId, EndpointRegenerationEvent, Envelope, Revision, RuleReaction, SourceName,
};
use crate::limits::FLUSH_SLOW;
use crate::policy::PolicySnapshot;

use super::desk::{AuditState, JournalEvent};
use super::event_queue::EventQueue;
use super::outcome::{ChangeOutcome, SubmitError};

/// An event of the RepositoryChangeQueue, already in the journal.
pub(super) type RepositoryEvent = Envelope<JournalEvent>;

/// An event of an endpoint's queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndpointEvent {
    Regenerate(EndpointRegenerationEvent),
    /// Its verdicts hold for this revision as well.
    Bump(Revision),
}

/// The RepositoryChangeQueue.
pub(super) type RepositoryChangeQueue = EventQueue<RepositoryEvent, ChangeOutcome>;
/// The RuleReactionQueue.
pub(super) type RuleReactionQueue = EventQueue<RuleReaction, ()>;
/// The queue of one endpoint.
pub(super) type EndpointQueue = EventQueue<EndpointEvent, ()>;

/// An endpoint with its queue.
#[derive(Debug)]
pub struct EndpointRoom {
    pub endpoint: Arc<Endpoint>,
    pub queue: Arc<EndpointQueue>,
}

/// Snapshots: the newest, and the newest that may be built from.
#[derive(Debug)]
pub struct Snapshots {
    pub newest: Arc<PolicySnapshot>,
    /// None until it is safe to regenerate: every source is in sync, or the
    /// repository is a whole without them. Behind `newest` while a source tells
    /// what it holds.
    pub buildable: Option<Arc<PolicySnapshot>>,
    /// What the start has built from the store, before any source has spoken.
    pub ahead: Option<Revision>,
    /// Builds are held, after lives that ended in theirs; what would be built.
    pub held: Option<Held>,
}

/// What a change of policy, or who asks for it, sets free.
#[derive(Debug, Default)]
pub struct Held(Option<Arc<PolicySnapshot>>);

impl Snapshots {
    /// May be built from here on, or when builds are no longer held.
    pub fn offer(&mut self, snapshot: Arc<PolicySnapshot>) {
        match &mut self.held {
            Some(held) => held.0 = Some(snapshot),
            None => self.buildable = Some(snapshot),
        }
    }

    /// From here on builds are held.
    pub fn hold(&mut self) {
        self.held = Some(Held(self.buildable.take()));
    }

    /// False if nothing was held.
    pub fn release(&mut self) -> bool {
        let Some(held) = self.held.take() else {
            return false;
        };
        self.buildable = held.0;
        true
    }
}

/// Everything that more than one thread needs.
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub store: Arc<Store>,
    pub published: Arc<Published>,
    pub endpoints: Arc<EndpointManager>,
    pub rooms: Vec<EndpointRoom>,
    pub changes: RepositoryChangeQueue,
    pub reactions: RuleReactionQueue,
    pub snapshots: RwLock<Snapshots>,
    /// Sources that have not said `in sync`.
    pub waiting: RwLock<BTreeSet<SourceName>>,
    /// Options of this start wait for these, too.
    pub options_wait: AtomicBool,
    pub audit: Audit,
    /// When the flush of the journal began that is going on.
    pub flushing_since: Mutex<Option<Moment>>,
    pub signals: Signals,
}

/// The workers' alarm clocks.
#[derive(Debug, Default)]
pub struct Signals {
    pub repository: Arc<Signal>,
    pub reaction: Arc<Signal>,
    pub committer: Arc<Signal>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// An endpoint with its queue.
    #[must_use]
    pub fn room(&self, id: EndpointId) -> Option<&EndpointRoom> {
        self.rooms.iter().find(|room| room.endpoint.id() == id)
    }

    /// What is wrong with the store: it is suspended, or its disk hangs.
    #[must_use]
    pub fn store_problem(&self) -> Option<String> {
        self.store.problem().or_else(|| {
            let since = (*self.flushing_since.lock())?;
            let span = self.clock.now().since(since);
            (span >= FLUSH_SLOW).then(|| {
                format!(
                    "the disk has not answered a flush for {} s: new changes wait for it, what is \
                     enforced stays",
                    span.as_secs()
                )
            })
        })
    }

    /// The newest revision that may be built.
    #[must_use]
    pub fn buildable(&self) -> Option<Revision> {
        let snapshots = self.snapshots.read();
        snapshots
            .buildable
            .as_ref()
            .map(|snapshot| snapshot.revision)
    }
}

/// Audit mode: the agent's flag and what was set at run time, which lasts.
#[derive(Debug)]
pub struct Audit {
    state: Mutex<AuditState>,
    /// Held by the one that changes it; not `state`, which builds wait for.
    changing: Mutex<()>,
}

impl Audit {
    /// The flag, and what the store remembers.
    #[must_use]
    pub fn new(flag: bool, mut set: AuditRecord) -> Self {
        if flag && set.agent == AuditFlag::Disabled {
            // This run was told to audit: an `off` of an earlier run is over.
            set.agent = AuditFlag::Inherited;
        }
        Self {
            state: Mutex::new(AuditState { flag, set }),
            changing: Mutex::new(()),
        }
    }

    /// All of it.
    #[must_use]
    pub fn state(&self) -> AuditState {
        self.state.lock().clone()
    }

    /// The agent's mode.
    #[must_use]
    pub fn agent(&self) -> bool {
        self.state.lock().agent()
    }

    /// What was set on an endpoint.
    #[must_use]
    pub fn setting(&self, id: EndpointId) -> AuditSetting {
        match self.state.lock().set.endpoints.get(&id.0) {
            None | Some(AuditFlag::Inherited) => AuditSetting::Inherited,
            Some(AuditFlag::Enabled) => AuditSetting::Enabled,
            Some(AuditFlag::Disabled) => AuditSetting::Disabled,
        }
    }

    /// What counts for an endpoint.
    #[must_use]
    pub fn effective(&self, id: EndpointId) -> bool {
        self.state.lock().effective(id)
    }

    /// Sets the option of an endpoint, or of the agent. `journal` appends the
    /// event; with it on the disk, and not before, the option counts.
    pub fn set(
        &self,
        store: &Store,
        endpoint: Option<EndpointId>,
        setting: AuditSetting,
        journal: impl Fn(AuditState) -> Result<(), SubmitError>,
    ) -> Result<(), SubmitError> {
        let _one = self.changing.lock();
        let before = self.state();
        let mut next = before.clone();
        let flag = match setting {
            AuditSetting::Inherited => AuditFlag::Inherited,
            AuditSetting::Enabled => AuditFlag::Enabled,
            AuditSetting::Disabled => AuditFlag::Disabled,
        };
        match endpoint {
            None => next.set.agent = flag,
            Some(id) if flag == AuditFlag::Inherited => {
                next.set.endpoints.remove(&id.0);
            }
            Some(id) => {
                next.set.endpoints.insert(id.0, flag);
            }
        }
        journal(next.clone())?;
        let lasts = store.put_audit(&next.set).and_then(|()| store.flush());
        if let Err(error) = lasts {
            // The caller is told that nothing changed: so it shall be. If this
            // fails too, the next success writes what counts.
            let _ = store.put_audit(&before.set);
            let _ = journal(before);
            return Err(SubmitError::Journal(error.to_string()));
        }
        *self.state.lock() = next;
        Ok(())
    }
}
