//! Trouble: what fails, is slow or is the last thing that the agent does, at
//! every call of the store and of the datapath.

use std::sync::Arc;
use std::time::Duration;

use palisade::clock::ManualClock;
use palisade::datapath::fake::{FakeKernel, KernelCall, KernelFate};
use palisade_state::{DiskCall, DiskFate, MemoryDisk};
use parking_lot::Mutex;

use crate::random::Random;

/// A fault of the surroundings that no agent can survive: the simulation must
/// find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// Flushes are told and not done.
    DiskForgetsFlushes,
    /// Some writes are told and not done.
    DiskForgetsWrites,
    /// One direction of the new generation, the other of an old one.
    KernelMixes,
    /// The flip is told and not done.
    KernelForgetsFlips,
    /// Whatever is asked about is told to be there already.
    KernelAgrees,
}

/// What may happen at a call. In percent, but for deaths: in ten thousand.
#[derive(Clone, Copy, Debug)]
struct Rates {
    disk_fails: usize,
    kernel_fails: usize,
    slow: usize,
    dies: usize,
}

/// Decides about every call; shared by disk and kernel.
#[derive(Debug)]
pub(crate) struct Trouble {
    random: Random,
    clock: Arc<ManualClock>,
    rates: Rates,
    plant: Option<Plant>,
    /// The agent died in the middle of something; what it does now is a dream.
    dead: bool,
    /// Faults and deaths so far.
    pub(crate) count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    Fails,
    FailsHalfway,
    FailsLate,
}

impl Trouble {
    /// Each seed has its own kind of trouble, some have none.
    pub(crate) fn begin(
        seed: u64,
        plant: Option<Plant>,
        clock: &Arc<ManualClock>,
        disk: &MemoryDisk,
        kernel: &FakeKernel,
    ) -> Arc<Mutex<Self>> {
        let mut random = Random::new(seed ^ 0x7472_6f75_626c_6500);
        let rates = Rates {
            disk_fails: *random.pick(&[0, 1, 4, 25]),
            kernel_fails: *random.pick(&[0, 5, 20]),
            slow: *random.pick(&[0, 5]),
            dies: *random.pick(&[0, 30, 100, 300]),
        };
        let trouble = Arc::new(Mutex::new(Self {
            random,
            clock: Arc::clone(clock),
            rates,
            plant,
            dead: false,
            count: 0,
        }));
        let of_disk = Arc::clone(&trouble);
        disk.direct(move |call| of_disk.lock().disk(call));
        let of_kernel = Arc::clone(&trouble);
        kernel.direct(move |call| of_kernel.lock().kernel(call));
        trouble
    }

    /// Faults stop.
    pub(crate) fn end(&mut self) {
        self.rates = Rates {
            disk_fails: 0,
            kernel_fails: 0,
            slow: 0,
            dies: 0,
        };
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// A new life begins.
    pub(crate) fn revive(&mut self) {
        self.dead = false;
    }

    fn fate(&mut self, fails: usize) -> Fate {
        if self.dead {
            return Fate::Fails;
        }
        if self.random.chance(self.rates.slow) {
            let span = *self.random.pick(&[20, 900, 70_000]);
            self.clock.advance(Duration::from_millis(span));
        }
        self.dead = self.random.below(10_000) < self.rates.dies;
        if !self.dead && !self.random.chance(fails) {
            return Fate::Works;
        }
        self.count += 1;
        *self
            .random
            .pick(&[Fate::Fails, Fate::FailsHalfway, Fate::FailsLate])
    }

    fn disk(&mut self, call: DiskCall) -> DiskFate {
        match self.fate(self.rates.disk_fails) {
            Fate::Works => {}
            Fate::Fails | Fate::FailsHalfway => return DiskFate::Fails,
            Fate::FailsLate => return DiskFate::FailsLate,
        }
        let lies = match (self.plant, call) {
            (Some(Plant::DiskForgetsFlushes), DiskCall::Flush) => true,
            (Some(Plant::DiskForgetsWrites), DiskCall::Write) => self.random.chance(5),
            _ => false,
        };
        if lies {
            DiskFate::Lies
        } else {
            DiskFate::Works
        }
    }

    fn kernel(&mut self, call: KernelCall) -> KernelFate {
        match self.fate(self.rates.kernel_fails) {
            Fate::Works => {}
            Fate::Fails => return KernelFate::Fails,
            Fate::FailsHalfway => return KernelFate::FailsHalfway,
            Fate::FailsLate => return KernelFate::FailsLate,
        }
        match (self.plant, call) {
            (Some(Plant::KernelMixes), KernelCall::Stage)
            | (Some(Plant::KernelForgetsFlips), KernelCall::Commit)
            | (Some(Plant::KernelAgrees), KernelCall::Compare) => KernelFate::Lies,
            _ => KernelFate::Works,
        }
    }
}
