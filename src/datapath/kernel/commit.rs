//! The flip: one atomic store of the commit word, then a wait until no packet
//! can still be under the old one.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use palisade_abi::commit::CommitWord;
use rustix::thread::MembarrierCommand;

use super::mapping::Mapping;
use super::maps::{MapName, Maps};
use super::sys;
use crate::datapath::DatapathError;

/// The commit word in the kernel's memory.
#[derive(Debug)]
pub(crate) struct CommitCell(Mapping);

impl CommitCell {
    pub(crate) fn open(maps: &Maps) -> Result<Self, DatapathError> {
        Mapping::new(maps.of(MapName::Commit), size_of::<u64>()).map(Self)
    }

    pub(crate) fn load(&self) -> CommitWord {
        CommitWord(self.0.long(0).load(Ordering::Acquire))
    }

    /// Release: what was written into the slot is visible before the word.
    pub(crate) fn store(&self, word: CommitWord) {
        self.0.long(0).store(word.0, Ordering::Release);
    }
}

/// How the wait for packets in flight was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GraceMethod {
    /// An update of a map in a map, for which the kernel waits for a grace period.
    MapInMap,
    /// membarrier(2), which does the same; refused on nohz_full machines.
    Membarrier,
    /// Neither is there: the scheduler was asked to run this thread on each CPU
    /// in turn; a CPU that runs it is not inside of a program.
    EveryCpu,
}

/// Waits until every packet that read the old commit word has left.
#[derive(Debug)]
pub(crate) struct Grace {
    outer: Option<(OwnedFd, OwnedFd)>,
}

impl Grace {
    pub(crate) fn new() -> Self {
        let shape = |map_type| sys::MapShape {
            map_type,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
        };
        let create = || {
            let inner = sys::map_create(shape(sys::MAP_TYPE_ARRAY), "pal_grace", None)?;
            let outer_shape = shape(sys::MAP_TYPE_ARRAY_OF_MAPS);
            let outer = sys::map_create(outer_shape, "pal_graces", Some(inner.as_fd()))?;
            std::io::Result::Ok((outer, inner))
        };
        Self {
            outer: create().ok(),
        }
    }

    pub(crate) fn wait(&self) -> GraceMethod {
        if let Some((outer, inner)) = &self.outer {
            let inner = inner.as_raw_fd().to_ne_bytes();
            if sys::map_update(outer.as_fd(), &0u32.to_ne_bytes(), &inner, 0).is_ok() {
                return GraceMethod::MapInMap;
            }
        }
        if rustix::thread::membarrier(MembarrierCommand::Global).is_ok() {
            return GraceMethod::Membarrier;
        }
        visit_every_cpu();
        GraceMethod::EveryCpu
    }
}

/// Runs this thread once on each CPU it may use. The programs run with
/// preemption of this thread excluded on their CPU (softirq context), so having
/// run there means that none of the earlier ones is still under way.
fn visit_every_cpu() {
    let Ok(all) = rustix::thread::sched_getaffinity(None) else {
        return;
    };
    for cpu in (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)) {
        let mut one = rustix::thread::CpuSet::new();
        one.set(cpu);
        if rustix::thread::sched_setaffinity(None, &one).is_ok() {
            rustix::thread::sched_yield();
        }
    }
    // Restoring a mask that was just read cannot fail.
    let _restored = rustix::thread::sched_setaffinity(None, &all);
}
