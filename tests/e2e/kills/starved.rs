//! Taking the memory from a running process: by a memory cgroup, where the
//! kernel's out-of-memory killer ends it, or by a limit of its data, at which it
//! aborts.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Memory that it may take from now on.
const BYTES: u64 = 4 << 20;

/// A memory cgroup with hardly any memory, removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// None where there are no memory cgroups, or not for us.
    pub(crate) fn create(name: &str) -> Option<Self> {
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        versions.into_iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            let limited = fs::write(group.0.join(limit), BYTES.to_string());
            limited.is_ok().then_some(group)
        })
    }

    /// What the process takes from now on counts.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process joins");
    }
}

/// From now on a process gets hardly any memory of its own.
pub(crate) fn limit_data(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let bytes = (kib.expect("VmData") << 10) + BYTES;
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Data, limit).expect("a limit");
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes an ended process out of it in its own time.
        let group = &self.0;
        crate::harness::until("the cgroup is empty", || fs::remove_dir(group).ok());
    }
}
