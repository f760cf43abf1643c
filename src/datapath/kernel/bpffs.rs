//! Finds or mounts the BPF file system that holds our pins.
//!
//! Pins must outlive the agent, so they must stand on a mount that outlives it.
//! `ip netns exec` gives its child a private mount namespace with a fresh /sys:
//! a bpffs mounted there dies with the agent, and enforcement with it. So in a
//! foreign namespace the file system of the machine's first namespace is
//! mounted (there, if it was not) and a clone of that mount is moved into ours.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, statfs};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::maps::kernel;
use crate::datapath::DatapathError;

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where everyone expects the bpffs.
const STANDARD_MOUNT: &str = "/sys/fs/bpf";

/// What [`prepare`] did.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// For the operator: what may go wrong later, and what to do.
    pub(crate) warnings: Vec<String>,
    pub(crate) mounted: bool,
}

/// Makes `dir` a directory on a bpffs that outlives this process.
pub(crate) fn prepare(dir: &Path) -> Result<Prepared, DatapathError> {
    let mut prepared = Prepared::default();
    if !is_on_bpffs(dir) {
        let target = mount_point(dir);
        prepared.mounted = true;
        match foreign_namespace() {
            Home::Here => mount_bpffs(&target)?,
            Home::Elsewhere(namespace) => {
                if let Err(error) = borrow_mount(namespace, &target, true) {
                    mount_bpffs(&target)?;
                    prepared
                        .warnings
                        .push(private_warning(&target, &error.to_string()));
                }
            }
            Home::Unknown => {
                mount_bpffs(&target)?;
                prepared.warnings.push(private_warning(
                    &target,
                    "the first mount namespace cannot be read",
                ));
            }
        }
    }
    fs::create_dir_all(dir).map_err(kernel(format!("create {}", dir.display())))?;
    Ok(prepared)
}

/// Makes a bpffs that the machine's first mount namespace has at `dir` visible
/// here; mounts nothing new.
pub(crate) fn borrow_existing(dir: &Path) {
    if is_on_bpffs(dir) {
        return;
    }
    if let Home::Elsewhere(namespace) = foreign_namespace()
        && let Err(error) = borrow_mount(namespace, &mount_point(dir), false)
    {
        tracing::debug!(dir = %dir.display(), %error, "no bpffs in the first mount namespace");
    }
}

fn private_warning(target: &Path, reason: &str) -> String {
    format!(
        "the bpffs at {} may be private to this mount namespace ({reason}): enforcement would end \
         with the agent. Mount it before the agent starts: `mount -t bpf bpf {}` in the machine's \
         mount namespace, then enter the network namespace with `nsenter --net=` instead of `ip netns exec`",
        target.display(),
        target.display(),
    )
}

/// Unmounts a bpffs that stands at `dir` itself and is empty, in this namespace
/// and in the machine's first one. The standard mount stays.
pub(crate) fn release(dir: &Path) -> bool {
    if dir == Path::new(STANDARD_MOUNT) || !is_mount_root(dir) {
        return false;
    }
    // The kernel itself puts these two into the root of every bpffs.
    let of_kernel = |name: &std::ffi::OsStr| name == "maps.debug" || name == "progs.debug";
    let empty = || {
        fs::read_dir(dir)
            .is_ok_and(|entries| entries.flatten().all(|entry| of_kernel(&entry.file_name())))
    };
    if !is_on_bpffs(dir) || !empty() {
        return false;
    }
    let here = rustix::mount::unmount(dir, UnmountFlags::DETACH).is_ok();
    if let Home::Elsewhere(namespace) = foreign_namespace() {
        let there = in_namespace(namespace, || {
            if is_on_bpffs(dir) && is_mount_root(dir) {
                rustix::mount::unmount(dir, UnmountFlags::DETACH)?;
            }
            Ok(())
        });
        if let Err(error) = there {
            tracing::warn!(dir = %dir.display(), %error, "the machine's own mount stays");
        }
    }
    here
}

/// Whether `path`, or the nearest directory above it that exists, is on a bpffs.
pub(crate) fn is_on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .and_then(|ancestor| statfs(ancestor).ok())
        .is_some_and(|stat| stat.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}

fn is_mount_root(path: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    path.parent()
        .is_some_and(|parent| device(path) != device(parent))
}

fn mount_point(dir: &Path) -> PathBuf {
    if dir.starts_with(STANDARD_MOUNT) {
        PathBuf::from(STANDARD_MOUNT)
    } else {
        dir.to_owned()
    }
}

fn mount_bpffs(target: &Path) -> Result<(), DatapathError> {
    mount_raw(target).map_err(kernel(format!(
        "mount a bpffs on {} (needs root; or mount it yourself: `mount -t bpf bpf {}`)",
        target.display(),
        target.display()
    )))
}

fn mount_raw(target: &Path) -> io::Result<()> {
    if is_on_bpffs(target) {
        return Ok(());
    }
    if !target.exists() {
        fs::create_dir_all(target)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    rustix::mount::mount("bpf", target, "bpf", flags, None)?;
    Ok(())
}

/// Whether our mount namespace is the one that lasts.
enum Home {
    Here,
    Elsewhere(OwnedFd),
    Unknown,
}

/// Processes that live in a mount namespace that outlives us, best first: init,
/// the kernel's own threads, then our ancestors from the outermost inwards.
fn namespace_holders() -> Vec<String> {
    let mut holders = vec!["1".to_owned()];
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        holders.push("2".to_owned());
    }
    let mut ancestors = Vec::new();
    let mut pid = "self".to_owned();
    while let Some(parent) = parent_of(&pid).filter(|parent| parent != "0" && parent != "1") {
        ancestors.push(parent.clone());
        pid = parent;
    }
    holders.extend(ancestors.into_iter().rev());
    holders
}

fn parent_of(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(line.trim().to_owned())
}

fn foreign_namespace() -> Home {
    let Ok(own) = fs::read_link("/proc/thread-self/ns/mnt") else {
        return Home::Unknown;
    };
    for holder in namespace_holders() {
        let path = format!("/proc/{holder}/ns/mnt");
        let Ok(namespace) = fs::read_link(&path) else {
            continue;
        };
        if namespace == own {
            return Home::Here;
        }
        if let Ok(file) = fs::File::open(&path) {
            return Home::Elsewhere(file.into());
        }
    }
    Home::Unknown
}

/// Mounts in `namespace` where needed (if `create`) and moves a clone of that mount to the
/// same path here.
fn borrow_mount(namespace: OwnedFd, target: &Path, create: bool) -> io::Result<()> {
    let tree = in_namespace(namespace, || {
        if create {
            mount_raw(target)?;
        } else if !is_on_bpffs(target) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(CWD, target, flags)?)
    })?;
    if !target.exists() {
        fs::create_dir_all(target)?;
    }
    rustix::mount::move_mount(
        tree.as_fd(),
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// Runs `work` on a short-lived thread inside another mount namespace. A thread
/// of its own, since a namespace is entered for good.
fn in_namespace<T: Send>(
    namespace: OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let enter_and_work = move || {
        // SAFETY: only this thread's own view of the file system becomes private;
        // descriptors stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(LinkNameSpaceType::Mount),
        )?;
        work()
    };
    std::thread::scope(|scope| {
        scope
            .spawn(enter_and_work)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the helper thread panicked")))
    })
}
