//! A bounded history of major events, for `palisade history`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Revision, Sequence};

/// One major event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub sequence: Option<Sequence>,
    pub revision: Revision,
    /// What happened, in a word: `policy-add`, `policy-refused`, `commit`...
    pub event: String,
    /// The resource or endpoint it happened to.
    pub subject: String,
    /// One sentence for the operator.
    pub message: String,
}

/// The newest entries, oldest first.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<HistoryEntry>,
    max: usize,
}

impl History {
    /// Holds at most `max` entries.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(max.min(64)),
            max,
        }
    }
    /// Appends an entry; the oldest one leaves when it is full.
    pub fn push(&mut self, entry: HistoryEntry) {
        if self.entries.len() == self.max {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter()
    }
}
