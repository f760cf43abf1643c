//! Where the pins stand: a bpffs that outlives the agent, also from within a
//! private mount namespace with a fresh /sys, as `ip netns exec` makes one.

use std::path::Path;

use palisade::datapath::Datapath;
use palisade::datapath::kernel::{KernelDatapath, KernelOptions, detach};
use palisade::datapath::netns;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::build::{generation, tcp_ports};
use super::guard::{in_world, pins, run_on_thread, skipped, under_temp};

/// Unmounts what a failing test leaves.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

/// What `ip netns exec` does to its child.
fn like_ip_netns_exec() {
    netns::enter_new().expect("a new network");
    netns::enter_new_mounts().expect("new mounts");
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).expect("slave mounts");
    rustix::mount::unmount("/sys", UnmountFlags::DETACH).expect("umount /sys");
    rustix::mount::mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)
        .expect("a fresh /sys");
}

fn options(dir: &Path) -> KernelOptions {
    KernelOptions {
        bpffs: under_temp(dir),
        ct_entries_max: 1_024,
        ..KernelOptions::default()
    }
}

#[test]
fn pins_made_in_a_private_mount_namespace_outlive_it() {
    if skipped() {
        return;
    }
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("pins");
    let _unmount = Unmount(&dir);
    let realized = run_on_thread(|| {
        like_ip_netns_exec();
        let (mut datapath, report) = KernelDatapath::open(&options(&dir)).expect("open");
        assert_eq!(report.warnings, [""; 0]);
        datapath
            .stage(&generation(3, Some(tcp_ports(&[22])), None))
            .expect("stage");
        datapath.commit().expect("commit")
    });
    assert!(
        pins(&dir)
            .iter()
            .any(|pin| pin == &format!("pal_commit_v{}", palisade_abi::ABI_VERSION)),
        "seen from the first namespace"
    );
    run_on_thread(|| {
        like_ip_netns_exec();
        let (datapath, report) = KernelDatapath::open(&options(&dir)).expect("open");
        assert_eq!(report.adopted, Some(realized));
        let error = detach(&dir).expect_err("an agent holds it");
        assert!(error.to_string().contains("an agent runs"), "{error}");
        drop(datapath);
    });
    run_on_thread(|| {
        like_ip_netns_exec();
        // Not mounted here: the way out finds it in the first namespace all the same.
        rustix::mount::unmount(&dir, UnmountFlags::DETACH).expect("umount");
        assert_eq!(pins(&dir), [""; 0]);
        let removed = detach(&dir).expect("detach");
        assert!(
            removed.iter().any(|line| line.starts_with("unmounted")),
            "{removed:?}"
        );
    });
    assert_eq!(pins(&dir), [""; 0]);
    assert!(!dir.exists(), "the directory is gone, and so is the mount");
}

#[test]
fn a_bpffs_is_mounted_where_none_is_and_unmounted_by_detach() {
    if skipped() {
        return;
    }
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("pins");
    let _unmount = Unmount(&dir);
    let (datapath, report) = KernelDatapath::open(&options(&dir)).expect("open");
    assert_eq!(report.warnings, [""; 0]);
    drop(datapath);
    detach(&dir).expect("detach");
    assert!(!dir.exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_told_with_its_name() {
    if skipped() {
        return;
    }
    let error = KernelDatapath::open(&KernelOptions {
        bpffs: "/proc/palisade".into(),
        ..KernelOptions::default()
    })
    .expect_err("no directory there");
    assert!(error.to_string().contains("/proc/palisade"), "{error}");
}

#[test]
fn detach_leaves_an_ordinary_directory_alone() {
    in_world(|_| {
        let temp = tempfile::tempdir().expect("a directory");
        let file = temp
            .path()
            .join(format!("pal_ct4_v{}", palisade_abi::ABI_VERSION));
        std::fs::write(&file, "not a pin").expect("a file");
        assert_eq!(detach(temp.path()).expect("detach"), [""; 0]);
        assert!(file.exists());
    });
}
