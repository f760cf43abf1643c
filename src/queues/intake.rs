//! The only door into the pipeline: journal order is queue order.
//!
//! Any thread. One lock is held while an event is appended to the journal and
//! enqueued, also while the queue is full: that is the back-pressure. What
//! changes nothing is dropped before it is journaled.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_state::StoreError;
use parking_lot::Mutex;

use super::desk::{AuditState, JournalEvent};
use super::event_queue::{EnqueueError, Ticket};
use super::known::Known;
use super::outcome::{ChangeOutcome, SubmitError};
use super::shared::{RepositoryEvent, Shared};
use crate::events::{EndpointId, RepositoryChange, ResourceKey, Sequence, SourceName};
use crate::limits::APPEND_ATTEMPTS_MAX;

/// The door.
#[derive(Debug)]
pub(super) struct Intake {
    shared: Arc<Shared>,
    known: Mutex<Known>,
    /// Sources that this run was configured with.
    configured: BTreeSet<SourceName>,
}

impl Intake {
    /// A door that knows what the restored journal told.
    #[must_use]
    pub(super) fn new(shared: Arc<Shared>, known: Known, configured: BTreeSet<SourceName>) -> Self {
        Self {
            shared,
            known: Mutex::new(known),
            configured,
        }
    }

    /// Takes a change. None: it changes nothing and was not journaled.
    pub(super) fn submit(
        &self,
        change: RepositoryChange,
    ) -> Result<Option<(Sequence, Ticket<ChangeOutcome>)>, SubmitError> {
        let mut known = self.known.lock();
        if self.shared.changes.is_stopped() {
            return Err(SubmitError::Stopped);
        }
        if !known.would_change(&change) {
            return Ok(None);
        }
        self.enter_change(&mut known, change).map(Some)
    }

    /// A source has told everything it holds.
    pub(super) fn in_sync(
        &self,
        source: SourceName,
        owned: &BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        let mut known = self.known.lock();
        let mut gone = vec![(source, known.vanished(source, owned))];
        for orphan in known.sources() {
            // What the API brought stays until the API deletes it.
            let kept = matches!(orphan, SourceName::Api | SourceName::Local);
            if !kept && !self.configured.contains(&orphan) && orphan != source {
                gone.push((orphan, known.vanished(orphan, &BTreeSet::new())));
            }
        }
        for (source, keys) in gone {
            for key in keys {
                self.enter_change(&mut known, RepositoryChange::Delete { key, source })?;
            }
        }
        if self.shared.waiting.read().contains(&source) {
            self.enter(JournalEvent::InSync {
                source,
                accepted_ms: self.shared.clock.wall_ms(),
            })?;
        }
        Ok(())
    }

    /// Audit options change.
    pub(super) fn audit(
        &self,
        audit: AuditState,
        endpoint: Option<EndpointId>,
    ) -> Result<(), SubmitError> {
        let _order = self.known.lock();
        if self.shared.changes.is_stopped() {
            return Err(SubmitError::Stopped);
        }
        let accepted_ms = self.shared.clock.wall_ms();
        let event = JournalEvent::Audit {
            audit,
            endpoint,
            accepted_ms,
        };
        self.enter(event).map(|_| ())
    }

    fn enter_change(
        &self,
        known: &mut Known,
        change: RepositoryChange,
    ) -> Result<(Sequence, Ticket<ChangeOutcome>), SubmitError> {
        let entered = self.enter(JournalEvent::Change {
            accepted_ms: self.shared.clock.wall_ms(),
            change: change.clone(),
        })?;
        known.note(&change);
        Ok(entered)
    }

    fn enter(&self, event: JournalEvent) -> Result<(Sequence, Ticket<ChangeOutcome>), SubmitError> {
        let since = self.shared.clock.now();
        let sequence = self.append(&event)?;
        let event = RepositoryEvent {
            sequence,
            since,
            event,
        };
        match self.shared.changes.enqueue(event) {
            Ok(ticket) => Ok((sequence, ticket)),
            Err(EnqueueError::Full(_) | EnqueueError::Stopped(_)) => Err(SubmitError::Stopped),
        }
    }

    fn append(&self, event: &JournalEvent) -> Result<Sequence, SubmitError> {
        let store = &self.shared.store;
        let mut attempt = 1;
        loop {
            match store.append(event) {
                Ok(sequence) => return Ok(Sequence(sequence)),
                Err(StoreError::Medium(_)) if attempt < APPEND_ATTEMPTS_MAX => attempt += 1,
                // Enforcement must not wait for a disk: go on without history.
                Err(StoreError::Medium(reason)) => store.suspend(&reason),
                Err(error) => return Err(SubmitError::Journal(error.to_string())),
            }
        }
    }
}
