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
    /// The kinds of them: a bit for each pair of call and fate.
    pub(crate) met: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    Fails,
    FailsHalfway,
    FailsLate,
}

/// Pairs of a call and a way in which it fails.
pub(crate) const KINDS: u32 = 6 * 3;

/// The bit of the first way in which a call fails.
fn place(call: Call) -> u32 {
    3 * match call {
        Call::Disk(DiskCall::Write) => 0,
        Call::Disk(DiskCall::Flush) => 1,
        Call::Kernel(KernelCall::Stage) => 2,
        Call::Kernel(KernelCall::Commit) => 3,
        Call::Kernel(KernelCall::Compare) => 4,
        Call::Kernel(KernelCall::Adopt) => 5,
    }
}

#[derive(Clone, Copy)]
enum Call {
    Disk(DiskCall),
    Kernel(KernelCall),
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
            kernel_fails: *random.pick(&[0, 5, 15]),
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
            met: 0,
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

    fn fate(&mut self, call: Call, fails: usize) -> Fate {
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
        let (way, fate) = *self.random.pick(&[
            (0, Fate::Fails),
            (1, Fate::FailsHalfway),
            (2, Fate::FailsLate),
        ]);
        self.met |= 1 << (place(call) + way);
        fate
    }

    fn disk(&mut self, call: DiskCall) -> DiskFate {
        match self.fate(Call::Disk(call), self.rates.disk_fails) {
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
        // The rarest call fails most often.
        let often = if call == KernelCall::Adopt { 4 } else { 1 };
        let fails = often * self.rates.kernel_fails;
        match self.fate(Call::Kernel(call), fails) {
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
