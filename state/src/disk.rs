//! sled, kept at arm's length: its panics become errors, its flush gets the
//! fdatasync that it lacks, and a database that it cannot open is set aside.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::{Entry, Limit, MediumError};
use crate::behind::Change;
use crate::room;

/// Memory that sled may use for pages.
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// How often a database is tried that is still locked, and the pause between:
/// sled's threads let go of one that was closed a moment later.
const LOCKED_TRIES_MAX: u32 = 100;
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// Broken databases kept beside the current one.
const SET_ASIDE_MAX: u32 = 1_000;

/// A sled database in one folder.
pub(crate) struct Disk {
    /// None once it is let go of.
    database: Option<sled::Db>,
    folder: PathBuf,
    /// The database file, for fdatasync.
    file: File,
    /// Blob files that were synced already.
    synced_blobs: Mutex<BTreeSet<PathBuf>>,
    /// Written since the last flush, in order.
    unflushed: Mutex<Vec<Change>>,
    /// A write or flush failed. sled fails from then on, and the kernel forgets
    /// that pages were not written: only a new file can be trusted.
    has_failed: AtomicBool,
    /// A write failed within sled: its next flush may wait for ever, and so may
    /// its destructor.
    is_stuck: AtomicBool,
    /// The largest value that was seen: sled writes a page of some values at
    /// once, and a large one into a file of its own.
    largest: AtomicUsize,
}

/// Databases that could not be ended.
static STUCK: AtomicU32 = AtomicU32::new(0);
const STUCK_MAX: u32 = 16;

impl Drop for Disk {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else {
            return;
        };
        if self.is_stuck.load(Ordering::SeqCst) {
            // The space of its file is given back by who replaces the file.
            STUCK.fetch_add(1, Ordering::SeqCst);
            std::mem::forget(database);
        } else {
            // sled may give up once more.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(database)));
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens the database in `folder` to read what can be read.
    pub(crate) fn attach(folder: &Path) -> Result<Self, MediumError> {
        if STUCK.load(Ordering::SeqCst) >= STUCK_MAX {
            let words = "the disk failed too often; when it is well, restart the agent";
            return Err(MediumError(words.to_owned()));
        }
        let database = Some(open_unlocked(folder)?);
        let file = File::options()
            .read(true)
            .write(true)
            .open(folder.join("db"));
        Ok(Self {
            database,
            folder: folder.to_owned(),
            file: file.map_err(|error| io("open", folder, &error))?,
            synced_blobs: Mutex::new(BTreeSet::new()),
            unflushed: Mutex::default(),
            has_failed: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            largest: AtomicUsize::new(0),
        })
    }

    fn database(&self) -> &sled::Db {
        self.database.as_ref().expect("there until it is dropped")
    }

    /// Opens or creates the database in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self, MediumError> {
        let disk = Self::attach(folder)?;
        disk.flush()?;
        // The names of the new files must last as well.
        for path in [Some(folder), folder.parent()].into_iter().flatten() {
            sync_folder(path)?;
        }
        Ok(disk)
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes on the disk.
    pub(crate) fn size_bytes(&self) -> u64 {
        let blobs = std::fs::read_dir(self.folder.join("blobs"));
        let blobs = blobs.into_iter().flatten().flatten();
        let blobs = blobs.filter_map(|entry| entry.metadata().ok());
        let file = self.file.metadata().map_or(0, |file| file.len());
        file + blobs.map(|blob| blob.len()).sum::<u64>()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MediumError> {
        contained("read", || self.database().get(key))
            .map(|value| value.map(|value| value.to_vec()))
    }

    pub(crate) fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), MediumError> {
        self.note_and_write((key.to_vec(), Some(value)))
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), MediumError> {
        self.note_and_write((key.to_vec(), None))
    }

    /// Noted first: what fails is written later, by another medium.
    fn note_and_write(&self, change: Change) -> Result<(), MediumError> {
        let mut unflushed = self.unflushed.lock();
        unflushed.push(change.clone());
        self.write(change)
    }

    /// Writes what somebody else keeps until the next flush.
    pub(crate) fn write(&self, (key, value): Change) -> Result<(), MediumError> {
        let bytes = value.as_ref().map_or(0, Vec::len);
        let largest = self.largest.fetch_max(bytes, Ordering::Relaxed).max(bytes);
        room::ensure(&self.file, largest)?;
        let database = self.database();
        let written = match value {
            Some(value) => contained("write", || database.insert(key, value)),
            None => contained("delete", || database.remove(key)),
        };
        if written.is_err() {
            self.is_stuck.store(true, Ordering::SeqCst);
        }
        self.noting_failure(written).map(|_| ())
    }

    fn noting_failure<T>(&self, outcome: Result<T, MediumError>) -> Result<T, MediumError> {
        if outcome.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
        }
        outcome
    }

    /// Whether a write or flush failed: see the field.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Written since the last flush, in order; perhaps on the disk, perhaps not.
    pub(crate) fn unflushed(&self) -> Vec<Change> {
        self.unflushed.lock().clone()
    }

    pub(crate) fn visit(
        &self,
        prefix: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), MediumError> {
        contained("scan", || {
            for entry in self.database().scan_prefix([prefix]) {
                let (key, value) = entry?;
                self.largest.fetch_max(value.len(), Ordering::Relaxed);
                see(&key, &value);
            }
            Ok(())
        })
    }

    pub(crate) fn range(&self, from: &[u8], limit: Limit) -> Result<Vec<Entry>, MediumError> {
        let end = from.first().map(|family| [family + 1]).unwrap_or_default();
        contained("scan", || {
            let entries = self.database().range(from..end.as_slice());
            limit
                .take(entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))))
        })
    }

    pub(crate) fn first(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        let first = || {
            self.database()
                .scan_prefix([prefix])
                .keys()
                .next()
                .transpose()
        };
        Ok(contained("scan", first)?.map(|key| key.to_vec()))
    }

    pub(crate) fn last(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        let last = || {
            self.database()
                .scan_prefix([prefix])
                .keys()
                .next_back()
                .transpose()
        };
        Ok(contained("scan", last)?.map(|key| key.to_vec()))
    }

    pub(crate) fn flush(&self) -> Result<(), MediumError> {
        let written = self.unflushed.lock().len();
        self.noting_failure(self.flush_all())?;
        self.unflushed.lock().drain(..written);
        Ok(())
    }

    fn flush_all(&self) -> Result<(), MediumError> {
        contained("flush", || self.database().flush())?;
        // sled starts the write-back only (sync_file_range): wait for the disk.
        self.sync_blobs()?;
        self.file
            .sync_data()
            .map_err(|error| io("fdatasync", &self.folder, &error))
    }

    /// sled keeps large pages in files of their own, which it never syncs.
    fn sync_blobs(&self) -> Result<(), MediumError> {
        let folder = self.folder.join("blobs");
        let mut synced = self.synced_blobs.lock();
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return Ok(());
        };
        let present: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let mut any = false;
        for path in present.difference(&synced) {
            // sled may collect a blob while we look at it.
            let Ok(file) = File::open(path) else { continue };
            file.sync_all().map_err(|error| io("fsync", path, &error))?;
            any = true;
        }
        if any {
            sync_folder(&folder)?;
        }
        *synced = present;
        Ok(())
    }
}

/// Opens the database, once nobody has it open any more.
fn open_unlocked(folder: &Path) -> Result<sled::Db, MediumError> {
    let open = || {
        sled::Config::default()
            .path(folder)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES_MAX)
            // Nothing is flushed by a timer: flush() is the commit.
            .flush_every_ms(None)
            .open()
    };
    for _ in 1..LOCKED_TRIES_MAX {
        match contained("open", open) {
            Err(error) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCKED_PAUSE);
            }
            result => return result,
        }
    }
    contained("open", open)
}

/// Renames a folder that cannot be opened to `<folder>.broken-<n>`.
pub(crate) fn set_aside(folder: &Path) -> std::io::Result<PathBuf> {
    for number in 1..=SET_ASIDE_MAX {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".broken-{number}"));
        let aside = PathBuf::from(name);
        if !aside.exists() {
            std::fs::rename(folder, &aside)?;
            return Ok(aside);
        }
    }
    Err(std::io::Error::other(
        "too many broken stores were set aside; remove some",
    ))
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), MediumError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| io("fsync", path, &error))
}

fn io(operation: &str, path: &Path, error: &std::io::Error) -> MediumError {
    MediumError(format!("{operation} {}: {error}", path.display()))
}

/// Runs one sled call; errors and panics both become [`MediumError`].
fn contained<T>(
    operation: &str,
    call: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, MediumError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(MediumError(format!("{operation}: {error}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("unknown panic");
            Err(MediumError(format!("{operation}: sled gave up: {text}")))
        }
    }
}
