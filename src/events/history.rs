//! A bounded history of major events, for `palisade history`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Revision, Sequence, SourceName};

/// What an event of the journal did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// One new revision.
    Applied,
    /// Invalid, or another source's: what was in force stays.
    Refused,
    /// Nothing that matters changed.
    Unchanged,
    /// It waits until every source is in sync.
    Deferred,
}

impl Outcome {
    /// The word in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
            Self::Deferred => "deferred",
        }
    }
}

/// One major event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Milliseconds since 1970; of an event of the journal: when it was accepted.
    pub time_ms: u64,
    /// Its place in the journal, if it has one.
    pub sequence: Option<Sequence>,
    pub revision: Revision,
    /// What happened, in a word: `policy-add`, `policy-refused`, `commit`...
    pub event: String,
    /// The resource or endpoint it happened to.
    pub subject: String,
    /// One sentence for the operator.
    pub message: String,
    /// The source that brought it, if it is a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<SourceName>,
    /// What it did, if it is of the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The generation that enforced it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// The newest entries, oldest first, with the numbers of their notes.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<(Option<u64>, HistoryEntry)>,
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
    /// Appends an entry; the oldest one leaves when it is full. `note`: where the
    /// store has it, if it has.
    pub fn push(&mut self, note: Option<u64>, entry: HistoryEntry) {
        if self.entries.len() == self.max {
            self.entries.pop_front();
        }
        self.entries.push_back((note, entry));
    }
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter().map(|(_, entry)| entry)
    }
    /// The first note that is held here; what is older is in the store only.
    #[must_use]
    pub fn first_note(&self) -> Option<u64> {
        self.entries.iter().find_map(|(note, _)| *note)
    }
}

/// Fills in which generation enforced each applied change: that of the first
/// later commit that contains its revision. Entries are in order of time.
pub fn join_generations(entries: &mut [HistoryEntry]) {
    // Commits behind the entry that is looked at, the nearest last.
    let mut commits: Vec<(Revision, u32)> = Vec::new();
    for entry in entries.iter_mut().rev() {
        match (entry.outcome, entry.generation) {
            (None, Some(generation)) => commits.push((entry.revision, generation)),
            (Some(Outcome::Applied), None) => {
                let mut later = commits.iter().rev();
                let commit = later.find(|(revision, _)| *revision >= entry.revision);
                entry.generation = commit.map(|(_, generation)| *generation);
            }
            (None | Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, outcome: Option<Outcome>, generation: Option<u32>) -> HistoryEntry {
        HistoryEntry {
            time_ms: 0,
            sequence: None,
            revision: Revision(revision),
            event: String::new(),
            subject: String::new(),
            message: String::new(),
            cause: None,
            outcome,
            generation,
        }
    }

    #[test]
    fn a_change_gets_the_generation_of_the_first_commit_that_contains_it() {
        let applied = Some(Outcome::Applied);
        let mut entries = [
            entry(2, applied, None),
            entry(3, applied, None),
            // A build of revision 2 that was on its way.
            entry(2, None, Some(7)),
            entry(3, Some(Outcome::Refused), None),
            entry(3, None, Some(8)),
            entry(4, applied, None),
            // A reboot: the count begins anew.
            entry(4, None, Some(1)),
            entry(5, applied, None),
        ];
        join_generations(&mut entries);
        let found: Vec<Option<u32>> = entries.iter().map(|entry| entry.generation).collect();
        let expected = [
            Some(7),
            Some(8),
            Some(7),
            None,
            Some(8),
            Some(1),
            Some(1),
            None,
        ];
        assert_eq!(found, expected);
    }
}
