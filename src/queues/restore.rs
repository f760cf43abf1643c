//! What lasts, brought up again: the newest snapshot that can be read, and what the
//! journal holds beyond it.

use palisade_state::{Kept, Store};

use super::desk::{Desk, JournalEvent};
use super::past;
use super::told::Telling;
use crate::events::{HistoryEntry, Revision, Sequence};
use crate::policy::PolicyOptions;

/// A desk brought up from the store.
pub(super) struct Restored {
    pub(super) desk: Desk,
    /// The last event it has seen.
    pub(super) applied: Sequence,
    /// Events since the snapshot.
    pub(super) replayed: usize,
    /// What could not be restored.
    pub(super) problems: Vec<String>,
    /// The state does not follow from what the store holds.
    pub(super) is_broken: bool,
    /// Lines of the history that the last life did not get to the disk.
    pub(super) untold: Vec<HistoryEntry>,
}

impl Restored {
    /// The kernel is further than the store.
    pub(super) fn count_on(&mut self, newest: Revision) {
        let found = self.desk.repository.revision();
        self.problems.push(format!(
            "the kernel enforces revision {newest} and the store ends at {found}: what came \
             between is lost, and the sources tell it anew"
        ));
        self.desk.continue_from(newest);
        self.is_broken = true;
    }

    /// Nothing of what an earlier life journaled is known, or not all.
    pub(super) fn is_lost(&self) -> bool {
        self.is_broken || self.applied == Sequence(0)
    }
}

/// Snapshot and journal, or an empty repository and the reason. A snapshot that
/// cannot be read is replaced by the one before it and a longer replay.
pub(super) fn restore(store: &Store, options: &PolicyOptions) -> Restored {
    let mut restored = Restored {
        desk: Desk::new(options.clone()),
        applied: Sequence(0),
        replayed: 0,
        problems: Vec::new(),
        is_broken: false,
        untold: Vec::new(),
    };
    let mut notes = 0;
    match newest_readable(store, options, &mut restored.problems) {
        Some((desk, snapshot)) => {
            restored.desk = desk;
            restored.applied = Sequence(snapshot.sequence);
            notes = snapshot.notes;
        }
        None if !restored.problems.is_empty() => {
            // The journal does not begin at its beginning: it is of no use.
            restored.applied = Sequence(store.appended());
            restored.is_broken = true;
        }
        None => {}
    }
    replay(store, &mut restored);
    drop_told(store, notes, &mut restored);
    restored
}

fn newest_readable(
    store: &Store,
    options: &PolicyOptions,
    problems: &mut Vec<String>,
) -> Option<(Desk, Kept)> {
    let mut kept = store.snapshots();
    if kept.is_empty()
        && let Err(error) = store.load_snapshot()
    {
        problems.push(format!("snapshot: {error}"));
    }
    while let Some(snapshot) = kept.pop() {
        match past::load(store, &snapshot, options) {
            Ok(desk) => return Some((desk, snapshot)),
            Err(error) => problems.push(error.to_string()),
        }
        if snapshot.begins {
            break;
        }
    }
    None
}

/// Takes what the journal holds beyond the snapshot.
fn replay(store: &Store, restored: &mut Restored) {
    let replay = match store.journal_after::<JournalEvent>(restored.applied.0) {
        Ok(replay) => replay,
        Err(error) => {
            restored.is_broken = true;
            return restored.problems.push(format!("journal: {error}"));
        }
    };
    restored.is_broken |= replay.problem.is_some();
    restored.problems.extend(replay.problem);
    for (sequence, event) in replay.events {
        restored.applied = Sequence(sequence);
        restored.replayed += 1;
        let revision = restored.desk.repository.revision();
        let telling = Telling::new(restored.applied, &event, revision);
        let done = restored.desk.take(restored.applied, event);
        restored.untold.extend(telling.entries(&done));
    }
}

/// Of the lines that the replay told again, keeps those that the last life did
/// not get to the disk. Notes are written in order, so these are the last ones.
fn drop_told(store: &Store, since: u64, restored: &mut Restored) {
    let mut told = 0;
    let mut next = since + 1;
    while let Ok(notes) = store.notes_from::<HistoryEntry>(next)
        && let Some((last, _)) = notes.last()
    {
        next = last + 1;
        let of_journal = |(_, entry): &&(u64, Option<HistoryEntry>)| {
            entry.as_ref().is_some_and(|entry| entry.sequence.is_some())
        };
        told += notes.iter().filter(of_journal).count();
    }
    restored.untold.drain(..told.min(restored.untold.len()));
}
