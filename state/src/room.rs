//! Space reserved ahead, so that a full disk is met before a write fails: after
//! a failed write sled 0.34 refuses every call until it is opened again.
//!
//! Two reserves: the database file has blocks beyond its end, into which it
//! grows; and a file beside it is let go while a database is opened, since
//! opening writes too.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use crate::backend::MediumError;

/// Blocks beyond the end of the database file: sled grows it by segments of
/// half a MiB, a few of them between two looks.
const AHEAD_BYTES: u64 = 8 << 20;
const AHEAD_BYTES_MIN: u64 = 4 << 20;
/// A page holds up to so many values, and a page above 128 KiB goes into a file
/// of its own, for which nothing is reserved.
const PAGE_VALUES: usize = 20;
const LARGE_VALUE_BYTES: usize = 6 << 10;
/// What must be free beside such a value, for other small files.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// Let go while a database is opened.
const RESERVE_BYTES: u64 = 4 << 20;
/// Written to see whether anything can be.
const PROBE_BYTES: usize = 64 << 10;
const RESERVE_NAME: &str = "reserve";
/// Size of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Makes sure that a value can be written to the database `file`, in which the
/// largest one has `largest` bytes.
pub(crate) fn ensure(file: &File, largest: usize) -> Result<(), MediumError> {
    let about = file.metadata().map_err(|error| failed(&error))?;
    let end = about.len();
    if about.blocks() * BLOCK_BYTES < end + AHEAD_BYTES_MIN {
        let reserve = |ahead| fallocate(file, FallocateFlags::KEEP_SIZE, 0, end + ahead);
        match reserve(AHEAD_BYTES).or_else(|_| reserve(AHEAD_BYTES_MIN)) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => free(file, AHEAD_BYTES_MIN)?,
            Err(error) => return Err(failed(&error.into())),
        }
    }
    if largest >= LARGE_VALUE_BYTES {
        free(file, (PAGE_VALUES * largest) as u64 + FREE_BYTES_MIN)?;
    }
    Ok(())
}

fn free(file: &File, wanted: u64) -> Result<(), MediumError> {
    let about = fstatvfs(file).map_err(|error| failed(&error.into()))?;
    let found = about.f_bfree * about.f_frsize;
    if found < wanted {
        return Err(failed(&Errno::NOSPC.into()));
    }
    Ok(())
}

fn failed(error: &std::io::Error) -> MediumError {
    MediumError(format!("no room for the journal: {error}"))
}

/// Whether a file in `dir` can be written at all: tells a broken database from
/// a disk that cannot be used.
pub(crate) fn probe(dir: &Path) -> std::io::Result<()> {
    let path = dir.join("probe");
    let outcome = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    });
    // It is empty at worst.
    let _ = std::fs::remove_file(&path);
    outcome
}

/// Gives the reserve back to whoever opens a database in `dir`.
pub(crate) fn release_reserve(dir: &Path) {
    // It may not be there: a new directory, or a disk that was full before.
    let _ = std::fs::remove_file(dir.join(RESERVE_NAME));
}

/// Takes the reserve again. Without it the next start on a full disk reads a
/// copy of the database instead.
pub(crate) fn take_reserve(dir: &Path) {
    let taken = File::create(dir.join(RESERVE_NAME)).and_then(|file| {
        fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(Into::into)
    });
    if taken.is_err() {
        release_reserve(dir);
    }
}
