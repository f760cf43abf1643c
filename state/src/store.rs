//! The store: journal, snapshot, records.
//!
//! Any thread may call it. Invariants: sequences rise by one, also over
//! restarts and trims; [`Store::durable`] never exceeds what is on the disk;
//! the journal is trimmed only below a snapshot that is on the disk.

use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, MediumError};
use crate::beside::Beside;
use crate::compact::{self, COMPACT_BYTES_MIN, COMPACT_GROWTH};
use crate::disk::{Disk, set_aside};
use crate::envelope::{EnvelopeError, RecordKind, decode, encode};
use crate::memory::MemoryDisk;
use crate::records::{AuditRecord, BootRecord, EndpointRecord, GenerationsRecord, StoreIdentity};
use crate::schema::{MIGRATIONS, SCHEMA_VERSION, bring_up};

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} is in use by another agent; stop it or choose another --state-dir")]
    InUse { path: PathBuf },
    #[error("the store has schema {found}, this agent knows up to {known}; use the newer agent")]
    NewerSchema { found: u32, known: u32 },
    #[error("no way leads from schema {from} to this agent's")]
    NoMigration { from: u32 },
    #[error("store: {0}")]
    Medium(String),
    #[error("store: {0}")]
    Envelope(#[from] EnvelopeError),
    #[error("store: record does not parse: {0}")]
    Body(#[from] serde_json::Error),
    #[error("store: snapshot is incomplete: {found} of {due} bytes")]
    Incomplete { found: u64, due: u64 },
}

impl From<MediumError> for StoreError {
    fn from(error: MediumError) -> Self {
        Self::Medium(error.0)
    }
}

/// Keys: one byte that names the family, then big-endian numbers, so that the
/// order of keys is the order of numbers.
pub(crate) mod key {
    use crate::envelope::RecordKind;

    pub(crate) const JOURNAL: u8 = b'j';
    pub(crate) const CHUNK: u8 = b'c';
    pub(crate) const RECORD: u8 = b'r';

    pub(crate) fn journal(sequence: u64) -> Vec<u8> {
        number(JOURNAL, sequence)
    }
    pub(crate) fn chunk(sequence: u64, number_of_chunk: u32) -> Vec<u8> {
        let mut key = number(CHUNK, sequence);
        key.extend(number_of_chunk.to_be_bytes());
        key
    }
    pub(crate) fn record(kind: RecordKind, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        vec![RECORD, kind as u8, high, low]
    }
    /// The number behind the family's byte.
    pub(crate) fn sequence_of(key: &[u8]) -> Option<u64> {
        let bytes = key.get(1..9)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    }
    fn number(family: u8, number: u64) -> Vec<u8> {
        let mut key = vec![family];
        key.extend(number.to_be_bytes());
        key
    }
}

/// Events of the journal, up to the first that cannot be read.
#[derive(Debug)]
pub struct Replay<T> {
    pub events: Vec<(u64, T)>,
    /// Why the journal ends earlier than its last record.
    pub problem: Option<String>,
}

/// A snapshot: what the journal up to `sequence` amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub sequence: u64,
    pub bytes: Vec<u8>,
}

#[derive(Serialize, serde::Deserialize)]
struct SnapshotHead {
    sequence: u64,
    chunks: u32,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Progress {
    appended: u64,
    durable: u64,
}

/// The store of one agent. One process opens it.
#[derive(Debug)]
pub struct Store {
    backend: RwLock<Backend>,
    progress: Mutex<Progress>,
    /// One flush at a time; those that wait find their work done.
    flushing: Mutex<()>,
    problem: Mutex<Option<String>>,
    /// Size of the database after it was last rewritten.
    compacted_bytes: Mutex<u64>,
    /// Size below which it is not rewritten.
    compact_bytes_min: u64,
    /// None in memory.
    beside: Option<Beside>,
    /// Held for as long as the store is open.
    _lock: Option<std::fs::File>,
}

impl Store {
    /// Opens the store in `dir`. A database that cannot be opened is set aside
    /// as `journal.broken-<n>`; if none can be had, the store is in memory.
    /// [`Self::problem`] tells. The only error is another agent's lock.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let lock = match lock(dir) {
            Ok(lock) => lock,
            Err(LockError::Held) => {
                return Err(StoreError::InUse {
                    path: dir.to_owned(),
                });
            }
            Err(LockError::Io(error)) => {
                return Ok(Self::forgetful(format!("{}: {error}", dir.display())));
            }
        };
        let folder = dir.join("journal");
        if let Err(error) = compact::recover(&folder) {
            return Ok(Self::forgetful(format!("{}: {error}", dir.display())));
        }
        let mut store = match Self::try_open(&folder) {
            Ok(store) => store,
            // A newer agent's store is not broken: it stays where it is.
            Err(error @ (StoreError::NewerSchema { .. } | StoreError::NoMigration { .. })) => {
                Self::forgetful(error.to_string())
            }
            Err(error) => Self::open_again(&folder, &error),
        };
        store._lock = Some(lock);
        store.stand_beside(Beside::new(dir));
        Ok(store)
    }

    /// A store that forgets: tests, and agents without a state directory.
    #[must_use]
    pub fn memory() -> Self {
        Self::around(Backend::Memory(MemoryDisk::new()))
            .expect("an empty disk in memory has nothing to refuse")
    }

    /// A store on a disk in memory that outlives it (the simulation).
    pub fn on(disk: MemoryDisk) -> Result<Self, StoreError> {
        Self::around(Backend::Memory(disk))
    }

    /// Compares the database with what was written beside it: sled opens a
    /// file that it cannot read at all as an empty one.
    fn stand_beside(&mut self, beside: Beside) {
        if !matches!(*self.backend.get_mut(), Backend::Disk(_)) {
            self.beside = Some(beside);
            return;
        }
        let ours = self.identity().ok().flatten().unwrap_or_default();
        let expected = beside.identity();
        if expected.as_ref() != Some(&ours) {
            let problem = self.problem.get_mut();
            if let (Some(expected), None) = (expected, &problem) {
                *problem = Some(format!(
                    "the store was {} and is {}: it was lost or swapped; what was in it is gone",
                    expected.id, ours.id
                ));
            }
            if let Err(error) = beside.put_identity(&ours) {
                *self.problem.get_mut() = Some(error.to_string());
            }
        }
        self.beside = Some(beside);
    }

    fn try_open(folder: &Path) -> Result<Self, StoreError> {
        let store = Self::around(Backend::Disk(Disk::open(folder)?))?;
        // Read everything once: sled finds damage only where it reads.
        let backend = store.backend.read();
        for family in [key::JOURNAL, key::CHUNK, key::RECORD] {
            backend.scan(family)?;
        }
        drop(backend);
        store.compact_if_grown();
        Ok(store)
    }

    fn open_again(folder: &Path, error: &StoreError) -> Self {
        let aside = match set_aside(folder) {
            Ok(aside) => aside,
            Err(rename) => {
                return Self::forgetful(format!("{error}; it could not be set aside: {rename}"));
            }
        };
        let problem = format!("{error}; it was set aside as {}", aside.display());
        match Self::try_open(folder) {
            Ok(store) => {
                *store.problem.lock() = Some(problem);
                store
            }
            Err(again) => Self::forgetful(format!("{problem}; a new one failed too: {again}")),
        }
    }

    fn forgetful(problem: String) -> Self {
        let store = Self::memory();
        *store.problem.lock() = Some(format!("{problem}; running without history"));
        store
    }

    fn around(backend: Backend) -> Result<Self, StoreError> {
        bring_up(&backend, MIGRATIONS, SCHEMA_VERSION)?;
        let journal = backend.scan(key::JOURNAL)?;
        let last = journal.last().and_then(|(key, _)| key::sequence_of(key));
        let store = Self {
            backend: RwLock::new(backend),
            progress: Mutex::default(),
            flushing: Mutex::new(()),
            problem: Mutex::new(None),
            compacted_bytes: Mutex::new(0),
            compact_bytes_min: COMPACT_BYTES_MIN,
            beside: None,
            _lock: None,
        };
        // A damaged snapshot is reported where it is loaded.
        let head = store.head().ok().flatten().map_or(0, |head| head.sequence);
        let sequence = last.unwrap_or(0).max(head);
        *store.progress.lock() = Progress {
            appended: sequence,
            durable: sequence,
        };
        if store.identity()?.is_none() {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
            let identity = StoreIdentity {
                id: id.trim().to_owned(),
            };
            store.put(RecordKind::Identity, 0, &identity)?;
            store.flush()?;
        }
        Ok(store)
    }

    /// What is wrong with the store; None when all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Gives the medium up and goes on in memory, counting sequences on. For
    /// when flushes keep failing: enforcement must not wait for a disk.
    pub fn abandon(&self, reason: &str) {
        let flushing = self.flushing.lock();
        let mut progress = self.progress.lock();
        *self.backend.write() = Backend::Memory(MemoryDisk::new());
        progress.durable = progress.appended;
        *self.problem.lock() = Some(format!(
            "{reason}; running without history since sequence {}",
            progress.appended
        ));
        drop(flushing);
    }

    /// Appends one event to the journal. It lasts after the next flush.
    pub fn append<T: Serialize>(&self, event: &T) -> Result<u64, StoreError> {
        let bytes = encode(RecordKind::JournalEvent, &serde_json::to_vec(event)?)?;
        let mut progress = self.progress.lock();
        let sequence = progress.appended + 1;
        self.backend.read().put(&key::journal(sequence), bytes)?;
        progress.appended = sequence;
        Ok(sequence)
    }

    /// Makes everything written so far last; returns the newest sequence that
    /// does. One flush serves all that were appended before it.
    pub fn flush(&self) -> Result<u64, StoreError> {
        let _one = self.flushing.lock();
        let target = self.progress.lock().appended;
        self.backend.read().flush()?;
        self.progress.lock().durable = target;
        Ok(target)
    }

    /// Newest sequence that is on the disk.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.progress.lock().durable
    }

    /// Newest sequence.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.progress.lock().appended
    }

    /// All events that the snapshot does not cover.
    pub fn journal<T: DeserializeOwned>(&self) -> Result<Replay<T>, StoreError> {
        let after = self.head().ok().flatten().map_or(0, |head| head.sequence);
        let mut replay = Replay {
            events: Vec::new(),
            problem: None,
        };
        for (key, value) in self.backend.read().scan(key::JOURNAL)? {
            let Some(sequence) = key::sequence_of(&key).filter(|sequence| *sequence > after) else {
                continue;
            };
            let due = after + replay.events.len() as u64 + 1;
            if sequence != due {
                replay.problem = Some(format!("journal ends before {due}, which is missing"));
                break;
            }
            let event = decode(RecordKind::JournalEvent, &value)
                .map_err(StoreError::from)
                .and_then(|(_, body)| Ok(serde_json::from_slice(body)?));
            match event {
                Ok(event) => replay.events.push((sequence, event)),
                Err(error) => {
                    replay.problem = Some(format!("journal ends before {sequence}: {error}"));
                    break;
                }
            }
        }
        Ok(replay)
    }

    /// Replaces the snapshot by what the journal up to `sequence` amounts to,
    /// then drops these events. A crash in between leaves the old or the new.
    pub fn save_snapshot(&self, sequence: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut chunks = 0;
        {
            let backend = self.backend.read();
            for chunk in bytes.chunks(RecordKind::SnapshotChunk.body_bytes_max()) {
                let record = encode(RecordKind::SnapshotChunk, chunk)?;
                backend.put(&key::chunk(sequence, chunks), record)?;
                chunks += 1;
            }
        }
        self.flush()?;
        let head = SnapshotHead {
            sequence,
            chunks,
            bytes: bytes.len() as u64,
        };
        self.put(RecordKind::SnapshotHead, 0, &head)?;
        self.flush()?;
        self.trim(sequence)?;
        self.compact_if_grown();
        Ok(())
    }

    /// Rewrites the database when most of it is waste. A failure is no harm:
    /// the old one serves on, or the store says that it runs without history.
    fn compact_if_grown(&self) {
        let _one = self.flushing.lock();
        let mut backend = self.backend.write();
        let Backend::Disk(disk) = &*backend else {
            return;
        };
        let grown = self.compacted_bytes.lock().saturating_mul(COMPACT_GROWTH);
        let due = self.compact_bytes_min.max(grown);
        if disk.size_bytes() < due || compact::copy(disk).is_err() {
            return;
        }
        let folder = disk.folder().to_owned();
        // sled must have let go of its files before they are renamed.
        *backend = Backend::Memory(MemoryDisk::new());
        let swapped = compact::swap(&folder);
        match Disk::open(&folder) {
            Ok(disk) => {
                *self.compacted_bytes.lock() = disk.size_bytes();
                *backend = Backend::Disk(disk);
            }
            Err(error) => {
                let swapped = swapped.err().map(|error| error.0).unwrap_or_default();
                *self.problem.lock() = Some(format!(
                    "{error} after a rewrite {swapped}; running without history"
                ));
            }
        }
    }

    /// Drops what the snapshot of `sequence` covers. Lasts with a later flush;
    /// until then it is only dead weight.
    fn trim(&self, sequence: u64) -> Result<(), StoreError> {
        let backend = self.backend.read();
        let covered = |key: &[u8], below: u64| key::sequence_of(key).is_some_and(|n| n < below);
        for (key, _) in backend.scan(key::JOURNAL)? {
            if covered(&key, sequence.saturating_add(1)) {
                backend.delete(&key)?;
            }
        }
        for (key, _) in backend.scan(key::CHUNK)? {
            if covered(&key, sequence) {
                backend.delete(&key)?;
            }
        }
        Ok(())
    }

    /// The snapshot, verified. None if none was ever saved.
    pub fn load_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        for number in 0..head.chunks {
            let chunk = self
                .backend
                .read()
                .get(&key::chunk(head.sequence, number))?;
            let chunk = chunk.unwrap_or_default();
            bytes.extend(decode(RecordKind::SnapshotChunk, &chunk)?.1);
        }
        let found = bytes.len() as u64;
        if found != head.bytes {
            return Err(StoreError::Incomplete {
                found,
                due: head.bytes,
            });
        }
        Ok(Some(Snapshot {
            sequence: head.sequence,
            bytes,
        }))
    }

    fn head(&self) -> Result<Option<SnapshotHead>, StoreError> {
        self.get(RecordKind::SnapshotHead, 0)
    }

    /// The record of one endpoint.
    pub fn endpoint(&self, id: u16) -> Result<Option<EndpointRecord>, StoreError> {
        self.get(RecordKind::Endpoint, id)
    }
    pub fn put_endpoint(&self, record: &EndpointRecord) -> Result<(), StoreError> {
        self.put(RecordKind::Endpoint, record.id, record)
    }

    /// Audit options; the default if none was ever set. They outlive the
    /// database.
    pub fn audit(&self) -> Result<AuditRecord, StoreError> {
        let beside = || self.beside.as_ref().and_then(Beside::audit);
        match (self.get(RecordKind::Audit, 0), beside) {
            (Ok(Some(record)), _) => Ok(record),
            (Ok(None), beside) => Ok(beside().unwrap_or_default()),
            (Err(error), beside) => beside().ok_or(error),
        }
    }
    pub fn put_audit(&self, record: &AuditRecord) -> Result<(), StoreError> {
        if let Some(beside) = &self.beside {
            beside.put_audit(record)?;
        }
        self.put(RecordKind::Audit, 0, record)
    }

    /// Generations; the default before the first commit.
    pub fn generations(&self) -> Result<GenerationsRecord, StoreError> {
        Ok(self.get(RecordKind::Generations, 0)?.unwrap_or_default())
    }
    pub fn put_generations(&self, record: &GenerationsRecord) -> Result<(), StoreError> {
        self.put(RecordKind::Generations, 0, record)
    }

    /// The boot that the generations speak of.
    pub fn boot(&self) -> Result<Option<BootRecord>, StoreError> {
        self.get(RecordKind::Boot, 0)
    }
    pub fn put_boot(&self, record: &BootRecord) -> Result<(), StoreError> {
        self.put(RecordKind::Boot, 0, record)
    }

    /// The store's own name.
    pub fn identity(&self) -> Result<Option<StoreIdentity>, StoreError> {
        self.get(RecordKind::Identity, 0)
    }

    fn get<T: DeserializeOwned>(&self, kind: RecordKind, id: u16) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.backend.read().get(&key::record(kind, id))? else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_slice(decode(kind, &bytes)?.1)?))
    }

    fn put<T: Serialize>(&self, kind: RecordKind, id: u16, record: &T) -> Result<(), StoreError> {
        let bytes = encode(kind, &serde_json::to_vec(record)?)?;
        Ok(self.backend.read().put(&key::record(kind, id), bytes)?)
    }
}

enum LockError {
    Held,
    Io(std::io::Error),
}

fn lock(dir: &Path) -> Result<std::fs::File, LockError> {
    std::fs::create_dir_all(dir).map_err(LockError::Io)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(LockError::Io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(LockError::Held),
        Err(std::fs::TryLockError::Error(error)) => Err(LockError::Io(error)),
    }
}

/// Whether an agent has the store in `dir` open. Touches nothing.
#[must_use]
pub fn is_in_use(dir: &Path) -> bool {
    std::fs::File::open(dir.join("lock"))
        .is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
