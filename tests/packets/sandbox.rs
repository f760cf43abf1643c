//! Where a datapath of a test lives: a network namespace and a bpffs of its own.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use palisade::datapath::netns;

/// Whether eBPF programs can be loaded here; a failure where
/// PALISADE_REQUIRE_PRIVILEGED says that they must.
pub(crate) fn is_privileged() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("PALISADE_REQUIRE_PRIVILEGED").is_none(),
        "needs root to load eBPF programs"
    );
    eprintln!("SKIPPED: needs root to load eBPF programs");
    false
}

/// A network namespace that the test's thread lives in; gone with the guard.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn enter() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pal-packets-{}-{number}", std::process::id());
        let status = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(status.expect("iproute2 is installed").success());
        let guard = Self(name);
        netns::enter(&guard.0).expect("the namespace");
        guard
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _status = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A bpffs of the test's own; gone, with all pins, with the guard.
pub(crate) struct BpfMount {
    pub(crate) directory: tempfile::TempDir,
}

impl BpfMount {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(directory.path())
            .status();
        assert!(status.expect("mount(8)").success());
        Self { directory }
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        let _status = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
    }
}
