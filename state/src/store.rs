//! The store: journal, snapshots, notes, records.
//!
//! Any thread may call it. Invariants: sequences rise by one, also over
//! restarts and trims; [`Store::durable`] never exceeds what is on the disk;
//! the journal is trimmed only below a snapshot that is on the disk.
//! `journal`, `snapshots`, `notes` and `mend` hold the rest of its methods.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, MediumError};
use crate::behind::Behind;
use crate::beside::Beside;
use crate::compact::{self, COMPACT_BYTES_MIN, COMPACT_GROWTH};
use crate::disk::{Disk, set_aside};
use crate::envelope::{EnvelopeError, RecordKind, decode, encode};
use crate::key;
use crate::lock::{LockError, lock};
use crate::memory::MemoryDisk;
use crate::notes;
use crate::records::{AuditRecord, BootRecord, EndpointRecord, GenerationsRecord, StoreIdentity};
use crate::room;
use crate::schema::{MIGRATIONS, SCHEMA_VERSION, bring_up};
use crate::scratch;
use crate::snapshots::Past;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} is in use by another agent; stop it or choose another --state-dir")]
    InUse { path: PathBuf },
    #[error("{path} holds no store: no agent kept its state there")]
    Missing { path: PathBuf },
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

#[derive(Debug, Default)]
struct Progress {
    appended: u64,
    durable: u64,
    /// Bytes of events since the newest snapshot.
    bytes: u64,
}

/// The store of one agent. One process opens it.
#[derive(Debug)]
pub struct Store {
    pub(crate) backend: RwLock<Backend>,
    pub(crate) past: Mutex<Past>,
    /// Number of the newest note.
    pub(crate) notes: Mutex<u64>,
    progress: Mutex<Progress>,
    /// One flush at a time; those that wait find their work done.
    pub(crate) flushing: Mutex<()>,
    pub(crate) problem: Mutex<Option<String>>,
    /// What is written is lost with the process, until [`Self::resume`].
    pub(crate) forgetful: AtomicBool,
    /// Writes and flushes that failed, and why the last one did.
    pub(crate) failures: AtomicU64,
    pub(crate) last_failure: Mutex<String>,
    /// Size of the database after it was last rewritten, or of what lived in it
    /// when it was opened.
    compacted_bytes: Mutex<u64>,
    /// Size below which it is not rewritten.
    compact_bytes_min: u64,
    /// None in memory.
    pub(crate) beside: Option<Beside>,
    /// The directory of it all; None in memory.
    pub(crate) dir: Option<PathBuf>,
    /// A copy that is read instead of a database that cannot be written.
    pub(crate) scratch: Mutex<Option<PathBuf>>,
    /// Held for as long as the store is open.
    pub(crate) lock: Mutex<Option<std::fs::File>>,
}

impl Store {
    /// Opens the store in `dir`. A database that cannot be opened is set aside
    /// as `journal.broken-<n>`; if none can be had, the store is in memory. Of
    /// one that can be read but not written a copy is read.
    /// [`Self::problem`] tells. The only error is another agent's lock.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (lock, problem) = match lock(dir) {
            Ok(lock) => (Some(lock), None),
            Err(LockError::Held) => {
                return Err(StoreError::InUse {
                    path: dir.to_owned(),
                });
            }
            Err(LockError::Io(error)) => (None, Some(format!("{}: {error}", dir.display()))),
        };
        let mut store = match problem {
            Some(problem) => Self::unwritable(dir, &problem),
            None => Self::open_locked(dir),
        };
        store.lock = Mutex::new(lock);
        store.dir = Some(dir.to_owned());
        store.stand_beside(Beside::new(dir));
        Ok(store)
    }

    fn open_locked(dir: &Path) -> Self {
        let folder = dir.join("journal");
        room::release_reserve(dir);
        let recovered = compact::recover(&folder)
            .map_err(|error| StoreError::Medium(format!("{}: {error}", dir.display())));
        let opened = recovered.and_then(|()| Self::try_open(&folder));
        let store = match opened {
            Ok(store) => store,
            // A newer agent's store is not broken: it stays where it is.
            Err(error @ (StoreError::NewerSchema { .. } | StoreError::NoMigration { .. })) => {
                return Self::forgetful(error.to_string());
            }
            Err(error) => match room::probe(dir) {
                Ok(()) => Self::open_again(&folder, &error),
                // It is the disk, not the database.
                Err(disk) => return Self::unwritable(dir, &format!("{}: {disk}", dir.display())),
            },
        };
        room::take_reserve(dir);
        store
    }

    /// A store that cannot be written now: what can be read of it counts, and it
    /// is written when that is possible again.
    fn unwritable(dir: &Path, problem: &str) -> Self {
        let folder = dir.join("journal");
        let copy = scratch::copy(&folder);
        let below = match &copy {
            Ok(copy) => Disk::attach(copy),
            Err(error) => Err(MediumError(error.to_string())),
        };
        let below = match below {
            Ok(disk) => Some(Backend::Disk(disk)),
            Err(_) if !folder.exists() => None,
            // What is there is not known, so nothing can be added to it.
            Err(error) => return Self::forgetful(format!("{problem}; {}", error.0)),
        };
        let behind = Behind::new(below, Some(folder), false, Vec::new());
        let store = match Self::around(Backend::Behind(behind)) {
            Ok(store) => store,
            Err(error) => return Self::forgetful(format!("{problem}; {error}")),
        };
        store.scratch.lock().clone_from(&copy.ok());
        store.suspend(problem);
        store
    }

    /// Opens what an agent left in `dir`, to read it. Nothing is made, rewritten
    /// or set aside; what cannot be read is an error.
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        let folder = dir.join("journal");
        if !folder.exists() && !dir.join("journal.old").exists() {
            return Err(StoreError::Missing {
                path: dir.to_owned(),
            });
        }
        let lock = lock(dir).map_err(|error| match error {
            LockError::Held => StoreError::InUse {
                path: dir.to_owned(),
            },
            LockError::Io(error) => StoreError::Medium(format!("{}: {error}", dir.display())),
        })?;
        compact::recover(&folder)
            .map_err(|error| StoreError::Medium(format!("{}: {error}", dir.display())))?;
        let store = Self::around(Backend::Disk(Disk::open(&folder)?))?;
        *store.lock.lock() = Some(lock);
        Ok(store)
    }

    /// How many lives in a row ended within their first build.
    #[must_use]
    pub fn builds_cut_off(&self) -> u32 {
        let beside = self.beside.as_ref();
        beside.and_then(Beside::builds_cut_off).unwrap_or(0)
    }

    /// Notes it on the disk: as the life begins its first build with one more, in
    /// case it ends there; with 0 when it got through.
    pub fn put_builds_cut_off(&self, count: u32) -> Result<(), StoreError> {
        match &self.beside {
            Some(beside) => beside.put_builds_cut_off(count),
            None => Ok(()),
        }
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
        let mut lives = 0;
        for family in key::FAMILIES {
            backend.visit(family, &mut |key, value| lives += key.len() + value.len())?;
        }
        drop(backend);
        // What lives is not rewritten at each start only because it is much.
        *store.compacted_bytes.lock() = lives as u64;
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
        store.forgetful.store(true, Ordering::SeqCst);
        *store.problem.lock() = Some(format!("{problem}; running without history"));
        store
    }

    fn around(backend: Backend) -> Result<Self, StoreError> {
        bring_up(&backend, MIGRATIONS, SCHEMA_VERSION)?;
        let last = backend.last(key::JOURNAL)?;
        let last = last.as_deref().and_then(key::number_of);
        // A damaged snapshot is reported where it is loaded.
        let past = Past::read(&backend)?;
        let sequence = last.unwrap_or(0).max(past.covered());
        let bytes = bytes_after(&backend, past.covered())?;
        let store = Self {
            notes: Mutex::new(notes::last(&backend)?),
            backend: RwLock::new(backend),
            past: Mutex::new(past),
            forgetful: AtomicBool::new(false),
            progress: Mutex::default(),
            flushing: Mutex::new(()),
            problem: Mutex::new(None),
            compacted_bytes: Mutex::new(0),
            compact_bytes_min: COMPACT_BYTES_MIN,
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            beside: None,
            dir: None,
            scratch: Mutex::new(None),
            lock: Mutex::new(None),
        };
        *store.progress.lock() = Progress {
            appended: sequence,
            durable: sequence,
            bytes,
        };
        if store.identity()?.is_none() {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
            let identity = StoreIdentity {
                id: id.trim().to_owned(),
            };
            store.put(RecordKind::Identity, 0, &identity)?;
            store.backend.read().flush()?;
        }
        Ok(store)
    }

    /// What is wrong with the store; None when all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Whether what is written is lost with the process.
    #[must_use]
    pub fn is_forgetful(&self) -> bool {
        self.forgetful.load(Ordering::SeqCst)
    }

    /// Bytes of events since the newest snapshot.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.progress.lock().bytes
    }

    /// A snapshot covers so many bytes of events.
    pub(crate) fn snapshot_took(&self, bytes: u64) {
        let mut progress = self.progress.lock();
        progress.bytes = progress.bytes.saturating_sub(bytes);
    }

    /// Appends one event to the journal. It lasts after the next flush.
    pub fn append<T: Serialize>(&self, event: &T) -> Result<u64, StoreError> {
        let bytes = encode(RecordKind::JournalEvent, &serde_json::to_vec(event)?)?;
        let mut progress = self.progress.lock();
        let sequence = progress.appended + 1;
        let length = bytes.len() as u64;
        self.write(&key::journal(sequence), Some(bytes))?;
        progress.appended = sequence;
        progress.bytes += length;
        Ok(sequence)
    }

    /// Makes everything written so far last; returns the newest sequence that
    /// does. One flush serves all that were appended before it.
    pub fn flush(&self) -> Result<u64, StoreError> {
        let _one = self.flushing.lock();
        if self.is_forgetful() {
            return Ok(self.durable());
        }
        let target = self.appended();
        self.flush_backend()?;
        self.note_durable(target);
        Ok(target)
    }

    pub(crate) fn note_durable(&self, sequence: u64) {
        self.progress.lock().durable = sequence;
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

    /// Rewrites the database when most of it is waste. A failure is no harm:
    /// the old one serves on, or is opened again by the next flush.
    pub(crate) fn compact_if_grown(&self) {
        let _one = self.flushing.lock();
        let mut backend = self.backend.write();
        let Backend::Disk(disk) = &*backend else {
            return;
        };
        let grown = self.compacted_bytes.lock().saturating_mul(COMPACT_GROWTH);
        let due = self.compact_bytes_min.max(grown);
        let folder = disk.folder().to_owned();
        if disk.size_bytes() < due || compact::copy(disk, &folder, &[]).is_err() {
            return;
        }
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
                *self.last_failure.lock() = format!("{error} after a rewrite {swapped}");
                *backend = Backend::Behind(Behind::new(None, Some(folder), true, Vec::new()));
            }
        }
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
            match beside.put_audit(record) {
                // Written when the disk is well again.
                Err(_) if self.is_forgetful() => {}
                written => written?,
            }
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

    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        id: u16,
    ) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.backend.read().get(&key::record(kind, id))? else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_slice(decode(kind, &bytes)?.1)?))
    }

    pub(crate) fn put<T: Serialize>(
        &self,
        kind: RecordKind,
        id: u16,
        record: &T,
    ) -> Result<(), StoreError> {
        let bytes = encode(kind, &serde_json::to_vec(record)?)?;
        Ok(self.write(&key::record(kind, id), Some(bytes))?)
    }
}

fn bytes_after(backend: &Backend, sequence: u64) -> Result<u64, MediumError> {
    let mut bytes = 0;
    backend.visit(key::JOURNAL, &mut |key, value| {
        if key::number_of(key) > Some(sequence) {
            bytes += value.len() as u64;
        }
    })?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
