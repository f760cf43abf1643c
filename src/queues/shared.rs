//! What the workers and the facade share.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_state::{AuditFlag, AuditRecord, Store, StoreError};
use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::endpoint::{AuditSetting, Endpoint, EndpointManager, Published, Signal};
use crate::events::{
    EndpointId, EndpointRegenerationEvent, Envelope, Revision, RuleReaction, SourceName,
};
use crate::policy::PolicySnapshot;

use super::desk::JournalEvent;
use super::event_queue::EventQueue;
use super::outcome::ChangeOutcome;

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
    /// repository was restored from the store.
    pub buildable: Option<Arc<PolicySnapshot>>,
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
    pub audit: Audit,
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

    /// Whether every source is in sync.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waiting.read().is_empty()
    }
}

/// Audit mode: the agent's flag and what was set at run time, which lasts.
#[derive(Debug)]
pub struct Audit {
    /// `--policy-audit-mode`.
    flag: bool,
    record: Mutex<AuditRecord>,
}

impl Audit {
    /// The flag, and what the store remembers.
    #[must_use]
    pub fn new(flag: bool, mut record: AuditRecord) -> Self {
        if flag && record.agent == AuditFlag::Disabled {
            // This run was told to audit: an `off` of an earlier run is over.
            record.agent = AuditFlag::Inherited;
        }
        Self {
            flag,
            record: Mutex::new(record),
        }
    }

    /// The agent's mode.
    #[must_use]
    pub fn agent(&self) -> bool {
        match self.record.lock().agent {
            AuditFlag::Inherited => self.flag,
            AuditFlag::Enabled => true,
            AuditFlag::Disabled => false,
        }
    }

    /// What was set on an endpoint.
    #[must_use]
    pub fn setting(&self, id: EndpointId) -> AuditSetting {
        match self.record.lock().endpoints.get(&id.0) {
            None | Some(AuditFlag::Inherited) => AuditSetting::Inherited,
            Some(AuditFlag::Enabled) => AuditSetting::Enabled,
            Some(AuditFlag::Disabled) => AuditSetting::Disabled,
        }
    }

    /// What counts for an endpoint.
    #[must_use]
    pub fn effective(&self, id: EndpointId) -> bool {
        match self.setting(id) {
            AuditSetting::Inherited => self.agent(),
            AuditSetting::Enabled => true,
            AuditSetting::Disabled => false,
        }
    }

    /// Sets an endpoint's option; it is on the disk before it counts.
    pub fn set(
        &self,
        store: &Store,
        id: EndpointId,
        setting: AuditSetting,
    ) -> Result<(), StoreError> {
        self.change(store, |record| match setting {
            AuditSetting::Inherited => {
                record.endpoints.remove(&id.0);
            }
            AuditSetting::Enabled => {
                record.endpoints.insert(id.0, AuditFlag::Enabled);
            }
            AuditSetting::Disabled => {
                record.endpoints.insert(id.0, AuditFlag::Disabled);
            }
        })
    }

    /// Sets the agent's option; it is on the disk before it counts.
    pub fn set_agent(&self, store: &Store, audit: bool) -> Result<(), StoreError> {
        self.change(store, |record| {
            record.agent = if audit {
                AuditFlag::Enabled
            } else {
                AuditFlag::Disabled
            };
        })
    }

    fn change(
        &self,
        store: &Store,
        change: impl FnOnce(&mut AuditRecord),
    ) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        let mut next = record.clone();
        change(&mut next);
        let lasts = store.put_audit(&next).and_then(|()| store.flush());
        match lasts {
            Ok(_) => {
                *record = next;
                Ok(())
            }
            Err(error) => {
                // The caller is told that nothing changed: so it shall be. If
                // this fails too, the next success writes what counts.
                let _ = store.put_audit(&record);
                Err(error)
            }
        }
    }
}
