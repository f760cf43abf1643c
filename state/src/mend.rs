//! A medium that fails, and how it comes back.
//!
//! | state | backend | a flush | left by |
//! |---|---|---|---|
//! | well | disk | makes it last | a write or flush that fails |
//! | behind | what can be read below, what it lacks above | tries to bring it back | success; [`Store::suspend`] |
//! | suspended | the same | promises nothing | [`Store::resume`] |
//!
//! A disk without room was not written to: it goes on where it was. After any
//! other failure nobody knows what is on it, and a second fdatasync would say
//! that all is well: what lives is copied into a new file.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::backend::{Backend, MediumError};
use crate::behind::{Behind, Change};
use crate::compact;
use crate::disk::Disk;
use crate::lock::{LockError, lock};
use crate::memory::MemoryDisk;
use crate::room;
use crate::scratch;
use crate::store::{Store, StoreError};

/// What may wait for the medium in memory, snapshots of the past included; above
/// that only the newest is kept.
const BEHIND_BYTES_MAX: u64 = 32 << 20;

impl Store {
    /// Writes one change. A disk that fails falls behind, and the next flush
    /// tells.
    pub(crate) fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> Result<(), MediumError> {
        let backend = self.backend.read();
        let written = match value {
            Some(value) => backend.put(key, value),
            None => backend.delete(key),
        };
        let is_disk = matches!(*backend, Backend::Disk(_));
        drop(backend);
        match written {
            Err(error) if is_disk => {
                self.fall_behind(&error);
                Ok(())
            }
            written => written,
        }
    }

    /// The flush of whatever is there; `flushing` is held.
    pub(crate) fn flush_backend(&self) -> Result<(), MediumError> {
        self.bring_back()?;
        let backend = self.backend.read();
        let flushed = backend.flush();
        let is_disk = matches!(*backend, Backend::Disk(_));
        drop(backend);
        if let Err(error) = &flushed
            && is_disk
        {
            self.fall_behind(error);
        }
        flushed
    }

    fn fall_behind(&self, error: &MediumError) {
        let mut backend = self.backend.write();
        let Backend::Disk(disk) = &*backend else {
            // Another thread was faster, and took along what was written here.
            return;
        };
        self.failures.fetch_add(1, Ordering::SeqCst);
        *self.last_failure.lock() = error.0.clone();
        let (lacking, folder) = (disk.unflushed(), disk.folder().to_owned());
        let is_doubtful = disk.has_failed();
        let failed = std::mem::replace(&mut *backend, Backend::Memory(MemoryDisk::new()));
        let below = if is_doubtful {
            drop(failed);
            self.read_copy(&folder).ok().map(Backend::Disk)
        } else {
            Some(failed)
        };
        *backend = Backend::Behind(Behind::new(below, Some(folder), is_doubtful, lacking));
    }

    /// Opens a copy of the database, since the failed one may hold its lock.
    fn read_copy(&self, folder: &Path) -> Result<Disk, MediumError> {
        let copy = scratch::copy(folder)
            .map_err(|error| MediumError(format!("copy of {}: {error}", folder.display())))?;
        *self.scratch.lock() = Some(copy.clone());
        Disk::attach(&copy)
    }

    /// Gives the medium what it lacks; `flushing` is held. The backend is behind
    /// until this succeeds.
    fn bring_back(&self) -> Result<(), MediumError> {
        let mut backend = self.backend.write();
        let Backend::Behind(behind) = &mut *backend else {
            return Ok(());
        };
        let lacking = behind.lacking();
        let brought = match behind.folder().map(Path::to_owned) {
            Some(folder) if behind.is_doubtful() => self.renew(behind, &folder, &lacking),
            folder => go_on(behind, folder.as_deref(), lacking),
        };
        match brought {
            Ok(medium) => {
                *backend = medium;
                Ok(())
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                *self.last_failure.lock() = error.0.clone();
                Err(error)
            }
        }
    }

    /// Nobody knows what is on the medium: what can be read and what it lacks go
    /// into a new file.
    fn renew(
        &self,
        behind: &mut Behind,
        folder: &Path,
        lacking: &[Vec<Change>],
    ) -> Result<Backend, MediumError> {
        compact::recover(folder)
            .map_err(|error| MediumError(format!("{}: {error}", folder.display())))?;
        if behind.below().is_none() {
            behind.set_below(Some(Backend::Disk(self.read_copy(folder)?)));
        }
        let Some(Backend::Disk(old)) = behind.below() else {
            return Err(MediumError("what is behind a folder is a disk".to_owned()));
        };
        compact::copy(old, folder, lacking)?;
        compact::swap(folder)?;
        let disk = Disk::open(folder)?;
        behind.set_below(None);
        if let Some(copy) = self.scratch.lock().take() {
            scratch::remove(&copy);
        }
        Ok(Backend::Disk(disk))
    }

    /// Gives the medium up until [`Self::resume`]: enforcement must not wait for
    /// a disk. What is written is kept in memory; flushes succeed and promise
    /// nothing: [`Self::durable`] stays where it is.
    pub fn suspend(&self, reason: &str) {
        let _one = self.flushing.lock();
        let durable = self.durable();
        self.fall_behind(&MediumError(reason.to_owned()));
        let mut backend = self.backend.write();
        if matches!(*backend, Backend::Memory(_)) {
            let memory = std::mem::replace(&mut *backend, Backend::Memory(MemoryDisk::new()));
            *backend = Backend::Behind(Behind::new(Some(memory), None, false, Vec::new()));
        }
        self.forgetful.store(true, Ordering::SeqCst);
        *self.problem.lock() = Some(format!(
            "{reason}; running without history since event {durable}: what comes now is \
             enforced and kept in memory, and written when the disk is well again"
        ));
    }

    /// Tries to take the medium into use again. True: it is, and nothing that
    /// was written meanwhile is missing. False: there is nothing to resume.
    pub fn resume(&self) -> Result<bool, StoreError> {
        let _one = self.flushing.lock();
        let is_behind = matches!(*self.backend.read(), Backend::Behind(_));
        if !self.is_forgetful() || !is_behind {
            return Ok(false);
        }
        self.lock_again()?;
        let target = self.appended();
        self.bring_back()?;
        self.note_durable(target);
        if let Some(beside) = &self.beside {
            beside.put_audit(&self.audit()?)?;
            // A disk that was full from the start has none.
            if let Some(identity) = self.identity()? {
                beside.put_identity(&identity)?;
            }
        }
        if let Some(copy) = self.scratch.lock().take() {
            scratch::remove(&copy);
        }
        if let Some(dir) = &self.dir {
            room::take_reserve(dir);
        }
        *self.problem.lock() = None;
        self.forgetful.store(false, Ordering::SeqCst);
        Ok(true)
    }

    /// A directory that could not be written had no lock.
    fn lock_again(&self) -> Result<(), StoreError> {
        let mut held = self.lock.lock();
        if let (None, Some(dir)) = (&*held, &self.dir) {
            *held = Some(lock(dir).map_err(|error| match error {
                LockError::Held => StoreError::InUse { path: dir.clone() },
                LockError::Io(error) => StoreError::Medium(format!("{}: {error}", dir.display())),
            })?);
        }
        Ok(())
    }

    /// Whether only the newest snapshot may be kept.
    pub(crate) fn must_save_memory(&self) -> bool {
        match &*self.backend.read() {
            Backend::Disk(_) => false,
            Backend::Memory(_) => self.is_forgetful(),
            Backend::Behind(behind) => behind.bytes() > BEHIND_BYTES_MAX,
        }
    }

    /// Writes and flushes that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Why the last one of them did; empty if none did.
    #[must_use]
    pub fn last_failure(&self) -> String {
        self.last_failure.lock().clone()
    }
}

/// No write to the medium failed: it gets what it lacks.
fn go_on(
    behind: &mut Behind,
    folder: Option<&Path>,
    lacking: [Vec<Change>; 3],
) -> Result<Backend, MediumError> {
    let below = match (behind.take_below(), folder) {
        (Some(below), Some(folder)) if !lies_in(&below, folder) => match Disk::open(folder) {
            Ok(disk) => Backend::Disk(disk),
            Err(error) => {
                behind.set_below(Some(below));
                return Err(error);
            }
        },
        (Some(below), _) => below,
        (None, Some(folder)) => Backend::Disk(Disk::open(folder)?),
        (None, None) => return Err(MediumError("the medium is gone".to_owned())),
    };
    let given = lacking.into_iter().try_for_each(|part| {
        part.into_iter()
            .try_for_each(|change| give(&below, change))?;
        below.flush()
    });
    match (given, below) {
        (Ok(()), below) => Ok(below),
        (Err(error), Backend::Disk(disk)) if disk.has_failed() => {
            drop(disk);
            behind.doubt();
            Err(error)
        }
        (Err(error), below) => {
            behind.set_below(Some(below));
            Err(error)
        }
    }
}

fn give(medium: &Backend, change: Change) -> Result<(), MediumError> {
    match (medium, change) {
        (Backend::Disk(disk), change) => disk.write(change),
        (medium, (key, Some(value))) => medium.put(&key, value),
        (medium, (key, None)) => medium.delete(&key),
    }
}

fn lies_in(medium: &Backend, folder: &Path) -> bool {
    matches!(medium, Backend::Disk(disk) if disk.folder() == folder)
}
