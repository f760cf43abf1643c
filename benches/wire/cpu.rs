//! What is measured: the time of one CPU.
//!
//! A veth hands a packet to the receiving side on the CPU that sends it, in a
//! softirq at the end of the send. So the CPU time of a sender that is pinned
//! holds all work on its packets. Where softirqs are many, the kernel moves
//! some to the thread ksoftirqd of the same CPU: its time is added.

use std::fs;

use anyhow::{Context as _, Result, bail};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// What was done, in units of the load, and what it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) units: f64,
    pub(crate) cpu_ns: u64,
}

/// The CPU that all measured work is done on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    number: usize,
    softirqs: u32,
}

impl Cpu {
    /// The last one: interrupts of devices go to the first ones.
    pub(crate) fn last() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut numbers = (0..CpuSet::MAX_CPU).rev();
        let number = numbers.find(|cpu| allowed.is_set(*cpu));
        let number = number.context("no CPU is allowed")?;
        let name = format!("ksoftirqd/{number}");
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                let softirqs = entry.file_name().to_string_lossy().parse()?;
                return Ok(Self { number, softirqs });
            }
        }
        bail!("there is no {name}");
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Keeps the calling thread here, before others that want to run here: who
    /// else runs between two packets changes what the caches hold.
    pub(crate) fn pin(&self) {
        const NICE: i32 = -19;
        let mut one = CpuSet::new();
        one.set(self.number);
        sched_setaffinity(None, &one).expect("an allowed CPU");
        setpriority_process(None, NICE).expect("root may");
    }

    /// CPU time of ksoftirqd, ns.
    pub(crate) fn softirq_ns(&self) -> Result<u64> {
        let path = format!("/proc/{}/schedstat", self.softirqs);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let first = text.split_whitespace().next();
        first.context(path)?.parse().context("nanoseconds")
    }
}

/// CPU time of the calling thread, ns; softirqs that ran in it are counted as
/// its own (where the kernel has no CONFIG_IRQ_TIME_ACCOUNTING).
pub(crate) fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, ns) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + ns
}
