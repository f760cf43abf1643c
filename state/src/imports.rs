//! What only an operator brought, once more beside the database: should that be
//! lost, no source tells it again. One file each, written whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::disk::sync_folder;
use crate::store::{Store, StoreError};

const FOLDER: &str = "imports";
const ENDING: &str = ".json";
const DRAFT: &str = ".new";

/// Copies by their names, which are those of files; None: there is to be none.
pub type Copies = BTreeMap<String, Option<Vec<u8>>>;

impl Store {
    /// The copies that there are. Of a store in memory none.
    pub fn imports(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let Some(folder) = self.imports_folder().filter(|folder| folder.exists()) else {
            return Ok(BTreeMap::new());
        };
        read(&folder).map_err(|error| medium(&folder, &error))
    }

    /// Writes and removes copies; on the disk when it returns.
    pub fn put_imports(&self, copies: &Copies) -> Result<(), StoreError> {
        let Some(folder) = self.imports_folder().filter(|_| !copies.is_empty()) else {
            return Ok(());
        };
        write(&folder, copies).map_err(|error| medium(&folder, &error))?;
        Ok(sync_folder(&folder)?)
    }

    fn imports_folder(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(FOLDER))
    }
}

fn medium(folder: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Medium(format!("{}: {error}", folder.display()))
}

fn read(folder: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| name.strip_suffix(ENDING)) {
            found.insert(name.to_owned(), std::fs::read(&path)?);
        }
    }
    Ok(found)
}

/// All drafts are on the disk before the first takes its place.
fn write(folder: &Path, copies: &Copies) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut last = None;
    for (name, bytes) in copies {
        if let Some(bytes) = bytes {
            let mut file = File::create(folder.join(format!("{name}{DRAFT}")))?;
            file.write_all(bytes)?;
            last = Some(file);
        }
    }
    if let Some(file) = last {
        rustix::fs::syncfs(&file)?;
    }
    for (name, bytes) in copies {
        let path = folder.join(format!("{name}{ENDING}"));
        match bytes {
            Some(_) => std::fs::rename(folder.join(format!("{name}{DRAFT}")), &path)?,
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_outlive_the_database() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        assert_eq!(store.imports().expect("none"), BTreeMap::new());
        let one = |name: &str, bytes: Option<&[u8]>| {
            let copy = (name.to_owned(), bytes.map(<[u8]>::to_vec));
            store.put_imports(&Copies::from([copy])).expect("written");
        };
        one("a", Some(b"1"));
        one("b", Some(b"2"));
        one("a", Some(b"3"));
        one("c", None);
        one("b", None);
        drop(store);
        std::fs::remove_dir_all(dir.path().join("journal")).expect("lost");
        let store = Store::open(dir.path()).expect("opens");
        let found = store.imports().expect("read");
        assert_eq!(found, BTreeMap::from([("a".to_owned(), b"3".to_vec())]));
    }

    #[test]
    fn a_store_in_memory_keeps_none() {
        let store = Store::memory();
        let copy = ("a".to_owned(), Some(Vec::new()));
        store.put_imports(&Copies::from([copy])).expect("nothing");
        assert_eq!(store.imports().expect("none"), BTreeMap::new());
    }
}
