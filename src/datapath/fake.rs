//! A datapath in memory, with faults on demand: the simulation and tests of
//! what stands above the datapath.
//!
//! [`FakeKernel`] is what survives the agent; [`FakeDatapath`] is the agent's
//! hold on it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Datapath, DatapathError, Generation, GenerationNumber, Realized, StageReport};
use crate::events::Revision;
use crate::policy::DirectionPolicy;

/// A fault that the next call of that kind meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `stage` fails before it writes.
    Stage,
    /// `stage` has written half of it.
    StageHalf,
    /// `commit` fails before the flip.
    Commit,
    /// The flip happened, but the call fails (the wait for packets in flight).
    CommitAfterFlip,
    /// `adopt` or the comparison before it fails.
    Adopt,
}

/// The kernel's side: two slots and the commit word. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    state: Arc<Mutex<Kernel>>,
}

#[derive(Debug, Default)]
struct Kernel {
    /// What a slot holds; `whole` is false while it is half written.
    slots: [Option<Slot>; 2],
    current: Option<(usize, Realized)>,
    faults: Vec<Fault>,
    writes: usize,
    commits: Vec<Realized>,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: Generation,
    whole: bool,
}

impl FakeKernel {
    /// A kernel without anything of ours.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call of the fault's kind fails.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// What is enforced, with the whole generation. None before the first
    /// commit. Panics if a packet would see half a generation.
    #[must_use]
    pub fn enforced(&self) -> Option<(Realized, Generation)> {
        let state = self.state.lock();
        let (slot, realized) = state.current?;
        let slot = state.slots[slot]
            .as_ref()
            .expect("the current slot was written before the flip");
        assert!(slot.whole, "the current slot is half written");
        Some((realized, slot.generation.clone()))
    }

    /// Elements written so far, by all generations.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.state.lock().writes
    }

    /// Every flip so far.
    #[must_use]
    pub fn commits(&self) -> Vec<Realized> {
        self.state.lock().commits.clone()
    }

    /// A reboot: nothing is left.
    pub fn reboot(&self) {
        *self.state.lock() = Kernel::default();
    }

    /// The agent's hold on this kernel.
    #[must_use]
    pub fn datapath(&self) -> FakeDatapath {
        FakeDatapath {
            kernel: self.clone(),
            staged: false,
        }
    }
}

impl Kernel {
    fn fails(&mut self, fault: Fault) -> bool {
        let place = self.faults.iter().position(|waiting| *waiting == fault);
        place.map(|place| self.faults.remove(place)).is_some()
    }

    fn inactive(&self) -> usize {
        self.current.map_or(0, |(slot, _)| 1 - slot)
    }
}

fn injected(operation: &str) -> DatapathError {
    DatapathError::Other(format!("injected fault of {operation}"))
}

/// One agent's hold on a [`FakeKernel`].
#[derive(Debug)]
pub struct FakeDatapath {
    kernel: FakeKernel,
    staged: bool,
}

impl Datapath for FakeDatapath {
    fn realized(&self) -> Option<Realized> {
        self.kernel
            .state
            .lock()
            .current
            .map(|(_, realized)| realized)
    }

    fn stage(&mut self, generation: &Generation) -> Result<StageReport, DatapathError> {
        let mut state = self.kernel.state.lock();
        self.staged = false;
        if state.fails(Fault::Stage) {
            return Err(injected("stage"));
        }
        let slot = state.inactive();
        let half = state.fails(Fault::StageHalf);
        let writes = elements(generation);
        state.writes += writes;
        state.slots[slot] = Some(Slot {
            generation: generation.clone(),
            whole: !half,
        });
        if half {
            return Err(injected("stage, half way"));
        }
        self.staged = true;
        Ok(StageReport {
            writes,
            ..StageReport::default()
        })
    }

    fn commit(&mut self) -> Result<Realized, DatapathError> {
        let mut state = self.kernel.state.lock();
        if !std::mem::take(&mut self.staged) {
            return Err(DatapathError::Other("nothing is staged".to_owned()));
        }
        if state.fails(Fault::Commit) {
            return Err(injected("commit"));
        }
        let slot = state.inactive();
        let last = state
            .current
            .map_or(0, |(_, realized)| realized.generation.0);
        let Some(Slot {
            generation: staged, ..
        }) = &state.slots[slot]
        else {
            return Err(DatapathError::Other("the slot is empty".to_owned()));
        };
        let realized = Realized {
            generation: GenerationNumber(last.wrapping_add(1)),
            revision: staged.revision,
            enforced: by_direction(staged, |direction| direction.enforced),
            watched: by_direction(staged, |direction| direction.watched),
        };
        state.current = Some((slot, realized));
        state.commits.push(realized);
        if state.fails(Fault::CommitAfterFlip) {
            return Err(injected("commit, after the flip"));
        }
        Ok(realized)
    }

    fn matches_current(&mut self, generation: &Generation) -> Result<bool, DatapathError> {
        let mut state = self.kernel.state.lock();
        if state.fails(Fault::Adopt) {
            return Err(injected("the comparison"));
        }
        let current = state
            .current
            .and_then(|(slot, _)| state.slots[slot].as_ref());
        Ok(current.is_some_and(|slot| same_verdicts(&slot.generation, generation)))
    }

    fn adopt(&mut self, revision: Revision) -> Result<Realized, DatapathError> {
        let mut state = self.kernel.state.lock();
        let (slot, realized) = state
            .current
            .as_mut()
            .ok_or_else(|| DatapathError::Other("nothing to adopt".to_owned()))?;
        realized.revision = revision;
        let (slot, realized) = (*slot, *realized);
        if let Some(slot) = &mut state.slots[slot] {
            slot.generation.revision = revision;
        }
        Ok(realized)
    }
}

/// Whether `holds` is true of any endpoint's policy, by direction number.
fn by_direction(generation: &Generation, holds: fn(&DirectionPolicy) -> bool) -> [bool; 2] {
    [0, 1].map(|place| {
        let mut policies = generation.endpoints.iter();
        policies.any(|policy| holds(&policy.directions[place]))
    })
}

fn same_verdicts(a: &Generation, b: &Generation) -> bool {
    let pairs = || a.endpoints.iter().zip(&b.endpoints);
    a.endpoints.len() == b.endpoints.len()
        && pairs().all(|(a, b)| a.endpoint == b.endpoint && a.directions == b.directions)
        && a.ipcache4 == b.ipcache4
        && a.ipcache6 == b.ipcache6
        && a.settings == b.settings
}

fn elements(generation: &Generation) -> usize {
    let cells: usize = generation
        .endpoints
        .iter()
        .flat_map(|policy| &policy.directions)
        .map(|direction| direction.table.cell_count() + direction.table.rows.len())
        .sum();
    cells + generation.ipcache4.len() + generation.ipcache6.len()
}
