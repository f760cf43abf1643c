//! A network, mounts and a bpffs of a benchmark's own. Needs root.

use std::path::{Path, PathBuf};

use palisade::datapath::netns;
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Moves this thread into namespaces that end with it; a bpffs in `dir`.
pub(crate) fn enter(dir: &Path) -> PathBuf {
    netns::enter_new().expect("a new network; this needs root");
    netns::enter_new_mounts().expect("new mounts");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    let bpffs = dir.join("bpf");
    std::fs::create_dir(&bpffs).expect("a mount point");
    rustix::mount::mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("a bpffs");
    bpffs
}
