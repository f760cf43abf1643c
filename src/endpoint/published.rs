//! What the committer tells the world: what is realized, the names of rules by
//! generation, how long changes took, and the history of major events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imbl::OrdSet;
use palisade_state::{Store, StoreError};
use parking_lot::{Condvar, Mutex};

use super::meters;
use crate::clock::{Clock, Moment};
use crate::datapath::{GenerationNumber, Realized};
use crate::events::{
    History, HistoryEntry, Outcome, ResourceKey, Revision, SourceName, join_generations,
};
use crate::limits::{
    DELAYS_MAX, GENERATION_NAMES_MAX, HISTORY_MAX, HISTORY_MESSAGE_BYTES_MAX, PAST_EVENTS_MIN,
    PAST_NOTES_MAX,
};
use crate::policy::{PolicySnapshot, RuleCatalogue};

/// Names of what a generation's events and counters speak of.
#[derive(Clone, Debug)]
pub struct GenerationNames {
    pub generation: GenerationNumber,
    pub revision: Revision,
    pub rules: RuleCatalogue,
    /// The policies that made each direction default-deny.
    pub enforcing: [OrdSet<ResourceKey>; 2],
    /// The policies in audit that would make it default-deny.
    pub auditing: [OrdSet<ResourceKey>; 2],
    /// Labels of the identities, and all else of that revision.
    pub snapshot: Arc<PolicySnapshot>,
}

/// Written by the workers, read by anybody.
pub struct Published {
    clock: Arc<dyn Clock>,
    /// Where the history outlives the agent.
    store: Arc<Store>,
    /// Held while an entry is noted and shown, so that both have one order.
    entering: Mutex<()>,
    is_in_first_build: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    realized: Option<Realized>,
    names: VecDeque<Arc<GenerationNames>>,
    problem: Option<String>,
    history: History,
    /// Accepted changes that are not yet enforced.
    delays: VecDeque<(Revision, Moment, SourceName)>,
    /// Commits so far, for those who wait.
    commits: u64,
    stopped: bool,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Published {
    /// Nothing yet but what the datapath holds.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, store: Arc<Store>, realized: Option<Realized>) -> Self {
        Self {
            clock,
            store,
            entering: Mutex::new(()),
            is_in_first_build: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                realized,
                names: VecDeque::new(),
                problem: None,
                history: History::new(HISTORY_MAX),
                delays: VecDeque::new(),
                commits: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Whoever ends within it is counted.
    pub fn first_build_begins(&self) {
        let count = self.store.builds_cut_off().saturating_add(1);
        self.is_in_first_build.store(true, Ordering::SeqCst);
        self.note_builds_cut_off(count);
    }

    fn first_build_ended(&self) {
        if self.is_in_first_build.swap(false, Ordering::SeqCst) {
            self.note_builds_cut_off(0);
        }
    }

    fn note_builds_cut_off(&self, count: u32) {
        if let Err(error) = self.store.put_builds_cut_off(count) {
            tracing::warn!("builds that were cut off are not counted: {error}");
        }
    }

    /// A generation is enforced: publish it and wake those who wait.
    pub fn commit(&self, realized: Realized, names: GenerationNames) {
        self.first_build_ended();
        let mut inner = self.inner.lock();
        inner.realized = Some(realized);
        inner.commits += 1;
        inner.problem = None;
        inner
            .names
            .retain(|known| known.generation != names.generation);
        if inner.names.len() == GENERATION_NAMES_MAX {
            inner.names.pop_front();
        }
        inner.names.push_back(Arc::new(names));
        let now = self.clock.now();
        while let Some((revision, since, source)) = inner.delays.front().copied() {
            if revision > realized.revision {
                break;
            }
            inner.delays.pop_front();
            meters::implementation_delay(source, now.since(since));
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// A generation was refused; the old one enforces on.
    pub fn refuse(&self, problem: String) {
        self.first_build_ended();
        self.inner.lock().problem = Some(problem);
    }

    /// Times the way of a change that became `revision`.
    pub fn expect(&self, revision: Revision, since: Moment, source: SourceName) {
        let mut inner = self.inner.lock();
        if inner.delays.len() == DELAYS_MAX {
            inner.delays.pop_front();
        }
        inner.delays.push_back((revision, since, source));
    }

    /// Adds a major event that is not of the journal.
    pub fn record(
        &self,
        event: &str,
        revision: Revision,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.enter(self.entry(event, revision, subject, message));
    }

    /// Such an event, now.
    #[must_use]
    pub fn entry(
        &self,
        event: &str,
        revision: Revision,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> HistoryEntry {
        HistoryEntry {
            time_ms: self.clock.wall_ms(),
            sequence: None,
            revision,
            event: event.to_owned(),
            subject: subject.into(),
            message: message.into(),
            cause: None,
            outcome: None,
            generation: None,
        }
    }

    /// Adds an entry to the history, here and in the store, where it lasts with
    /// the next flush.
    pub fn enter(&self, mut entry: HistoryEntry) {
        shorten(&mut entry.message, HISTORY_MESSAGE_BYTES_MAX);
        match entry.outcome {
            Some(Outcome::Unchanged | Outcome::Deferred) => tracing::debug!(
                event = entry.event,
                revision = entry.revision.0,
                subject = entry.subject,
                "{}",
                entry.message
            ),
            None | Some(Outcome::Applied | Outcome::Refused) => tracing::info!(
                event = entry.event,
                revision = entry.revision.0,
                subject = entry.subject,
                "{}",
                entry.message
            ),
        }
        let _order = self.entering.lock();
        // What cannot be noted is still shown in this life.
        let note = self.store.note(&entry, PAST_NOTES_MAX).ok();
        self.inner.lock().history.push(note, entry);
    }

    /// The last major events of this life, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.inner.lock().history.iter().cloned().collect()
    }

    /// All major events that are kept, those of earlier lives too, oldest first,
    /// with the generations that enforced them. Reads the store: not for a
    /// thread that must not wait.
    pub fn whole_history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        let (first_here, here) = {
            let inner = self.inner.lock();
            let here: Vec<HistoryEntry> = inner.history.iter().cloned().collect();
            (inner.history.first_note(), here)
        };
        let mut entries = Vec::new();
        let mut next = 0;
        loop {
            let notes = self.store.notes_from::<HistoryEntry>(next)?;
            let Some((last, _)) = notes.last() else { break };
            next = last + 1;
            let older = notes
                .into_iter()
                .take_while(|(number, _)| first_here.is_none_or(|first| *number < first));
            entries.extend(older.filter_map(|(_, entry)| entry));
            if first_here.is_some_and(|first| next >= first) {
                break;
            }
        }
        entries.extend(here);
        join_generations(&mut entries);
        Ok(entries)
    }

    /// Drops what is older from the store, up to a number at a time; the newest
    /// lines stay whatever their age.
    pub fn drop_older(&self, oldest_ms: u64) -> Result<(), StoreError> {
        let notes = self.store.notes_from::<HistoryEntry>(0)?;
        let Some((first, _)) = notes.first() else {
            return Ok(());
        };
        let is_old = |entry: &Option<HistoryEntry>| {
            entry.as_ref().is_none_or(|entry| entry.time_ms < oldest_ms)
        };
        let mut young = notes.iter().skip_while(|(_, entry)| is_old(entry));
        let last = notes.last().map_or(*first, |(last, _)| last + 1);
        let end = young.next().map_or(last, |(number, _)| *number);
        let stay = self.store.last_note().saturating_sub(PAST_EVENTS_MIN);
        self.store.drop_notes(*first..end.min(stay + 1).max(*first))
    }

    /// What the datapath enforces.
    #[must_use]
    pub fn realized(&self) -> Option<Realized> {
        self.inner.lock().realized
    }

    /// Why the last generation was refused.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.inner.lock().problem.clone()
    }

    /// The names of one of the last generations.
    #[must_use]
    pub fn names(&self, generation: GenerationNumber) -> Option<Arc<GenerationNames>> {
        let inner = self.inner.lock();
        let mut names = inner.names.iter().rev();
        names
            .find(|names| names.generation == generation)
            .map(Arc::clone)
    }

    /// Wakes those who wait, for good.
    pub fn stop(&self) {
        self.inner.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until `done` holds, looked at after each commit. False after
    /// `span` or a stop.
    pub fn wait(&self, span: Duration, done: impl Fn() -> bool) -> bool {
        let until = self.clock.now().after(span);
        loop {
            // Not under the lock: `done` may ask for anything.
            let seen = self.inner.lock().commits;
            if done() {
                return true;
            }
            let left = until.since(self.clock.now());
            let mut inner = self.inner.lock();
            if inner.stopped || left.is_zero() {
                return false;
            }
            if inner.commits != seen {
                continue;
            }
            self.changed.wait_for(&mut inner, left);
        }
    }
}

/// Cuts a text at a character, and says so.
fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" [...]");
    }
}
