//! A disk in memory, for the simulation: what was not flushed is lost in a
//! crash, and writes or flushes fail when told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::backend::{Entry, Limit, MediumError};

/// A call that changes the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskCall {
    /// Of one key, a deletion too.
    Write,
    Flush,
}

/// What becomes of such a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFate {
    Works,
    /// Nothing is done.
    Fails,
    /// It is done, and told as a failure.
    FailsLate,
    /// Nothing is done, and told as a success: no disk that can be trusted.
    Lies,
}

/// Decides about every call.
struct Director(Box<dyn FnMut(DiskCall) -> DiskFate + Send>);

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Director")
    }
}

/// A handle to one disk in memory; clones share it, so that it outlives the
/// store that wrote to it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    image: Arc<Mutex<Image>>,
}

#[derive(Debug, Default)]
struct Image {
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    current: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Written since the last flush, in order; None deletes.
    unflushed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    failing_flushes: u32,
    failing_writes: u32,
    flushes: u64,
    /// Writes and flushes until the process dies; None: it lives.
    life: Option<u64>,
    director: Option<Director>,
}

impl Image {
    fn fate(&mut self, call: DiskCall) -> DiskFate {
        match &mut self.director {
            Some(Director(decide)) => decide(call),
            None => DiskFate::Works,
        }
    }

    /// Whether the process is dead, or dies by what it does now.
    fn is_dead(&mut self) -> bool {
        match &mut self.life {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, `director` decides about every write and flush, over crashes
    /// too.
    pub fn direct(&self, director: impl FnMut(DiskCall) -> DiskFate + Send + 'static) {
        self.image.lock().director = Some(Director(Box::new(director)));
    }

    /// A disk of its own with what is durable on this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let durable = self.image.lock().durable.clone();
        let image = Image {
            current: durable.clone(),
            durable,
            ..Image::default()
        };
        Self {
            image: Arc::new(Mutex::new(image)),
        }
    }

    /// The next `count` flushes fail.
    pub fn fail_flushes(&self, count: u32) {
        self.image.lock().failing_flushes = count;
    }

    /// The next `count` writes fail.
    pub fn fail_writes(&self, count: u32) {
        self.image.lock().failing_writes = count;
    }

    /// After so many writes and flushes the process is dead: all that follow
    /// fail, until [`Self::crash`].
    pub fn die_after(&self, count: u64) {
        self.image.lock().life = Some(count);
    }

    /// Whether it died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.image.lock().life == Some(0)
    }

    /// Writes that a crash may lose.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.image.lock().unflushed.len()
    }

    /// Bytes of all keys and values, those that are not durable too.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let image = self.image.lock();
        let entries = image.durable.iter().chain(&image.current);
        entries.map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Flushes that succeeded.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.image.lock().flushes
    }

    /// Loses what was not flushed, except for the first `kept` writes: a log
    /// may have reached the disk further than it was told to.
    pub fn crash(&self, kept: usize) {
        let mut image = self.image.lock();
        let writes = std::mem::take(&mut image.unflushed);
        for (key, value) in writes.into_iter().take(kept) {
            write(&mut image.durable, key, value);
        }
        image.current = image.durable.clone();
        image.failing_flushes = 0;
        image.failing_writes = 0;
        image.life = None;
    }

    /// Cuts the record of one event of the journal in the middle.
    pub fn tear_event(&self, sequence: u64) {
        self.tear(&crate::key::journal(sequence));
    }

    /// Cuts the first chunk of a snapshot in the middle.
    pub fn tear_snapshot(&self, sequence: u64) {
        self.tear(&crate::key::chunk(sequence, 0));
    }

    fn tear(&self, key: &[u8]) {
        let mut guard = self.image.lock();
        let image = &mut *guard;
        for map in [&mut image.durable, &mut image.current] {
            if let Some(bytes) = map.get_mut(key) {
                bytes.truncate(bytes.len() / 2);
            }
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.image.lock().current.get(key).cloned()
    }

    pub(crate) fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), MediumError> {
        self.write(key, Some(value))
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), MediumError> {
        self.write(key, None)
    }

    fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> Result<(), MediumError> {
        let mut image = self.image.lock();
        if image.is_dead() {
            return Err(MediumError("the process is dead".into()));
        }
        if image.failing_writes > 0 {
            image.failing_writes -= 1;
            return Err(MediumError("injected fault of a write".into()));
        }
        let fate = image.fate(DiskCall::Write);
        match fate {
            DiskFate::Works | DiskFate::FailsLate => {
                write(&mut image.current, key.to_vec(), value.clone());
                image.unflushed.push((key.to_vec(), value));
            }
            DiskFate::Fails | DiskFate::Lies => {}
        }
        told(fate, "write")
    }

    pub(crate) fn visit(&self, prefix: u8, see: &mut dyn FnMut(&[u8], &[u8])) {
        let image = self.image.lock();
        for (key, value) in image.current.range(family(prefix)) {
            see(key, value);
        }
    }

    pub(crate) fn range(&self, from: &[u8], limit: Limit) -> Vec<Entry> {
        let image = self.image.lock();
        let end = family(from.first().copied().unwrap_or_default()).end;
        let entries = image.current.range(from.to_vec()..end);
        let entries = entries.map(|(key, value)| Ok((key.clone(), value.clone())));
        let Ok(taken) = limit.take::<Infallible>(entries);
        taken
    }

    pub(crate) fn first(&self, prefix: u8) -> Option<Vec<u8>> {
        let image = self.image.lock();
        let mut keys = image.current.range(family(prefix));
        keys.next().map(|(key, _)| key.clone())
    }

    pub(crate) fn last(&self, prefix: u8) -> Option<Vec<u8>> {
        let image = self.image.lock();
        let mut keys = image.current.range(family(prefix));
        keys.next_back().map(|(key, _)| key.clone())
    }

    pub(crate) fn flush(&self) -> Result<(), MediumError> {
        let mut image = self.image.lock();
        if image.is_dead() {
            return Err(MediumError("the process is dead".into()));
        }
        if image.failing_flushes > 0 {
            image.failing_flushes -= 1;
            return Err(MediumError("injected fault of a flush".into()));
        }
        let fate = image.fate(DiskCall::Flush);
        match fate {
            DiskFate::Works | DiskFate::FailsLate => {
                for (key, value) in std::mem::take(&mut image.unflushed) {
                    write(&mut image.durable, key, value);
                }
                image.flushes += 1;
            }
            DiskFate::Fails | DiskFate::Lies => {}
        }
        told(fate, "flush")
    }
}

fn told(fate: DiskFate, call: &str) -> Result<(), MediumError> {
    match fate {
        DiskFate::Works | DiskFate::Lies => Ok(()),
        DiskFate::Fails | DiskFate::FailsLate => {
            Err(MediumError(format!("injected fault of a {call}")))
        }
    }
}

/// All keys that begin with this byte.
fn family(prefix: u8) -> Range<Vec<u8>> {
    vec![prefix]..vec![prefix + 1]
}

fn write(to: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => to.insert(key, value),
        None => to.remove(&key),
    };
}

#[cfg(test)]
impl MemoryDisk {
    /// Overwrites the bytes of every durable key that begins with `prefix`.
    pub(crate) fn damage(&self, prefix: u8, change: impl Fn(&mut Vec<u8>)) {
        let mut image = self.image.lock();
        for (key, value) in &mut image.current {
            if key.first() == Some(&prefix) {
                change(value);
            }
        }
    }
}
