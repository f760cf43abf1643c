//! Reading the journal: in order, without a gap, a batch at a time.

use serde::de::DeserializeOwned;

use crate::envelope::{RecordKind, decode};
use crate::store::{Store, StoreError};
use crate::{backend::Limit, key};

/// Events of the journal, up to the first that cannot be read.
#[derive(Debug)]
pub struct Replay<T> {
    pub events: Vec<(u64, T)>,
    /// Why the journal ends earlier than its last record.
    pub problem: Option<String>,
}

/// What is read at once: small beside the snapshot that it is replayed on.
const BATCH: Limit = Limit {
    entries: 256,
    bytes: 4 << 20,
};

impl Store {
    /// All events that the newest snapshot does not cover.
    pub fn journal<T: DeserializeOwned>(&self) -> Result<Replay<T>, StoreError> {
        let newest = self.snapshots().last().map_or(0, |kept| kept.sequence);
        self.journal_after(newest)
    }

    /// All events after `sequence`.
    pub fn journal_after<T: DeserializeOwned>(
        &self,
        sequence: u64,
    ) -> Result<Replay<T>, StoreError> {
        let mut whole = self.events_after(sequence)?;
        while whole.problem.is_none()
            && let Some((last, _)) = whole.events.last()
        {
            let next = self.events_after(*last)?;
            whole.problem = next.problem;
            if next.events.is_empty() {
                break;
            }
            whole.events.extend(next.events);
        }
        Ok(whole)
    }

    /// The events that follow `sequence`, as many as one batch holds; none if
    /// it is the last. Other threads write between two batches.
    pub fn events_after<T: DeserializeOwned>(
        &self,
        sequence: u64,
    ) -> Result<Replay<T>, StoreError> {
        let mut replay = Replay {
            events: Vec::new(),
            problem: None,
        };
        let entries = self
            .backend
            .read()
            .range(&key::journal(sequence + 1), BATCH)?;
        for (key, value) in entries {
            let found = key::number_of(&key).unwrap_or_default();
            let due = sequence + replay.events.len() as u64 + 1;
            if found != due {
                replay.problem = Some(format!("journal ends before {due}, which is missing"));
                break;
            }
            let event = decode(RecordKind::JournalEvent, &value)
                .map_err(StoreError::from)
                .and_then(|(_, body)| Ok(serde_json::from_slice(body)?));
            match event {
                Ok(event) => replay.events.push((due, event)),
                Err(error) => {
                    replay.problem = Some(format!("journal ends before {due}: {error}"));
                    break;
                }
            }
        }
        Ok(replay)
    }
}
