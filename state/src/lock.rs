//! One process opens a store: a lock on a file beside the database.

use std::path::Path;

pub(crate) enum LockError {
    Held,
    Io(std::io::Error),
}

pub(crate) fn lock(dir: &Path) -> Result<std::fs::File, LockError> {
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
