//! Small files beside the database. Two for the day it is lost: its identity, by
//! which a lost or swapped one is noticed, and the audit options, since no restart
//! may begin to enforce by itself. One counts lives that were cut off in their
//! first build, so that a policy that needs more memory than there is does not
//! take every life. Written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::sync_folder;
use crate::records::{AuditRecord, StoreIdentity};
use crate::store::StoreError;

/// The folder that holds them.
#[derive(Debug)]
pub(crate) struct Beside {
    dir: PathBuf,
}

impl Beside {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn audit(&self) -> Option<AuditRecord> {
        self.read("audit.json")
    }

    pub(crate) fn put_audit(&self, record: &AuditRecord) -> Result<(), StoreError> {
        self.write("audit.json", record)
    }

    pub(crate) fn builds_cut_off(&self) -> Option<u32> {
        self.read("builds-cut-off.json")
    }

    pub(crate) fn put_builds_cut_off(&self, count: u32) -> Result<(), StoreError> {
        self.write("builds-cut-off.json", &count)
    }

    pub(crate) fn identity(&self) -> Option<StoreIdentity> {
        self.read("identity.json")
    }

    pub(crate) fn put_identity(&self, identity: &StoreIdentity) -> Result<(), StoreError> {
        self.write("identity.json", identity)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.dir.join(name)).ok()?).ok()
    }

    fn write<T: Serialize>(&self, name: &str, record: &T) -> Result<(), StoreError> {
        let (path, draft) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let bytes = serde_json::to_vec(record)?;
        let written = std::fs::File::create(&draft)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&draft, &path));
        written.map_err(|error| {
            drop(std::fs::remove_file(&draft));
            StoreError::Medium(format!("{}: {error}", path.display()))
        })?;
        Ok(sync_folder(&self.dir)?)
    }
}
