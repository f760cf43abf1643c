//! Taking the memory from a running process: a memory cgroup where there is
//! one, else a limit of its address space, at which it aborts.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Memory that it may take from now on.
const BYTES: u64 = 4 << 20;

/// How a process was starved; undone when dropped.
#[derive(Debug)]
pub(crate) enum Starved {
    /// The kernel's out-of-memory killer ends it.
    Cgroup(PathBuf),
    /// An allocation fails, and it aborts.
    AddressSpace,
}

impl Starved {
    /// From now on the process `pid` gets hardly any memory more.
    pub(crate) fn process(pid: u32, name: &str) -> Self {
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Path::new(root).join(name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let starved = Self::Cgroup(group.clone());
            let limited = fs::write(group.join(limit), BYTES.to_string());
            let joined =
                limited.and_then(|()| fs::write(group.join("cgroup.procs"), pid.to_string()));
            if joined.is_ok() {
                return starved;
            }
        }
        let status = fs::read_to_string(format!("/proc/{pid}/statm")).expect("a process");
        let pages: u64 = status
            .split(' ')
            .next()
            .and_then(|it| it.parse().ok())
            .expect("pages");
        let bytes = pages * rustix::param::page_size() as u64 + BYTES;
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        prlimit(pid, Resource::As, limit).expect("a limit");
        Self::AddressSpace
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        if let Self::Cgroup(group) = self {
            // The kernel takes the ended process out of it in its own time.
            crate::harness::until("the cgroup is empty", || fs::remove_dir(&*group).ok());
        }
    }
}
