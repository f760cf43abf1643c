//! Snapshots and what is kept behind them.
//!
//! One record, the head, names every snapshot that is kept; it is replaced by
//! one write after the new snapshot is on the disk. What it no longer names is
//! waste from the moment the new head is on the disk, and is deleted a few
//! records at a time ([`Store::sweep`]), or found again at the next start. So a
//! death between any two writes leaves a whole past, the old or the new one.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, MediumError};
use crate::envelope::{RecordKind, decode, encode};
use crate::key;
use crate::retention::{Kept, Retention, select};
use crate::store::{Store, StoreError};

/// A snapshot: what the journal up to `sequence` amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub sequence: u64,
    pub bytes: Vec<u8>,
}

/// A snapshot to be saved, and what will be asked of it later.
#[derive(Clone, Copy, Debug)]
pub struct NewSnapshot<'a> {
    pub sequence: u64,
    pub revision: u64,
    /// No replay leads over it: see [`Kept::begins`].
    pub begins: bool,
    pub newest_event_ms: u64,
    pub bytes: &'a [u8],
}

/// The head: the newest snapshot, then the others. Agents that kept one
/// snapshot only wrote and read the newest alone.
#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    #[serde(flatten)]
    newest: Kept,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Kept>,
}

/// What is kept, and what is to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Oldest first; as the head says.
    kept: Vec<Kept>,
    /// Named no longer by a head that is perhaps not yet on the disk.
    leaving: Vec<Kept>,
    /// Events that nothing needs.
    waste_events: Range<u64>,
    /// Keys of chunks that nothing needs.
    waste_chunks: Vec<Vec<u8>>,
}

impl Past {
    /// Looks at what the medium holds. A damaged head keeps nothing.
    pub(crate) fn read(backend: &Backend) -> Result<Self, MediumError> {
        let mut past = Self {
            kept: head(backend),
            ..Self::default()
        };
        backend.visit(key::CHUNK, &mut |key, _| {
            let owner = key::number_of(key);
            if !past.kept.iter().any(|kept| owner == Some(kept.sequence)) {
                past.waste_chunks.push(key.to_vec());
            }
        })?;
        let first = backend.first(key::JOURNAL)?;
        past.waste_events.start = first.as_deref().and_then(key::number_of).unwrap_or(1);
        past.release();
        Ok(past)
    }

    /// The newest sequence that a snapshot covers.
    pub(crate) fn covered(&self) -> u64 {
        self.kept.last().map_or(0, |kept| kept.sequence)
    }

    /// The head is on the disk: what it does not name is waste.
    fn release(&mut self) {
        for gone in std::mem::take(&mut self.leaving) {
            let chunks = (0..gone.chunks).map(|number| key::chunk(gone.sequence, number));
            self.waste_chunks.extend(chunks);
        }
        if let Some(base) = self.kept.first() {
            self.waste_events.end = base.sequence + 1;
        }
    }
}

fn head(backend: &Backend) -> Vec<Kept> {
    let record = backend.get(&key::record(RecordKind::SnapshotHead, 0));
    let Ok(Some(bytes)) = record else {
        return Vec::new();
    };
    let Ok((_, body)) = decode(RecordKind::SnapshotHead, &bytes) else {
        return Vec::new();
    };
    let Ok(SnapshotHead { newest, earlier }) = serde_json::from_slice(body) else {
        return Vec::new();
    };
    let mut kept = earlier;
    kept.push(newest);
    kept
}

impl Store {
    /// The snapshots that are kept, oldest first. Everything since the oldest
    /// one is there.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Kept> {
        self.past.lock().kept.clone()
    }

    /// Bytes of the events behind the newest snapshot, and of that snapshot: what
    /// the next start reads.
    #[must_use]
    pub fn sizes_of_replay(&self) -> (u64, u64) {
        let snapshot = self.past.lock().kept.last().map_or(0, |kept| kept.bytes);
        (self.bytes_since_snapshot(), snapshot)
    }

    /// Saves what the journal up to `new.sequence` amounts to, and lets go of
    /// what `retention` does not keep. In memory only the newest is kept.
    pub fn save_snapshot(
        &self,
        new: &NewSnapshot<'_>,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut past = self.past.lock();
        if past.covered() == new.sequence && !past.kept.is_empty() {
            self.flush()?;
            past.release();
            return Ok(());
        }
        // An earlier attempt at this one may have been taken for waste.
        let mine = |key: &Vec<u8>| key::number_of(key) == Some(new.sequence);
        past.waste_chunks.retain(|key| !mine(key));
        let chunks = self.put_chunks(new)?;
        self.flush()?;
        let events_bytes = self.bytes_since_snapshot();
        let mut all = past.kept.clone();
        all.push(Kept {
            sequence: new.sequence,
            chunks,
            bytes: new.bytes.len() as u64,
            revision: new.revision,
            begins: new.begins,
            newest_event_ms: new.newest_event_ms,
            events_bytes,
            notes: self.last_note(),
        });
        let mut retention = *retention;
        if self.must_save_memory() {
            retention.snapshots_max = 1;
        }
        let (kept, gone) = select(all, &retention, now_ms);
        let (newest, earlier) = kept.split_last().expect("the newest always stays");
        let head = SnapshotHead {
            newest: newest.clone(),
            earlier: earlier.to_vec(),
        };
        self.put(RecordKind::SnapshotHead, 0, &head)?;
        self.snapshot_took(events_bytes);
        past.kept = kept;
        past.leaving.extend(gone);
        self.flush()?;
        past.release();
        drop(past);
        self.compact_if_grown();
        Ok(())
    }

    fn put_chunks(&self, new: &NewSnapshot<'_>) -> Result<u32, StoreError> {
        let mut chunks = 0;
        for chunk in new.bytes.chunks(RecordKind::SnapshotChunk.body_bytes_max()) {
            let record = encode(RecordKind::SnapshotChunk, chunk)?;
            self.write(&key::chunk(new.sequence, chunks), Some(record))?;
            chunks += 1;
        }
        Ok(chunks)
    }

    /// Deletes at most `max` records that nothing needs; returns how many. Lasts
    /// with a later flush; until then they are only dead weight.
    pub fn sweep(&self, max: usize) -> Result<usize, StoreError> {
        let mut past = self.past.lock();
        let mut swept = 0;
        while swept < max && past.waste_events.start < past.waste_events.end {
            self.write(&key::journal(past.waste_events.start), None)?;
            past.waste_events.start += 1;
            swept += 1;
        }
        while swept < max
            && let Some(key) = past.waste_chunks.last()
        {
            self.write(key, None)?;
            past.waste_chunks.pop();
            swept += 1;
        }
        Ok(swept)
    }

    /// The newest snapshot, verified. None if none was ever saved.
    pub fn load_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        // A damaged head is an error here, not an empty past.
        let head: Option<SnapshotHead> = self.get(RecordKind::SnapshotHead, 0)?;
        let newest = head.map(|head| self.snapshot(&head.newest));
        newest.transpose()
    }

    /// One of the snapshots that are kept, verified.
    pub fn snapshot(&self, kept: &Kept) -> Result<Snapshot, StoreError> {
        let mut bytes = Vec::new();
        for number in 0..kept.chunks {
            let key = key::chunk(kept.sequence, number);
            let chunk = self.backend.read().get(&key)?.unwrap_or_default();
            bytes.extend(decode(RecordKind::SnapshotChunk, &chunk)?.1);
        }
        let found = bytes.len() as u64;
        if found != kept.bytes {
            return Err(StoreError::Incomplete {
                found,
                due: kept.bytes,
            });
        }
        Ok(Snapshot {
            sequence: kept.sequence,
            bytes,
        })
    }
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
