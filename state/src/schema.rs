//! Version of the layout of the whole store. A newer one is refused, an older
//! one is migrated forward, step by step.

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::envelope::{RecordKind, decode, encode};
use crate::key;
use crate::store::StoreError;

/// The layout that this code writes.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct SchemaRecord {
    version: u32,
}

/// Brings a store from one version to the next.
pub(crate) struct Migration {
    pub(crate) from: u32,
    pub(crate) apply: fn(&Backend) -> Result<(), StoreError>,
}

/// All migrations that exist, by rising `from`. Version 1 is the first.
pub(crate) const MIGRATIONS: &[Migration] = &[];

/// Checks the store's version, migrates it to `target` and records that.
pub(crate) fn bring_up(
    backend: &Backend,
    migrations: &[Migration],
    target: u32,
) -> Result<(), StoreError> {
    let found = read_version(backend)?;
    if found == Some(target) {
        return Ok(());
    }
    if let Some(mut version) = found {
        if version > target {
            return Err(StoreError::NewerSchema {
                found: version,
                known: target,
            });
        }
        while version < target {
            let step = migrations
                .iter()
                .find(|step| step.from == version)
                .ok_or(StoreError::NoMigration { from: version })?;
            (step.apply)(backend)?;
            version += 1;
        }
    }
    let body = serde_json::to_vec(&SchemaRecord { version: target })?;
    backend.put(
        &key::record(RecordKind::Schema, 0),
        encode(RecordKind::Schema, &body)?,
    )?;
    Ok(backend.flush()?)
}

fn read_version(backend: &Backend) -> Result<Option<u32>, StoreError> {
    let Some(bytes) = backend.get(&key::record(RecordKind::Schema, 0))? else {
        return Ok(None);
    };
    let (_, body) = decode(RecordKind::Schema, &bytes)?;
    let record: SchemaRecord = serde_json::from_slice(body)?;
    Ok(Some(record.version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDisk;

    fn mark(backend: &Backend) -> Result<(), StoreError> {
        Ok(backend.put(b"x-migrated", vec![1])?)
    }

    #[test]
    fn migrates_forward_only() {
        let backend = Backend::Memory(MemoryDisk::new());
        let steps = [Migration {
            from: 1,
            apply: mark,
        }];
        bring_up(&backend, &steps, 1).expect("an empty store takes the version");
        assert_eq!(backend.get(b"x-migrated"), Ok(None));
        bring_up(&backend, &steps, 2).expect("one step");
        assert_eq!(backend.get(b"x-migrated"), Ok(Some(vec![1])));
        assert!(matches!(
            bring_up(&backend, &steps, 1),
            Err(StoreError::NewerSchema { found: 2, known: 1 })
        ));
        assert!(matches!(
            bring_up(&backend, &steps, 3),
            Err(StoreError::NoMigration { from: 2 })
        ));
    }
}
