//! One agent for each state directory.

use std::path::Path;
use std::thread::sleep;

use palisade_state::{Store, StoreError};

use crate::clock::Clock;
use crate::limits::{START_LOCK_MAX, START_LOCK_POLL};

/// Opens the store. An agent that was just killed may need a moment until its
/// lock is gone.
pub(super) fn store(directory: &Path, clock: &dyn Clock) -> Result<Store, StoreError> {
    let deadline = clock.now().after(START_LOCK_MAX);
    loop {
        match Store::open(directory) {
            Err(StoreError::InUse { .. }) if clock.now() < deadline => sleep(START_LOCK_POLL),
            outcome => return outcome,
        }
    }
}
