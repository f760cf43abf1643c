//! A datapath in memory, with faults on demand: the simulation and tests of
//! what stands above the datapath.
//!
//! [`FakeKernel`] is what survives the agent; [`FakeDatapath`] is the agent's
//! hold on it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Datapath, DatapathError, Generation, GenerationNumber, Realized, StageReport};
use crate::events::Revision;
use crate::policy::{DirectionPolicy, EndpointPolicy};

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

/// A call on the datapath that reads or changes the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelCall {
    Stage,
    Commit,
    /// `matches_current`.
    Compare,
    Adopt,
}

/// What becomes of such a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelFate {
    Works,
    /// Nothing is done.
    Fails,
    /// Half of it is done: a stage stops in the middle, a commit before the flip.
    FailsHalfway,
    /// It is done, and told as a failure.
    FailsLate,
    /// It is not done, or by half, and told as a success: no kernel that can be
    /// trusted. A stage leaves the old verdicts of egress in the slot.
    Lies,
}

/// Decides about every call.
struct Director(Box<dyn FnMut(KernelCall) -> KernelFate + Send>);

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Director")
    }
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
    stages: u32,
    commits: u64,
    director: Option<Director>,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: Generation,
    whole: bool,
    nonce: u32,
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

    /// From now on, `director` decides about every call, over reboots too.
    pub fn direct(&self, director: impl FnMut(KernelCall) -> KernelFate + Send + 'static) {
        self.state.lock().director = Some(Director(Box::new(director)));
    }

    /// A kernel of its own that holds what this one holds.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let state = self.state.lock();
        let copy = Kernel {
            slots: state.slots.clone(),
            current: state.current,
            stages: state.stages,
            ..Kernel::default()
        };
        Self {
            state: Arc::new(Mutex::new(copy)),
        }
    }

    /// What the commit word and the record of its slot say.
    #[must_use]
    pub fn realized(&self) -> Option<Realized> {
        self.state.lock().current.map(|(_, realized)| realized)
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

    /// Flips so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// A reboot: nothing is left.
    pub fn reboot(&self) {
        let mut state = self.state.lock();
        let director = state.director.take();
        *state = Kernel {
            director,
            ..Kernel::default()
        };
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

    fn fate(&mut self, call: KernelCall) -> KernelFate {
        match &mut self.director {
            Some(Director(decide)) => decide(call),
            None => KernelFate::Works,
        }
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
        self.kernel.realized()
    }

    fn stage(&mut self, generation: &Generation) -> Result<StageReport, DatapathError> {
        let mut state = self.kernel.state.lock();
        self.staged = false;
        let fate = if state.fails(Fault::Stage) {
            KernelFate::Fails
        } else if state.fails(Fault::StageHalf) {
            KernelFate::FailsHalfway
        } else {
            state.fate(KernelCall::Stage)
        };
        let place = state.inactive();
        state.stages += 1;
        let nonce = state.stages;
        let mut slot = Slot {
            generation: generation.clone(),
            whole: true,
            nonce,
        };
        match fate {
            KernelFate::Fails => return Err(injected("stage")),
            KernelFate::FailsHalfway => slot.whole = false,
            KernelFate::Lies => keep_egress(&mut slot.generation, state.slots[place].as_ref()),
            KernelFate::Works | KernelFate::FailsLate => {}
        }
        let writes = elements(generation);
        state.writes += writes;
        state.slots[place] = Some(slot);
        if matches!(fate, KernelFate::FailsHalfway | KernelFate::FailsLate) {
            return Err(injected("stage, after it has written"));
        }
        self.staged = true;
        Ok(StageReport {
            writes,
            nonce,
            ..StageReport::default()
        })
    }

    fn commit(&mut self) -> Result<Realized, DatapathError> {
        let mut state = self.kernel.state.lock();
        if !std::mem::take(&mut self.staged) {
            return Err(DatapathError::Other("nothing is staged".to_owned()));
        }
        let fate = if state.fails(Fault::Commit) {
            KernelFate::Fails
        } else if state.fails(Fault::CommitAfterFlip) {
            KernelFate::FailsLate
        } else {
            state.fate(KernelCall::Commit)
        };
        if matches!(fate, KernelFate::Fails | KernelFate::FailsHalfway) {
            return Err(injected("commit"));
        }
        let place = state.inactive();
        let last = state
            .current
            .map_or(0, |(_, realized)| realized.generation.0);
        let Some(Slot {
            generation: staged,
            nonce,
            ..
        }) = &state.slots[place]
        else {
            return Err(DatapathError::Other("the slot is empty".to_owned()));
        };
        let realized = Realized {
            generation: GenerationNumber(last.wrapping_add(1)),
            revision: staged.revision,
            nonce: *nonce,
            enforced: by_direction(staged, |direction| direction.enforced),
            watched: by_direction(staged, |direction| direction.watched),
        };
        if fate == KernelFate::Lies {
            return Ok(realized);
        }
        state.current = Some((place, realized));
        state.commits += 1;
        if fate == KernelFate::FailsLate {
            return Err(injected("commit, after the flip"));
        }
        Ok(realized)
    }

    fn matches_current(&mut self, generation: &Generation) -> Result<bool, DatapathError> {
        let mut state = self.kernel.state.lock();
        let fate = if state.fails(Fault::Adopt) {
            KernelFate::Fails
        } else {
            state.fate(KernelCall::Compare)
        };
        match fate {
            KernelFate::Works => {}
            KernelFate::Lies => return Ok(true),
            KernelFate::Fails | KernelFate::FailsHalfway | KernelFate::FailsLate => {
                return Err(injected("the comparison"));
            }
        }
        let current = state
            .current
            .and_then(|(slot, _)| state.slots[slot].as_ref());
        Ok(current.is_some_and(|slot| same_verdicts(&slot.generation, generation)))
    }

    fn adopt(&mut self, revision: Revision) -> Result<Realized, DatapathError> {
        let mut state = self.kernel.state.lock();
        let fate = state.fate(KernelCall::Adopt);
        if matches!(fate, KernelFate::Fails | KernelFate::FailsHalfway) {
            return Err(injected("adopt"));
        }
        let (slot, realized) = state
            .current
            .as_mut()
            .ok_or_else(|| DatapathError::Other("nothing to adopt".to_owned()))?;
        let adopted = Realized {
            revision,
            ..*realized
        };
        if fate == KernelFate::Lies {
            return Ok(adopted);
        }
        *realized = adopted;
        let slot = *slot;
        if let Some(slot) = &mut state.slots[slot] {
            slot.generation.revision = revision;
        }
        if fate == KernelFate::FailsLate {
            return Err(injected("adopt, after it is written"));
        }
        Ok(adopted)
    }
}

/// Puts the verdicts of egress that a slot held before into its new generation.
fn keep_egress(new: &mut Generation, old: Option<&Slot>) {
    let Some(old) = old else { return };
    for (policy, before) in new.endpoints.iter_mut().zip(&old.generation.endpoints) {
        let mut mixed = EndpointPolicy::clone(policy);
        mixed.directions[1] = Arc::clone(&before.directions[1]);
        *policy = Arc::new(mixed);
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
    let verdicts: usize = generation
        .endpoints
        .iter()
        .flat_map(|policy| &policy.directions)
        .map(|direction| direction.table.block_count() + direction.table.rows.len())
        .sum();
    verdicts + generation.ipcache4.len() + generation.ipcache6.len()
}
