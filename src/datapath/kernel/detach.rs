//! The only way out: removes everything of ours from the kernel. Works without
//! an agent, as often as one likes.

use std::os::fd::AsFd;
use std::path::Path;

use super::layout::Layout;
use super::lock::lock;
use super::pins::{self, Pin, PinDir};
use super::{bpffs, clsact, links, sys};
use crate::datapath::DatapathError;
use crate::limits;
use crate::policy::Direction;

/// Removes attachments, pins, programs and maps below `bpffs`, and the directory.
/// What was removed, one line each; empty where there was nothing.
///
/// Order: attachments first, so that no packet ever runs a program whose tail
/// calls are gone.
///
/// # Errors
/// When something could not be removed; the rest was removed all the same.
pub fn detach(bpffs_dir: &Path) -> Result<Vec<String>, DatapathError> {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    bpffs::borrow_existing(bpffs_dir);
    if !bpffs::is_on_bpffs(bpffs_dir) {
        // No pins can be here, and an ordinary directory is not ours.
        remove_filters(&[], &mut done, &mut failed);
        return outcome(done, &failed);
    }
    if bpffs_dir.exists() && lock(bpffs_dir)?.is_none() {
        return Err(DatapathError::Other(format!(
            "an agent runs on {}; it would put everything back: stop it first",
            bpffs_dir.display()
        )));
    }
    let of = &Layout::current().pins(bpffs_dir);
    let mut found = match pins::list(of) {
        Ok(found) => found,
        Err(error) => {
            failed.push(format!("list {}: {error}", bpffs_dir.display()));
            Vec::new()
        }
    };
    let objects = Objects::of(of, &found);
    remove_filters(&found, &mut done, &mut failed);
    found.retain(|pin| !matches!(pin, Pin::Foreign { .. }));
    for pin in in_order(found) {
        end_link(of, &pin);
        match pins::remove(of, &pin) {
            Ok(true) => done.push(describe(&pin)),
            Ok(false) => {}
            Err(error) => failed.push(format!("remove {}: {error}", pin.file(of))),
        }
    }
    if bpffs::release(bpffs_dir) {
        done.push(format!("unmounted {}", bpffs_dir.display()));
    }
    match std::fs::remove_dir(bpffs_dir) {
        Ok(()) => done.push(format!("removed {}", bpffs_dir.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => failed.push(format!("remove {}: {error}", bpffs_dir.display())),
    }
    let left = objects.wait_until_freed();
    if left.others != 0 {
        failed.push(format!(
            "{} maps and programs are still in use: by another process, or by clsact filters in \
             another network namespace (detach there as well)",
            left.others
        ));
    } else if left.program_arrays != 0 {
        done.push(format!(
            "note: the kernel keeps {} empty program arrays that nothing uses, because somebody \
             listed maps in the instant of their end (seen on Linux 6.18); a reboot frees them",
            left.program_arrays
        ));
    }
    outcome(done, &failed)
}

fn outcome(done: Vec<String>, failed: &[String]) -> Result<Vec<String>, DatapathError> {
    if failed.is_empty() {
        return Ok(done);
    }
    Err(DatapathError::Other(format!(
        "not everything could be removed ({}); removed: {}",
        failed.join("; "),
        if done.is_empty() {
            "nothing".to_owned()
        } else {
            done.join(", ")
        }
    )))
}

/// The maps that hold programs.
const PROGRAM_ARRAYS: [&str; 2] = ["pal_calls_in", "pal_calls_eg"];

/// The kernel's numbers of what is pinned.
struct Objects {
    maps: Vec<u32>,
    program_arrays: Vec<u32>,
    programs: Vec<u32>,
}

/// What the kernel has not freed.
#[derive(Clone, Copy, Default)]
struct Left {
    program_arrays: usize,
    others: usize,
}

impl Objects {
    fn of(dir: &PinDir, found: &[Pin]) -> Self {
        let (mut maps, mut program_arrays, mut programs) = (Vec::new(), Vec::new(), Vec::new());
        for pin in found {
            let Ok(Some(fd)) = sys::obj_get(&pin.path(dir)) else {
                continue;
            };
            match pin.of_its_version() {
                Pin::Map { name } => {
                    let is_array = PROGRAM_ARRAYS.contains(&name.as_str());
                    let to = if is_array {
                        &mut program_arrays
                    } else {
                        &mut maps
                    };
                    to.extend(sys::map_info(fd.as_fd()).map(|info| info.id));
                }
                Pin::Program { .. } => {
                    programs.extend(sys::prog_info(fd.as_fd()).map(|info| info.id));
                }
                Pin::Link(_)
                | Pin::Filter(_)
                | Pin::Qdisc { .. }
                | Pin::OtherVersion { .. }
                | Pin::Foreign { .. } => {}
            }
        }
        Self {
            maps,
            program_arrays,
            programs,
        }
    }

    fn left(&self) -> Left {
        let maps = self.maps.iter().filter(|id| sys::has_map(**id)).count();
        let programs = self.programs.iter().filter(|id| sys::has_prog(**id));
        let arrays = self.program_arrays.iter().filter(|id| sys::has_map(**id));
        Left {
            program_arrays: arrays.count(),
            others: maps + programs.count(),
        }
    }

    /// The kernel frees after a grace period. Waiting here means that whoever
    /// looks next sees nothing; and a program array that is looked at by number
    /// in the instant of its end is never freed at all (kernel 6.18).
    fn wait_until_freed(&self) -> Left {
        let mut left = Left::default();
        for _ in 0..limits::DETACH_POLLS_MAX {
            left = self.left();
            if left.others + left.program_arrays == 0 {
                break;
            }
            std::thread::sleep(limits::DETACH_POLL_INTERVAL);
        }
        left
    }
}

/// Filters of devices that exist, whether or not they have a record.
fn remove_filters(found: &[Pin], done: &mut Vec<String>, failed: &mut Vec<String>) {
    let devices = match clsact::all_devices() {
        Ok(devices) => devices,
        Err(error) => {
            failed.push(format!("list devices: {error}"));
            return;
        }
    };
    for ifindex in devices {
        for direction in Direction::BOTH {
            match clsact::remove(ifindex, direction) {
                Ok(true) => done.push(format!("filter: device {ifindex} {}", direction.as_str())),
                Ok(false) => {}
                Err(error) => failed.push(format!("filters of device {ifindex}: {error}")),
            }
        }
        // Whichever version of ours added it.
        let added = |pin: &Pin| matches!(pin.of_its_version(), Pin::Qdisc { ifindex: of, .. } if of == ifindex);
        if found.iter().any(added) {
            match clsact::remove_empty_qdisc(ifindex) {
                Ok(true) => done.push(format!("clsact qdisc: device {ifindex}")),
                Ok(false) => {}
                Err(error) => failed.push(format!("clsact qdisc of device {ifindex}: {error}")),
            }
        }
    }
}

/// Takes a link off its device at once: the kernel ends a link some time after
/// its last pin, and programs must not run on without what they call.
fn end_link(of: &PinDir, pin: &Pin) {
    if !matches!(pin, Pin::Link(_) | Pin::OtherVersion { .. }) {
        return;
    }
    if let Ok(Some(fd)) = sys::obj_get(&pin.path(of)) {
        // Refused for what is no link, and for a link whose device is gone.
        let _refused = links::link_detach(fd.as_fd());
    }
}

/// Links before programs before maps.
fn in_order(mut found: Vec<Pin>) -> Vec<Pin> {
    found.sort_by_key(|pin| match pin.of_its_version() {
        Pin::Link(_) => 0,
        Pin::Filter(_) | Pin::Qdisc { .. } => 1,
        Pin::Program { .. } => 2,
        Pin::Map { .. } => 3,
        Pin::OtherVersion { .. } | Pin::Foreign { .. } => 4,
    });
    found
}

fn describe(pin: &Pin) -> String {
    match pin {
        Pin::Link(at) => format!("link: {} {}", at.device, at.direction.as_str()),
        Pin::Filter(at) => format!("filter record: {} {}", at.device, at.direction.as_str()),
        Pin::Qdisc { device, .. } => format!("qdisc record: {device}"),
        Pin::Program { name, .. } => format!("program: {name}"),
        Pin::Map { name } => format!("map: {name}"),
        Pin::OtherVersion { file, .. } => format!("pin of another version: {file}"),
        Pin::Foreign { file } => format!("not ours: {file}"),
    }
}
