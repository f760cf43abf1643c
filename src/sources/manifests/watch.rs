//! The thread of the manifests directories: notifications, scans, reads.
//!
//! Owner: thread `manifests`. Notifications only say when to look; what is true
//! comes from listing the directory, so a lost notification costs time, never
//! correctness.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::files::{Fingerprint, is_manifest_name, read_capped, scan};
use super::pending::{Look, Pending, Touch};
use super::state::{ManifestState, Observation};
use crate::clock::Clock;
use crate::events::{RepositoryChange, Resource, SourceName};
use crate::limits::{
    MANIFEST_EVENTS_MAX, MANIFEST_FILE_BYTES_MAX, MANIFEST_RESCAN, MANIFEST_RETRY,
};
use crate::queues::SubmitError;
use crate::sources::{ChangeSink, SourceBoard, SourceProblem, SourceReport};

/// What the thread hears.
#[derive(Debug)]
enum Heard {
    Event(notify::Event),
    Stop,
}

/// Tells the thread to end.
#[derive(Clone, Debug)]
pub struct Stopper(crossbeam_channel::Sender<Heard>, Arc<AtomicBool>);

impl Stopper {
    /// Ends the thread after its current step.
    pub fn stop(&self) {
        self.1.store(true, Ordering::SeqCst);
        // A full channel wakes the thread as well.
        drop(self.0.try_send(Heard::Stop));
    }
}

/// Watches directories of manifests.
pub struct ManifestWatch {
    directories: Vec<Directory>,
    state: ManifestState,
    pending: Pending,
    seen: BTreeMap<PathBuf, Fingerprint>,
    watcher: Option<RecommendedWatcher>,
    heard: Receiver<Heard>,
    stopper: Stopper,
    in_sync: bool,
    sink: Arc<dyn ChangeSink>,
    board: Arc<SourceBoard>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// The directory that notifications come from: it may be replaced.
    watched: Option<Fingerprint>,
    problem: Option<String>,
}

impl std::fmt::Debug for ManifestWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestWatch")
            .field("directories", &self.directories)
            .finish_non_exhaustive()
    }
}

impl ManifestWatch {
    /// A watch of `directories`. `restored` is what an earlier life of the
    /// agent took from them.
    #[must_use]
    pub fn new(
        directories: &[PathBuf],
        restored: Vec<Resource>,
        sink: Arc<dyn ChangeSink>,
        board: Arc<SourceBoard>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (sender, heard) = bounded(MANIFEST_EVENTS_MAX);
        let events = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Errors and a full channel lose nothing: the next scan sees it.
            if let Ok(event) = event {
                drop(events.try_send(Heard::Event(event)));
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file notifications; manifests are scanned periodically");
        }
        Self {
            directories: directories
                .iter()
                .map(|path| Directory::new(path))
                .collect(),
            state: ManifestState::restore(restored),
            pending: Pending::default(),
            seen: BTreeMap::new(),
            watcher: watcher.ok(),
            heard,
            stopper: Stopper(sender, Arc::new(AtomicBool::new(false))),
            in_sync: false,
            sink,
            board,
            clock,
        }
    }

    /// Ends [`Self::run`].
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Watches until stopped, or until the pipeline stops.
    pub fn run(mut self) {
        loop {
            if let Err(error) = self.look() {
                tracing::info!("manifests are watched no more: {error}");
                return;
            }
            if !self.listen() {
                return;
            }
        }
    }

    /// Waits for the next look. False: stop.
    fn listen(&mut self) -> bool {
        let is_healthy = |directory: &Directory| directory.problem.is_none();
        let idle = if self.in_sync && self.directories.iter().all(is_healthy) {
            MANIFEST_RESCAN
        } else {
            MANIFEST_RETRY
        };
        let rescan = self.clock.now().after(idle);
        loop {
            let due = self.pending.due().map_or(rescan, |due| due.min(rescan));
            let wait = due.since(self.clock.now());
            if wait.is_zero() {
                return !self.stopper.1.load(Ordering::SeqCst);
            }
            match self.heard.recv_timeout(wait) {
                Ok(Heard::Event(event)) => self.note(event),
                Ok(Heard::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn note(&mut self, event: notify::Event) {
        let Some(touch) = touch_of(&event.kind) else {
            return;
        };
        let now = self.clock.now();
        for path in event.paths {
            let replaced = self.directories.iter_mut().find(|known| known.path == path);
            if let Some(directory) = replaced {
                directory.watched = None;
            }
            let touch = if is_manifest_name(&path) {
                touch
            } else {
                Touch::Settled
            };
            self.pending.note(path, touch, now);
        }
    }

    /// One look at every directory, and what follows from it.
    fn look(&mut self) -> Result<(), SubmitError> {
        let look = self.pending.take(self.clock.now());
        let mut complete = look.is_complete();
        for position in 0..self.directories.len() {
            complete &= self.look_at(position, &look);
        }
        let paths: Vec<PathBuf> = self.directories.iter().map(|d| d.path.clone()).collect();
        for stray in self.state.strays(&paths) {
            self.state.observe(&stray, Observation::Gone);
        }
        let settled = self.state.settle();
        for (key, positions) in settled.places {
            self.board.place(&key, positions);
        }
        for change in settled.changes {
            tracing::info!(subject = change.subject(), "manifest changed");
            self.submit(change)?;
        }
        if complete && !self.in_sync {
            self.sink
                .in_sync(SourceName::Manifests, &self.state.keys())?;
            self.in_sync = true;
        }
        self.report();
        Ok(())
    }

    /// What the journal cannot take is told and left out; the rest goes on.
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError> {
        let subject = change.subject();
        if let RepositoryChange::Delete { key, .. } = &change {
            self.board.forget(key);
        }
        match self.sink.submit(change) {
            Err(SubmitError::Journal(reason)) => {
                tracing::error!(subject, "manifest not taken: {reason}");
                Ok(())
            }
            other => other,
        }
    }

    /// False when the directory could not be listed: what it held stays.
    fn look_at(&mut self, position: usize, look: &Look) -> bool {
        let path = self.directories[position].path.clone();
        self.rewatch(position);
        let files = match scan(&path) {
            Ok(files) => files,
            Err(error) => {
                let directory = &mut self.directories[position];
                directory.watched = None;
                directory.problem = Some(format!(
                    "{error}; what it held stays in force, and it is looked at again"
                ));
                return false;
            }
        };
        self.directories[position].problem = None;
        let gone: Vec<PathBuf> = self
            .state
            .files_in(&path)
            .filter(|known| files.binary_search(known).is_err())
            .cloned()
            .collect();
        for file in gone {
            self.forget(&file);
        }
        for file in files {
            if !look.is_busy(&file) {
                self.look_at_file(&file, look.must_read(&file));
            }
        }
        true
    }

    fn look_at_file(&mut self, file: &Path, must_read: bool) {
        let before = Fingerprint::of(file).ok();
        if !must_read && before.is_some() && self.seen.get(file) == before.as_ref() {
            return;
        }
        let observation = match read_capped(file, MANIFEST_FILE_BYTES_MAX) {
            Ok(bytes) => Observation::Content(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.forget(file);
                return;
            }
            Err(error) => Observation::Unreadable(error.to_string()),
        };
        match before.filter(|print| !print.is_racy(self.clock.wall_ms())) {
            Some(print) => self.seen.insert(file.to_owned(), print),
            None => self.seen.remove(file),
        };
        self.state.observe(file, observation);
    }

    fn forget(&mut self, file: &Path) {
        self.seen.remove(file);
        self.state.observe(file, Observation::Gone);
    }

    /// Listens to the directory that the path names now.
    fn rewatch(&mut self, position: usize) {
        let directory = &mut self.directories[position];
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let now = Fingerprint::of(&directory.path).ok();
        let same = match (&directory.watched, &now) {
            (Some(watched), Some(now)) => watched.is_same_file(now),
            _ => false,
        };
        if same {
            return;
        }
        drop(watcher.unwatch(&directory.path));
        directory.watched = None;
        if now.is_some() {
            match watcher.watch(&directory.path, RecursiveMode::NonRecursive) {
                Ok(()) => directory.watched = now,
                Err(error) => {
                    tracing::warn!(directory = %directory.path.display(), %error, "no file notifications");
                }
            }
        }
    }

    fn report(&self) {
        let mut problems = Vec::new();
        for directory in &self.directories {
            if let Some(problem) = &directory.problem {
                problems.push(SourceProblem {
                    subject: directory.path.display().to_string(),
                    message: problem.clone(),
                });
            }
        }
        problems.extend(self.state.problems());
        let before = self.board.reports().remove(&SourceName::Manifests);
        let known = before.map(|report| report.problems).unwrap_or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(subject = problem.subject, "manifest: {}", problem.message);
        }
        let directories: Vec<String> = self
            .directories
            .iter()
            .map(|directory| directory.path.display().to_string())
            .collect();
        self.board.post(
            SourceName::Manifests,
            SourceReport {
                in_sync: self.in_sync,
                resources: self.state.keys().len(),
                detail: directories.join(", "),
                problems,
                notes: self.state.notes(),
                kinds: Vec::new(),
            },
        );
    }
}

impl Directory {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            watched: None,
            problem: None,
        }
    }
}

/// What an event means for the file; None for what cannot change its content.
fn touch_of(kind: &EventKind) -> Option<Touch> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Touch::Settled),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(CreateKind::File) => {
            Some(Touch::Writing)
        }
        _ => Some(Touch::Settled),
    }
}
