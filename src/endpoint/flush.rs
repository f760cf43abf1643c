//! Flushes of a store that may be failing: tried again by the caller, given up
//! after a number of failures in a row, since enforcement must not wait for a
//! disk.

use palisade_state::{Store, StoreError};

use crate::limits::FLUSH_ATTEMPTS_MAX;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: u32,
}

impl Attempts {
    /// Flushes. After too many failures the store is suspended, which counts as
    /// a success: the agent goes on without history and says so.
    pub fn flush(&mut self, store: &Store) -> Result<(), StoreError> {
        match store.flush() {
            Ok(_) => {
                self.failures = 0;
                Ok(())
            }
            Err(error) if self.failures + 1 < FLUSH_ATTEMPTS_MAX => {
                self.failures += 1;
                Err(error)
            }
            Err(error) => {
                tracing::error!("the store is given up: {error}");
                store.suspend(&error.to_string());
                self.failures = 0;
                Ok(())
            }
        }
    }
}
