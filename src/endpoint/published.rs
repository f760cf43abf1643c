//! What the committer tells the world: what is realized, the names of rules by
//! generation, how long changes took, and the history of major events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::meters;
use crate::clock::{Clock, Moment};
use crate::datapath::{GenerationNumber, Realized};
use crate::events::{History, HistoryEntry, ResourceKey, Revision, Sequence, SourceName};
use crate::limits::{DELAYS_MAX, GENERATION_NAMES_MAX, HISTORY_MAX};
use crate::policy::{PolicySnapshot, RuleCatalogue};

/// Names of what a generation's events and counters speak of.
#[derive(Clone, Debug)]
pub struct GenerationNames {
    pub generation: GenerationNumber,
    pub revision: Revision,
    pub rules: RuleCatalogue,
    /// The policies that made each direction default-deny.
    pub enforcing: [Vec<ResourceKey>; 2],
    /// Labels of the identities, and all else of that revision.
    pub snapshot: Arc<PolicySnapshot>,
}

/// Written by the workers, read by anybody.
pub struct Published {
    clock: Arc<dyn Clock>,
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
    pub fn new(clock: Arc<dyn Clock>, realized: Option<Realized>) -> Self {
        Self {
            clock,
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

    /// A generation is enforced: publish it and wake those who wait.
    pub fn commit(&self, realized: Realized, names: GenerationNames) {
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

    /// Adds a major event.
    pub fn record(
        &self,
        event: &str,
        sequence: Option<Sequence>,
        revision: Revision,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) {
        let entry = HistoryEntry {
            time_ms: self.clock.wall_ms(),
            sequence,
            revision,
            event: event.to_owned(),
            subject: subject.into(),
            message: message.into(),
        };
        tracing::info!(
            event = entry.event,
            revision = entry.revision.0,
            subject = entry.subject,
            "{}",
            entry.message
        );
        self.inner.lock().history.push(entry);
    }

    /// The last major events, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.inner.lock().history.iter().cloned().collect()
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
