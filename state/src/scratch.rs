//! A copy of a database that can be read but not written: on a disk that is
//! full or read-only, what is in it is still enforced after a reboot.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Where memory lies as files, by preference.
const PLACES: [&str; 3] = ["/run", "/dev/shm", "/tmp"];
const FOLDER_MODE: u32 = 0o700;

/// Copies the database in `folder` to where it can be written. One copy at a
/// time of each: the copy of an earlier life is replaced.
pub(crate) fn copy(folder: &Path) -> std::io::Result<PathBuf> {
    let about = fs::metadata(folder)?;
    let name = format!("palisade-journal-{}-{}", about.dev(), about.ino());
    let mut outcome = Err(std::io::ErrorKind::NotFound.into());
    for place in PLACES {
        let copy = Path::new(place).join(&name);
        outcome = copy_to(folder, &copy).map(|()| copy.clone());
        if outcome.is_ok() {
            break;
        }
        remove(&copy);
    }
    outcome
}

fn copy_to(folder: &Path, copy: &Path) -> std::io::Result<()> {
    remove(copy);
    // Fails if somebody else's is there.
    fs::DirBuilder::new().mode(FOLDER_MODE).create(copy)?;
    copy_files(folder, copy)
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::DirBuilder::new().mode(FOLDER_MODE).create(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Removes a copy.
pub(crate) fn remove(copy: &Path) {
    // What is left is replaced by the next copy.
    let _ = fs::remove_dir_all(copy);
}
