//! What a large world costs beside a tenth of it: time, changes, memory.

use std::fs;

/// What one size showed.
#[derive(Debug)]
pub(crate) struct Shown {
    /// How much there is of each kind.
    pub(crate) sizes: [u32; 3],
    pub(crate) sync_s: f64,
    pub(crate) events_per_s: f64,
    pub(crate) memory_kib: u64,
    /// The most it ever was.
    peak_kib: u64,
}

impl Shown {
    /// With the memory that the agent of this pid has now.
    pub(crate) fn of(sizes: [u32; 3], sync_s: f64, events_per_s: f64, pid: u32) -> Self {
        Self {
            sizes,
            sync_s,
            events_per_s,
            memory_kib: resident_kib(pid, "VmRSS:"),
            peak_kib: resident_kib(pid, "VmHWM:"),
        }
    }
}

/// How many nodes `PALISADE_SCALE_NODES` asks for.
pub(crate) fn nodes_or(usual: u32) -> u32 {
    let asked = std::env::var("PALISADE_SCALE_NODES").ok();
    asked.map_or(usual, |nodes| nodes.parse().expect("PALISADE_SCALE_NODES"))
}

/// A table of both, and how each figure grows. `kinds`: of the sizes.
pub(crate) fn print(kinds: [&str; 3], changes: &str, small: &Shown, large: &Shown) {
    let [one, two, three] = kinds;
    println!("| {one} | {two} | {three} | in sync after | {changes} | resident | peak |");
    println!("|---|---|---|---|---|---|---|");
    for shown in [small, large] {
        let [one, two, three] = shown.sizes;
        println!(
            "| {one} | {two} | {three} | {:.2} s | {:.0}/s | {} MiB | {} MiB |",
            shown.sync_s,
            shown.events_per_s,
            shown.memory_kib >> 10,
            shown.peak_kib >> 10
        );
    }
    println!(
        "| growth | x10 | x10 | x{:.1} | x{:.2} | x{:.2} | x{:.2} |",
        large.sync_s / small.sync_s,
        large.events_per_s / small.events_per_s,
        large.memory_kib as f64 / small.memory_kib as f64,
        large.peak_kib as f64 / small.peak_kib as f64
    );
}

fn resident_kib(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let digits = line.and_then(|line| line.split_whitespace().next());
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number of KiB")
}
