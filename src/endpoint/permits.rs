//! Build permits: how many regenerations run at once (REFERENCE 4.1).

use std::sync::Arc;

use parking_lot::Mutex;

use super::signal::Signal;

/// A counting semaphore that never blocks; who gets nothing is woken later.
#[derive(Debug)]
pub struct BuildPermits {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Vec<Arc<Signal>>,
}

/// One permit; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<BuildPermits>,
}

impl BuildPermits {
    /// `count` permits, at least one.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: count.max(1),
                waiting: Vec::new(),
            }),
        })
    }

    /// A permit, if one is free; else `waiter` is raised when one is.
    pub fn try_acquire(self: &Arc<Self>, waiter: &Arc<Signal>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.free == 0 {
            state.waiting.push(Arc::clone(waiter));
            return None;
        }
        state.free -= 1;
        Some(Permit {
            permits: Arc::clone(self),
        })
    }

    /// Permits that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.state.lock().free
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.state.lock();
        state.free += 1;
        for waiter in state.waiting.drain(..) {
            waiter.raise();
        }
    }
}
