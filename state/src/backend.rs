//! What the store needs of a medium: ordered keys, and a flush that lasts.

use crate::disk::Disk;
use crate::memory::MemoryDisk;

/// A failure of the medium. sled's panics arrive here as well.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MediumError(pub(crate) String);

/// The medium behind a store.
#[derive(Debug)]
pub(crate) enum Backend {
    Disk(Disk),
    Memory(MemoryDisk),
}

/// A key and its bytes.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

impl Backend {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MediumError> {
        match self {
            Self::Disk(disk) => disk.get(key),
            Self::Memory(memory) => Ok(memory.get(key)),
        }
    }

    pub(crate) fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.put(key, value),
            Self::Memory(memory) => memory.put(key, value),
        }
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.delete(key),
            Self::Memory(memory) => memory.delete(key),
        }
    }

    /// All entries whose key begins with `prefix`, by rising key.
    pub(crate) fn scan(&self, prefix: u8) -> Result<Vec<Entry>, MediumError> {
        match self {
            Self::Disk(disk) => disk.scan(prefix),
            Self::Memory(memory) => Ok(memory.scan(prefix)),
        }
    }

    /// Makes everything written before last, through a loss of power too.
    pub(crate) fn flush(&self) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.flush(),
            Self::Memory(memory) => memory.flush(),
        }
    }
}
