//! How workers sleep and wake. A worker is a struct with `step(now)`; its
//! thread repeats: step; if there was nothing to do, wait for the signal.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Moment;

/// What a step of a worker did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Something; there may be more.
    Busy,
    /// Nothing; look again when woken, and at that moment.
    Idle { wake_at: Option<Moment> },
}

impl Progress {
    /// Nothing to do until woken.
    pub const IDLE: Self = Self::Idle { wake_at: None };
}

/// Wakes one worker. Raised by anybody, awaited by its owner only.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Mutex<bool>,
    wake: Condvar,
}

impl Signal {
    /// Wakes the owner now, or at its next wait.
    pub fn raise(&self) {
        *self.raised.lock() = true;
        self.wake.notify_all();
    }

    /// Waits until raised, at most `span`; lowers the flag.
    pub fn wait(&self, span: Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.wake.wait_for(&mut raised, span);
        }
        *raised = false;
    }
}
