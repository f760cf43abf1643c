//! Rewrites a database that has grown: sled 0.34 hardly ever gives space back,
//! so what lives is copied into a new one, which takes the old one's place.
//!
//! At each moment one whole database is there: `journal`, or `journal.old` if
//! the agent died between the two renames; [`recover`] puts that right.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::backend::MediumError;
use crate::behind::Change;
use crate::disk::{Disk, sync_folder};
use crate::key;

/// Below this size nothing is rewritten.
pub(crate) const COMPACT_BYTES_MIN: u64 = 32 << 20;
/// Growth since the last rewrite that is worth another one.
pub(crate) const COMPACT_GROWTH: u64 = 4;

fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Finishes or undoes a swap that was cut short.
pub(crate) fn recover(folder: &Path) -> std::io::Result<()> {
    let (new, old) = (beside(folder, ".new"), beside(folder, ".old"));
    if old.exists() && !folder.exists() {
        std::fs::rename(&old, folder)?;
    }
    for leftover in [new, old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover)?;
        }
    }
    Ok(())
}

/// Copies what lives in `disk` into a new database beside `folder`, with the
/// changes that it lacks. Of a copy that fails nothing is left, since it takes
/// the space that the old one may need.
pub(crate) fn copy(disk: &Disk, folder: &Path, lacking: &[Vec<Change>]) -> Result<(), MediumError> {
    let new = beside(folder, ".new");
    let copied = remove(&new).and_then(|()| {
        let copy = Disk::open(&new)?;
        copy_into(disk, &copy, lacking)
    });
    if copied.is_err() {
        // The reason is in `copied`.
        let _ = remove(&new);
    }
    copied
}

fn copy_into(disk: &Disk, copy: &Disk, lacking: &[Vec<Change>]) -> Result<(), MediumError> {
    for family in key::FAMILIES {
        let mut outcome = Ok(());
        disk.visit(family, &mut |key, value| {
            if outcome.is_ok() {
                outcome = copy.write((key.to_vec(), Some(value.to_vec())));
            }
        })?;
        outcome?;
    }
    for change in lacking.iter().flatten() {
        copy.write(change.clone())?;
    }
    copy.flush()
}

fn remove(folder: &Path) -> Result<(), MediumError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|error| failed("remove", folder, &error))?;
    }
    Ok(())
}

/// Puts the copy into the place of the original, which nobody has open.
pub(crate) fn swap(folder: &Path) -> Result<(), MediumError> {
    let (new, old) = (beside(folder, ".new"), beside(folder, ".old"));
    std::fs::rename(folder, &old).map_err(|error| failed("rename", folder, &error))?;
    if let Err(error) = std::fs::rename(&new, folder) {
        // The original is as good as before.
        std::fs::rename(&old, folder).map_err(|error| failed("rename", &old, &error))?;
        return Err(failed("rename", &new, &error));
    }
    if let Some(parent) = folder.parent() {
        sync_folder(parent)?;
    }
    // A database that could not be ended still holds its file.
    if let Ok(file) = File::options().write(true).open(old.join("db")) {
        let _ = file.set_len(0);
    }
    std::fs::remove_dir_all(&old).map_err(|error| failed("remove", &old, &error))
}

fn failed(operation: &str, path: &Path, error: &std::io::Error) -> MediumError {
    MediumError(format!("{operation} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_that_was_cut_short_is_put_right() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let folder = dir.path().join("journal");
        let place = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("creates");
            std::fs::write(path.join("db"), content).expect("writes");
        };
        let content = || std::fs::read_to_string(folder.join("db")).expect("reads");
        place("journal.old", "whole");
        place("journal.new", "copy");
        recover(&folder).expect("recovers");
        assert_eq!(content(), "whole");
        assert!(!dir.path().join("journal.new").exists());

        place("journal.old", "old");
        recover(&folder).expect("recovers");
        assert_eq!(content(), "whole");
        assert!(!dir.path().join("journal.old").exists());
    }
}
