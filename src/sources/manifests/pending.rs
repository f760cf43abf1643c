//! When to look at which file. No I/O, no clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::clock::Moment;
use crate::limits::{MANIFEST_DEBOUNCE, MANIFEST_DEBOUNCE_MAX, MANIFEST_WRITER_QUIET};

/// What was heard about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Touch {
    /// It is being written: its content may be half of what it will be.
    Writing,
    /// Written and closed, renamed, created by link, removed, changed in mode.
    Settled,
}

/// Paths that were touched since the last look.
#[derive(Debug, Default)]
pub(super) struct Pending {
    first: Option<Moment>,
    last: Moment,
    touched: BTreeSet<PathBuf>,
    writing: BTreeMap<PathBuf, Moment>,
}

impl Pending {
    pub(super) fn note(&mut self, path: PathBuf, touch: Touch, now: Moment) {
        match touch {
            Touch::Writing => {
                self.writing.insert(path.clone(), now);
            }
            Touch::Settled => {
                self.writing.remove(&path);
            }
        }
        self.touched.insert(path);
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// When to look: after a short silence, but not put off for ever.
    pub(super) fn due(&self) -> Option<Moment> {
        let first = self.first?;
        Some(
            self.last
                .after(MANIFEST_DEBOUNCE)
                .min(first.after(MANIFEST_DEBOUNCE_MAX)),
        )
    }

    /// Takes the touched paths for a look at `now`. Those that somebody writes
    /// stay, and are due again when the writer was quiet for long enough.
    pub(super) fn take(&mut self, now: Moment) -> Look {
        self.writing
            .retain(|_, last| now.since(*last) < MANIFEST_WRITER_QUIET);
        let busy: BTreeSet<PathBuf> = self.writing.keys().cloned().collect();
        let touched = std::mem::replace(&mut self.touched, busy.clone());
        self.first = (!busy.is_empty()).then_some(now);
        self.last = now;
        Look { touched, busy }
    }
}

/// What to look at.
#[derive(Debug, Default)]
pub(super) struct Look {
    touched: BTreeSet<PathBuf>,
    busy: BTreeSet<PathBuf>,
}

impl Look {
    /// Whether the file must be read whatever its fingerprint says.
    pub(super) fn must_read(&self, path: &Path) -> bool {
        self.touched.contains(path)
    }
    /// Whether somebody is writing it: leave it for now.
    pub(super) fn is_busy(&self, path: &Path) -> bool {
        self.busy.contains(path)
    }
    /// Whether every file could be looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.busy.is_empty()
    }
}
