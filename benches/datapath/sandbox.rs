//! Where the benchmark lives: a thread in namespaces of its own, with a bpffs,
//! a routing table with forwarding on, and one CPU to itself.

use std::path::Path;
use std::process::Command;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::private;

/// Device through which the namespace would forward, and its peer.
const SETUP: [&str; 12] = [
    "link set lo up",
    "link add out type veth peer name away",
    "link set out up",
    "link set away up",
    "addr add 10.0.0.1/24 dev out",
    "-6 addr add fd00::1/64 dev out nodad",
    "neigh add 10.0.0.254 lladdr 02:00:00:00:00:fe dev out",
    "-6 neigh add fd00::fe lladdr 02:00:00:00:00:fe dev out",
    "route add default via 10.0.0.254",
    "-6 route add default via fd00::fe",
    "route add 10.99.0.0/16 via 10.0.0.254",
    "-6 route add fd99::/16 via fd00::fe",
];

/// Calls `work` with a bpffs that ends with it.
pub(crate) fn run<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let inside = || {
        let bpffs = enter(path);
        work(&bpffs)
    };
    let result = std::thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn enter(dir: &Path) -> std::path::PathBuf {
    let bpffs = private::enter(dir);
    for words in SETUP {
        let status = Command::new("ip").args(words.split(' ')).status();
        assert!(
            status.expect("iproute2 is installed").success(),
            "ip {words}"
        );
    }
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(Path::new("/proc/sys/net").join(switch), "1").expect("forwarding");
    }
    bpffs
}

/// Keeps this thread on one CPU (the last one), or off it.
pub(crate) fn stay_on_last_cpu(stay: bool) {
    let all = sched_getaffinity(None).expect("the CPUs of this thread");
    let usable = |cpu: &usize| all.is_set(*cpu);
    let Some(last) = (0..CpuSet::MAX_CPU).rfind(usable) else {
        return;
    };
    let mut chosen = CpuSet::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(usable) {
        if (cpu == last) == stay {
            chosen.set(cpu);
        }
    }
    if chosen.count() != 0 {
        sched_setaffinity(None, &chosen).expect("a choice of CPUs");
    }
}

/// Runs `work` with every CPU at hand, as the agent runs.
pub(crate) fn on_all_cpus<T>(work: impl FnOnce() -> T) -> T {
    let kept = sched_getaffinity(None).expect("the CPUs of this thread");
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // The kernel takes of these what it has.
    sched_setaffinity(None, &all).expect("all CPUs");
    let outcome = work();
    sched_setaffinity(None, &kept).expect("the CPUs from before");
    outcome
}
