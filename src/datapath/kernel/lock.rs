//! The lock on a directory of pins.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::maps::kernel;
use crate::datapath::DatapathError;
use crate::limits;

/// One agent per directory of pins; the lock ends with the process. None where
/// another process holds it and goes on holding it: an agent that ends and a
/// child that has not run its program yet hold it for a moment only.
pub(crate) fn lock(dir: &Path) -> Result<Option<OwnedFd>, DatapathError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|error| kernel(format!("open {}", dir.display()))(error.into()))?;
    for _ in 0..limits::LOCK_TRIES {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(fd)),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(limits::LOCK_INTERVAL),
            Err(error) => return Err(kernel(format!("lock {}", dir.display()))(error.into())),
        }
    }
    Ok(None)
}
