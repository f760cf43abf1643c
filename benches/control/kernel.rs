//! The real datapath, in namespaces and on a bpffs of its own. Needs root.

use std::path::Path;

use palisade::datapath::kernel::{KernelDatapath, KernelOptions};
use palisade::datapath::netns;
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Calls `work` with a datapath that has nothing to do with this machine's.
pub(crate) fn with_datapath<T: Send>(work: impl FnOnce(KernelDatapath) -> T + Send) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let result = std::thread::scope(|scope| scope.spawn(|| work(open(path))).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// In this thread's namespaces, which end with it.
fn open(dir: &Path) -> KernelDatapath {
    netns::enter_new().expect("a new network; --kernel needs root");
    netns::enter_new_mounts().expect("new mounts");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    let bpffs = dir.join("bpf");
    std::fs::create_dir(&bpffs).expect("a mount point");
    rustix::mount::mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("a bpffs");
    let options = KernelOptions {
        bpffs: bpffs.join("palisade"),
        ..KernelOptions::default()
    };
    let (datapath, _) = KernelDatapath::open(&options).expect("the datapath opens");
    datapath
}
