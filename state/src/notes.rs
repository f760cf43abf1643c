//! Notes: what happened, in words, for people. A log beside the journal that
//! nothing is rebuilt from; what cannot be read of it is left out.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, Limit, MediumError};
use crate::envelope::{RecordKind, decode, encode};
use crate::key;
use crate::store::{Store, StoreError};

/// What is read at once.
const BATCH: Limit = Limit {
    entries: 1_024,
    bytes: 4 << 20,
};

/// The number of the newest note on the medium; 0 if there is none.
pub(crate) fn last(backend: &Backend) -> Result<u64, MediumError> {
    let key = backend.last(key::NOTE)?;
    Ok(key.as_deref().and_then(key::number_of).unwrap_or(0))
}

impl Store {
    /// Adds a note, which lasts after the next flush, and drops the one that is
    /// `keep_max` older. Returns its number.
    pub fn note<T: Serialize>(&self, note: &T, keep_max: u64) -> Result<u64, StoreError> {
        let bytes = encode(RecordKind::Note, &serde_json::to_vec(note)?)?;
        let mut last = self.notes.lock();
        let number = *last + 1;
        self.write(&key::note(number), Some(bytes))?;
        *last = number;
        if let Some(old) = number.checked_sub(keep_max).filter(|old| *old > 0) {
            self.write(&key::note(old), None)?;
        }
        Ok(number)
    }

    /// The number of the newest note.
    #[must_use]
    pub fn last_note(&self) -> u64 {
        *self.notes.lock()
    }

    /// Notes from `number` on, with their numbers, as many as one batch holds;
    /// none if there are no more. What cannot be read is None.
    pub fn notes_from<T: DeserializeOwned>(
        &self,
        number: u64,
    ) -> Result<Vec<(u64, Option<T>)>, StoreError> {
        let entries = self.backend.read().range(&key::note(number), BATCH)?;
        let read = |value: &[u8]| {
            let (_, body) = decode(RecordKind::Note, value).ok()?;
            serde_json::from_slice(body).ok()
        };
        Ok(entries
            .iter()
            .map(|(key, value)| (key::number_of(key).unwrap_or_default(), read(value)))
            .collect())
    }

    /// Drops the notes `first..end`.
    pub fn drop_notes(&self, numbers: std::ops::Range<u64>) -> Result<(), StoreError> {
        for number in numbers {
            self.write(&key::note(number), None)?;
        }
        Ok(())
    }
}
