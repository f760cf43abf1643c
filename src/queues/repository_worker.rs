//! The consumer of the RepositoryChangeQueue: single writer of the repository.
//!
//! It takes what waits as one group, flushes the journal once (group commit),
//! runs `policy_add` / `policy_delete` for each event in order, publishes one
//! snapshot and hands one reaction to the RuleReactionQueue. It acts on nothing
//! that is not on the disk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_state::{NewSnapshot, Retention, StoreError};

use super::desk::{Desk, Done, JournalEvent};
use super::event_queue::{EnqueueError, Taken};
use super::imports::Imports;
use super::outcome::ChangeOutcome;
use super::shared::{RepositoryEvent, Shared};
use super::told::{Telling, operation};
use crate::clock::Moment;
use crate::endpoint::{Attempts, Progress, meters};
use crate::events::{RegenerationCause, RepositoryChange, RuleReaction, Sequence};
use crate::limits::{
    FLUSH_ATTEMPTS_MAX, FLUSH_RETRY, JOURNAL_GROUP_MAX, PAST_AGE_MAX, PAST_BYTES_MAX,
    PAST_EVENTS_MAX, PAST_EVENTS_MIN, PAST_SNAPSHOTS_MAX, PAST_SWEEP_MIN, SNAPSHOT_EVENTS_MAX,
    SNAPSHOT_EVENTS_MIN, SNAPSHOT_SHARE, STORE_RETRY,
};
use crate::policy::{Applied, Change};

#[expect(clippy::cast_possible_truncation, reason = "30 days in milliseconds")]
const RETENTION: Retention = Retention {
    events_max: PAST_EVENTS_MAX,
    snapshots_max: PAST_SNAPSHOTS_MAX,
    bytes_max: PAST_BYTES_MAX,
    age_ms_max: PAST_AGE_MAX.as_millis() as u64,
    events_min: PAST_EVENTS_MIN,
};

/// The worker; its thread owns it.
#[derive(Debug)]
pub struct RepositoryWorker {
    shared: Arc<Shared>,
    desk: Desk,
    imports: Imports,
    /// What is enforced now is known to this store, so that what follows from
    /// it may be enforced before every source has spoken.
    may_go_ahead: bool,
    /// Whether what was published last may be enforced.
    is_enforceable: bool,
    /// Taken, not yet on the disk.
    group: VecDeque<Taken<RepositoryEvent, ChangeOutcome>>,
    flushes: Attempts,
    flush_again_at: Option<Moment>,
    /// When a store that was given up is tried again.
    mend_at: Option<Moment>,
    /// The store's problem that the history tells of already.
    told_problem: Option<String>,
    /// A reaction that waits for room in the next queue.
    outbox: Option<RuleReaction>,
    applied: Sequence,
    newest_event_ms: u64,
    since_snapshot: usize,
}

impl RepositoryWorker {
    /// A worker at a restored desk; `applied`: the last event it has seen.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        desk: Desk,
        applied: Sequence,
        since_snapshot: usize,
        may_go_ahead: bool,
    ) -> Self {
        Self {
            // The start is an event of the journal, accepted just now.
            newest_event_ms: shared.clock.wall_ms(),
            told_problem: shared.store.problem(),
            shared,
            is_enforceable: is_enforceable(&desk, may_go_ahead),
            desk,
            imports: Imports::behind(),
            may_go_ahead,
            group: VecDeque::new(),
            flushes: Attempts::default(),
            flush_again_at: None,
            mend_at: None,
            outbox: None,
            applied,
            since_snapshot,
        }
    }

    /// Hands on, flushes or handles one group.
    pub fn step(&mut self, now: Moment) -> Progress {
        self.mend_store(now);
        if let Some(reaction) = self.outbox.take() {
            match self.shared.reactions.try_enqueue(reaction) {
                Ok(_) => {}
                Err(EnqueueError::Full(reaction)) => {
                    self.outbox = Some(reaction);
                    return Progress::IDLE;
                }
                Err(EnqueueError::Stopped(_)) => return Progress::IDLE,
            }
        }
        if self.group.is_empty() {
            while self.group.len() < JOURNAL_GROUP_MAX
                && let Some(taken) = self.shared.changes.take()
            {
                self.group.push_back(taken);
            }
            if self.group.is_empty() {
                return Progress::IDLE;
            }
        }
        if let Some(at) = self.flush_again_at.filter(|at| *at > now) {
            return Progress::Idle { wake_at: Some(at) };
        }
        let started = self.shared.clock.now();
        *self.shared.flushing_since.lock() = Some(started);
        let flushed = self.flushes.flush(&self.shared.store);
        *self.shared.flushing_since.lock() = None;
        if let Err(error) = flushed {
            tracing::warn!("the journal could not be flushed, trying again: {error}");
            let at = now.after(FLUSH_RETRY);
            self.flush_again_at = Some(at);
            return Progress::Idle { wake_at: Some(at) };
        }
        self.flush_again_at = None;
        self.tell_store_problem();
        meters::journal_flush(self.shared.clock.now().since(started));
        let events = self.group.len();
        self.handle_group();
        self.snapshot_if_due();
        self.sweep(events);
        Progress::Busy
    }

    /// Once for each time that the store is given up, by whomever.
    fn tell_store_problem(&mut self) {
        let problem = self.shared.store.problem();
        let is_news = self.shared.store.is_forgetful() && problem != self.told_problem;
        if let (true, Some(problem)) = (is_news, &problem) {
            let revision = self.desk.repository.revision();
            let published = &self.shared.published;
            published.record("store-problem", revision, "store", problem.as_str());
        }
        self.told_problem = problem;
    }

    /// Takes a store that was given up into use again, once its disk is well.
    fn mend_store(&mut self, now: Moment) {
        let store = &self.shared.store;
        if !store.is_forgetful() {
            self.mend_at = None;
            return;
        }
        match self.mend_at {
            None => self.mend_at = Some(now.after(STORE_RETRY)),
            Some(at) if at > now => {}
            Some(_) => {
                self.mend_at = Some(now.after(STORE_RETRY));
                match store.resume() {
                    Ok(true) => {
                        self.shared.published.record(
                            "store-resumed",
                            self.desk.repository.revision(),
                            "store",
                            "the disk is well again; nothing of the history is missing",
                        );
                        if let Err(error) = self.flushes.flush(store) {
                            tracing::warn!("the disk fails again: {error}");
                        }
                    }
                    Ok(false) => {}
                    Err(error) => tracing::debug!("the store cannot be used yet: {error}"),
                }
            }
        }
    }

    fn handle_group(&mut self) {
        let mut reaction: Option<RuleReaction> = None;
        let mut answers = Vec::new();
        for taken in std::mem::take(&mut self.group) {
            let started = self.shared.clock.now();
            let RepositoryEvent {
                sequence,
                since,
                event,
            } = taken.event.clone();
            self.applied = sequence;
            self.newest_event_ms = event.accepted_ms();
            self.since_snapshot += 1;
            let refused_before = matches!(event, JournalEvent::Change { .. });
            let revision = self.desk.repository.revision();
            let mut outcome = ChangeOutcome::Unchanged { revision };
            let telling = Telling::new(sequence, &event, revision);
            let all_done = self.desk.take(sequence, event);
            for entry in telling.entries(&all_done) {
                self.shared.published.enter(entry);
            }
            for done in all_done {
                self.keep_import(&done);
                let of_this_event = match &done {
                    Done::Applied { sequence: of, .. } | Done::Deferred { sequence: of } => {
                        refused_before && *of == sequence
                    }
                    Done::GateOpened
                    | Done::OptionsChanged { .. }
                    | Done::AuditSet { .. }
                    | Done::EndpointStarted { .. } => false,
                };
                let told = self.react(done, since, &mut reaction);
                if of_this_event {
                    outcome = told;
                }
            }
            let span = self.shared.clock.now().since(started);
            self.shared.changes.handled(span);
            answers.push((taken, outcome));
        }
        self.publish(reaction);
        let snapshot = || self.desk.repository.snapshot();
        self.imports.write(&self.shared.store, snapshot);
        for (taken, outcome) in answers {
            taken.answer(outcome);
        }
    }

    fn keep_import(&mut self, done: &Done) {
        if let Done::Applied {
            change, applied, ..
        } = done
            && !matches!(**applied, Applied::Refused(_))
        {
            self.imports.note(change);
        }
    }

    /// Notes what follows from one thing done.
    fn react(
        &self,
        done: Done,
        since: Moment,
        reaction: &mut Option<RuleReaction>,
    ) -> ChangeOutcome {
        let revision = self.desk.repository.revision();
        match done {
            Done::Deferred { sequence } => {
                tracing::debug!(sequence = sequence.0, "waits until every source is in sync");
                ChangeOutcome::Deferred { revision }
            }
            Done::GateOpened | Done::OptionsChanged { .. } => {
                RuleReaction::merge_into(reaction, self.of_all_endpoints());
                ChangeOutcome::Unchanged { revision }
            }
            // Who set it has asked for the regeneration.
            Done::AuditSet { .. } | Done::EndpointStarted { .. } => {
                ChangeOutcome::Unchanged { revision }
            }
            Done::Applied {
                change, applied, ..
            } => {
                let success = !matches!(*applied, Applied::Refused(_));
                meters::policy_change(change.source(), operation(&change), success);
                self.react_to(&change, *applied, since, reaction)
            }
        }
    }

    fn of_all_endpoints(&self) -> RuleReaction {
        let all = self.shared.endpoints.iter().map(|endpoint| endpoint.id());
        RuleReaction {
            revision: self.desk.repository.revision(),
            to_regenerate: all.collect(),
            to_bump: BTreeSet::new(),
            causes: BTreeSet::from([RegenerationCause::EndpointRestored]),
        }
    }

    fn react_to(
        &self,
        change: &RepositoryChange,
        applied: Applied,
        since: Moment,
        reaction: &mut Option<RuleReaction>,
    ) -> ChangeOutcome {
        let revision = self.desk.repository.revision();
        match applied {
            Applied::Unchanged => ChangeOutcome::Unchanged { revision },
            Applied::Refused(refusal) => ChangeOutcome::Refused { revision, refusal },
            Applied::Changed(Change {
                revision,
                affected,
                causes,
                warnings,
            }) => {
                let is_policy = change.key().is_some_and(|key| key.kind.is_policy());
                if is_policy && self.shared.snapshots.write().release() {
                    RuleReaction::merge_into(reaction, self.of_all_endpoints());
                }
                let source = change.source();
                self.shared.published.expect(revision, since, source);
                let (to_regenerate, to_bump) = self.shared.endpoints.split(affected);
                RuleReaction::merge_into(
                    reaction,
                    RuleReaction {
                        revision,
                        to_regenerate: to_regenerate.into_iter().collect(),
                        to_bump: to_bump.into_iter().collect(),
                        causes,
                    },
                );
                ChangeOutcome::Applied { revision, warnings }
            }
        }
    }

    /// Publishes the repository, then sends the reaction on its way.
    fn publish(&mut self, mut reaction: Option<RuleReaction>) {
        let was_enforceable = self.is_enforceable;
        self.is_enforceable = is_enforceable(&self.desk, self.may_go_ahead);
        if self.is_enforceable && !was_enforceable {
            // What came meanwhile, in an earlier life, too.
            RuleReaction::merge_into(&mut reaction, self.of_all_endpoints());
        }
        let snapshot = self.desk.repository.snapshot();
        for endpoint in self.shared.endpoints.iter() {
            endpoint.desire(snapshot.revision);
        }
        {
            let mut snapshots = self.shared.snapshots.write();
            snapshots.newest = Arc::clone(&snapshot);
            if self.is_enforceable {
                snapshots.offer(snapshot);
            }
        }
        *self.shared.waiting.write() = self.desk.waiting().clone();
        let options_wait = self.desk.has_next_options();
        self.shared
            .options_wait
            .store(options_wait, Ordering::SeqCst);
        self.outbox = reaction;
    }

    /// Replaces the journal's tail by a snapshot when it has grown long beside
    /// the last one: so all snapshots of a first fill cost a few times the last.
    fn snapshot_if_due(&mut self) {
        if self.since_snapshot >= SNAPSHOT_EVENTS_MIN {
            let (behind, last) = self.shared.store.sizes_of_replay();
            if is_snapshot_due(self.since_snapshot, behind, last) {
                self.save_snapshot();
            }
        }
    }

    /// Deletes a little of what is no longer kept, in step with what comes.
    fn sweep(&self, events: usize) {
        if let Err(error) = self.shared.store.sweep(PAST_SWEEP_MIN + 2 * events) {
            tracing::warn!("old events could not be deleted: {error}");
        }
    }

    /// Saves what the journal amounts to. A failure costs only a longer replay.
    pub fn save_snapshot(&mut self) {
        if let Err(error) = self.save(false) {
            tracing::warn!("no snapshot of the repository could be saved: {error}");
        }
    }

    /// Saves a state that does not follow from the events before it. Without
    /// that snapshot a replay would give its revisions another meaning: where it
    /// cannot be saved, the agent goes on without history.
    pub fn begin_anew(&mut self) {
        let mut attempt = 1;
        while let Err(error) = self.save(true) {
            if attempt == FLUSH_ATTEMPTS_MAX {
                self.shared.store.suspend(&error.to_string());
                // In memory it is saved, and written with all that follows.
                return self.save_into_memory();
            }
            attempt += 1;
        }
    }

    fn save_into_memory(&mut self) {
        if let Err(error) = self.save(true) {
            tracing::error!("the state cannot be saved: {error}");
        }
    }

    fn save(&mut self, begins: bool) -> Result<(), StoreError> {
        if self.since_snapshot == 0 {
            return Ok(());
        }
        self.since_snapshot = 0;
        let store = &self.shared.store;
        let now_ms = self.shared.clock.wall_ms();
        let saved = serde_json::to_vec(&self.desk.export())
            .map_err(StoreError::from)
            .and_then(|bytes| {
                let new = NewSnapshot {
                    sequence: self.applied.0,
                    revision: self.desk.repository.revision().0,
                    begins,
                    newest_event_ms: self.newest_event_ms,
                    bytes: &bytes,
                };
                store.save_snapshot(&new, &RETENTION, now_ms)
            });
        if saved.is_err() {
            // Due again after the next group.
            self.since_snapshot = SNAPSHOT_EVENTS_MAX;
        }
        let oldest_ms = now_ms.saturating_sub(RETENTION.age_ms_max);
        if let Err(error) = self.shared.published.drop_older(oldest_ms) {
            tracing::warn!("old lines of the history could not be deleted: {error}");
        }
        saved
    }

    /// Told when the thread ends.
    pub fn leave(&mut self) {
        // Taken and not run: dropping them tells their producers.
        self.group.clear();
        // What was accepted is for the next agent, if the disk is well again too.
        if let Err(error) = self.shared.store.resume() {
            tracing::warn!("what came while the disk failed is lost: {error}");
        }
        if let Err(error) = self.flushes.flush(&self.shared.store) {
            tracing::warn!("the journal could not be flushed: {error}");
        }
        self.save_snapshot();
        self.shared.changes.consumer_left();
    }
}

/// Whether the desk holds a whole: every source is in sync, or none of them was cut
/// off while it told, and nothing is enforced that this desk does not know.
fn is_enforceable(desk: &Desk, may_go_ahead: bool) -> bool {
    desk.is_open() || (may_go_ahead && desk.is_whole())
}

/// `events` of `behind` bytes lie behind a snapshot of `last` bytes.
fn is_snapshot_due(events: usize, behind: u64, last: u64) -> bool {
    let is_much = behind >= last / SNAPSHOT_SHARE;
    events >= SNAPSHOT_EVENTS_MAX || (events >= SNAPSHOT_EVENTS_MIN && is_much)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of one snapshot and bytes of all, where each of `all` events is an
    /// object of its own.
    fn fill(all: u64, event_bytes: u64) -> (usize, u64) {
        let (mut since, mut longest, mut last, mut written) = (0, 0, 0, 0);
        for event in 1..=all {
            since += 1;
            longest = longest.max(since);
            if is_snapshot_due(since, since as u64 * event_bytes, last) {
                last = event * event_bytes;
                written += last;
                since = 0;
            }
        }
        (longest, written)
    }

    #[test]
    fn the_snapshots_of_a_first_fill_cost_a_few_times_the_last() {
        for all in [1_000, 4_000, 10_000] {
            let (longest, written) = fill(all, 1_000);
            assert!(written <= 4 * 1_000 * all, "{all} events: {written} bytes");
            assert!(longest <= SNAPSHOT_EVENTS_MAX);
        }
        // However large the store is, a replay and the events kept stay bounded.
        assert_eq!(fill(100_000, 1_000).0, SNAPSHOT_EVENTS_MAX);
        assert!(!is_snapshot_due(SNAPSHOT_EVENTS_MIN - 1, u64::MAX, 0));
    }
}
