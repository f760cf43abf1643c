//! The only way out.

use std::path::Path;

use anyhow::{Result, bail};
use palisade_state::is_in_use;
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::datapath::kernel;

/// Removes every link, pin, map and program of Palisade; tells what it removed.
///
/// # Errors
/// When an agent still runs, or something could not be removed.
pub fn detach(bpffs: &Path, state_dir: &Path) -> Result<Vec<String>> {
    if is_held(bpffs) || is_in_use(state_dir) {
        bail!(
            "an agent runs on {}; it would put everything back: stop it first",
            bpffs.display()
        );
    }
    Ok(kernel::detach(bpffs)?)
}

/// An agent holds a lock on the directory of its pins.
fn is_held(bpffs: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(bpffs, flags, Mode::empty()) else {
        return false;
    };
    let lock = FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&directory, lock) == Err(rustix::io::Errno::WOULDBLOCK)
}
