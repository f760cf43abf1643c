//! What the store needs of a medium: ordered keys, and a flush that lasts.

use crate::behind::Behind;
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
    /// It failed, and memory holds what it lacks.
    Behind(Behind),
}

/// A key and its bytes.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// How much is read at once: it ends with the entry that reaches a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Limit {
    /// What of the entries is within the limit.
    pub(crate) fn take<E>(
        self,
        entries: impl Iterator<Item = Result<Entry, E>>,
    ) -> Result<Vec<Entry>, E> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for entry in entries.take(self.entries) {
            let entry = entry?;
            bytes += entry.1.len();
            taken.push(entry);
            if bytes >= self.bytes {
                break;
            }
        }
        Ok(taken)
    }
}

impl Backend {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MediumError> {
        match self {
            Self::Disk(disk) => disk.get(key),
            Self::Memory(memory) => Ok(memory.get(key)),
            Self::Behind(behind) => behind.get(key),
        }
    }

    pub(crate) fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.put(key, value),
            Self::Memory(memory) => memory.put(key, value),
            Self::Behind(behind) => {
                behind.put(key, value);
                Ok(())
            }
        }
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.delete(key),
            Self::Memory(memory) => memory.delete(key),
            Self::Behind(behind) => {
                behind.delete(key);
                Ok(())
            }
        }
    }

    /// Shows every entry whose key begins with `prefix`, by rising key, one at a
    /// time.
    pub(crate) fn visit(
        &self,
        prefix: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.visit(prefix, see),
            Self::Memory(memory) => {
                memory.visit(prefix, see);
                Ok(())
            }
            Self::Behind(behind) => behind.visit(prefix, see),
        }
    }

    /// The entries from the key `from` on, by rising key, within its family.
    pub(crate) fn range(&self, from: &[u8], limit: Limit) -> Result<Vec<Entry>, MediumError> {
        match self {
            Self::Disk(disk) => disk.range(from, limit),
            Self::Memory(memory) => Ok(memory.range(from, limit)),
            Self::Behind(behind) => behind.range(from, limit),
        }
    }

    /// The lowest key that begins with `prefix`.
    pub(crate) fn first(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        match self {
            Self::Disk(disk) => disk.first(prefix),
            Self::Memory(memory) => Ok(memory.first(prefix)),
            Self::Behind(behind) => behind.first(prefix),
        }
    }

    /// The highest key that begins with `prefix`.
    pub(crate) fn last(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        match self {
            Self::Disk(disk) => disk.last(prefix),
            Self::Memory(memory) => Ok(memory.last(prefix)),
            Self::Behind(behind) => behind.last(prefix),
        }
    }

    /// Makes everything written before last, through a loss of power too. What is
    /// behind has nothing to make it last with: see [`crate::Store::flush`].
    pub(crate) fn flush(&self) -> Result<(), MediumError> {
        match self {
            Self::Disk(disk) => disk.flush(),
            Self::Memory(memory) => memory.flush(),
            Self::Behind(_) => Ok(()),
        }
    }
}
