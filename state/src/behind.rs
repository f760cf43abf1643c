//! A medium that failed, and in memory what it lacks: what was written since its
//! last flush, and all that came later. Reads see both. When the medium is well
//! again, what it lacks is written to it, and nothing was ever missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::backend::{Backend, Entry, Limit, MediumError};
use crate::key;

/// One change of the medium: a key and its new bytes; None deletes.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Read at once from the medium below.
const BATCH: Limit = Limit {
    entries: 256,
    bytes: 1 << 20,
};

/// The medium and what it lacks.
#[derive(Debug)]
pub(crate) struct Behind {
    /// What can still be read of it.
    below: Option<Box<Backend>>,
    /// Where the database lies; None: the medium is not a folder.
    folder: Option<PathBuf>,
    /// A write or flush failed: what the medium was given since its last flush
    /// may be lost, whatever it says now.
    is_doubtful: bool,
    above: Mutex<Above>,
}

#[derive(Debug, Default)]
struct Above {
    entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Keys that the medium may have got, although it failed.
    perhaps_below: BTreeSet<Vec<u8>>,
    bytes: u64,
}

impl Behind {
    /// `lacking`: what was written since the last flush, in order.
    pub(crate) fn new(
        below: Option<Backend>,
        folder: Option<PathBuf>,
        is_doubtful: bool,
        lacking: Vec<Change>,
    ) -> Self {
        let mut above = Above::default();
        for (key, value) in lacking {
            above.perhaps_below.insert(key.clone());
            above.write(key, value);
        }
        Self {
            below: below.map(Box::new),
            folder,
            is_doubtful,
            above: Mutex::new(above),
        }
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// A write failed since.
    pub(crate) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    pub(crate) fn below(&self) -> Option<&Backend> {
        self.below.as_deref()
    }

    /// Lets go of the medium, since it will be opened again.
    pub(crate) fn take_below(&mut self) -> Option<Backend> {
        self.below.take().map(|below| *below)
    }

    pub(crate) fn set_below(&mut self, below: Option<Backend>) {
        self.below = below.map(Box::new);
    }

    /// Bytes that wait for the medium.
    pub(crate) fn bytes(&self) -> u64 {
        self.above.lock().bytes
    }

    /// What the medium lacks, in an order in which a death between any two
    /// leaves a whole past: what is new, then the records that name it, then
    /// the deletions of what they no longer name.
    pub(crate) fn lacking(&self) -> [Vec<Change>; 3] {
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for (key, value) in &self.above.lock().entries {
            let part = match value {
                None => 2,
                Some(_) if key.first() == Some(&key::RECORD) => 1,
                Some(_) => 0,
            };
            parts[part].push((key.clone(), value.clone()));
        }
        parts
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MediumError> {
        if let Some(value) = self.above.lock().entries.get(key) {
            return Ok(value.clone());
        }
        self.below().map_or(Ok(None), |below| below.get(key))
    }

    pub(crate) fn put(&self, key: &[u8], value: Vec<u8>) {
        self.above.lock().write(key.to_vec(), Some(value));
    }

    pub(crate) fn delete(&self, key: &[u8]) {
        let mut above = self.above.lock();
        let is_ours = above.entries.contains_key(key) && !above.perhaps_below.contains(key);
        if is_ours {
            above.forget(key);
        } else {
            above.write(key.to_vec(), None);
        }
    }

    pub(crate) fn visit(
        &self,
        prefix: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), MediumError> {
        let mut from = vec![prefix];
        loop {
            let (entries, next) = self.batch(&from, BATCH)?;
            for (key, value) in &entries {
                see(key, value);
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    pub(crate) fn range(&self, from: &[u8], limit: Limit) -> Result<Vec<Entry>, MediumError> {
        let mut from = from.to_vec();
        loop {
            let (entries, next) = self.batch(&from, limit)?;
            match next {
                // All that the medium has here is deleted.
                Some(next) if entries.is_empty() => from = next,
                Some(_) | None => {
                    let entries = entries.into_iter().map(Ok::<_, MediumError>);
                    return limit.take(entries);
                }
            }
        }
    }

    /// Some entries from `from` on, and where to go on; None: that was all.
    fn batch(
        &self,
        from: &[u8],
        limit: Limit,
    ) -> Result<(Vec<Entry>, Option<Vec<u8>>), MediumError> {
        let below = match self.below() {
            Some(below) => below.range(from, limit)?,
            None => Vec::new(),
        };
        let next = below.last().map(|(last, _)| {
            let mut next = last.clone();
            next.push(0);
            next
        });
        let family = [from.first().copied().unwrap_or_default() + 1];
        let end = next.as_deref().unwrap_or(&family);
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = below.into_iter().collect();
        let above = self.above.lock();
        for (key, value) in above.entries.range(from.to_vec()..end.to_vec()) {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok((merged.into_iter().collect(), next))
    }

    pub(crate) fn first(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        let one = Limit {
            entries: 1,
            bytes: usize::MAX,
        };
        let entries = self.range(&[prefix], one)?;
        Ok(entries.into_iter().next().map(|(key, _)| key))
    }

    pub(crate) fn last(&self, prefix: u8) -> Result<Option<Vec<u8>>, MediumError> {
        let mut last = None;
        self.visit(prefix, &mut |key, _| last = Some(key.to_vec()))?;
        Ok(last)
    }
}

impl Above {
    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.forget(&key);
        self.bytes += size(&key, value.as_ref());
        self.entries.insert(key, value);
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= size(key, old.as_ref());
        }
    }
}

fn size(key: &[u8], value: Option<&Vec<u8>>) -> u64 {
    (key.len() + value.map_or(0, Vec::len)) as u64
}
