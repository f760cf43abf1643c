//! The only place that starts threads: names and supervises them.
//!
//! A worker that panics, or ends while the agent runs, ends the agent: the
//! supervisor of the service starts it anew, and the kernel enforces meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::{Clock, SystemClock};
use crate::limits::STOP_MAX;

/// How a worker ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) name: String,
    /// What it said while panicking.
    pub(super) panic: Option<String>,
}

/// All threads of the agent.
#[derive(Debug)]
pub(super) struct Threads {
    running: Vec<(String, JoinHandle<()>)>,
    ends: mpsc::Sender<End>,
    ended: mpsc::Receiver<End>,
}

/// Ends that wait to be looked at: one is enough to stop.
const ENDS_MAX: usize = 64;

impl Default for Threads {
    fn default() -> Self {
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        Self {
            running: Vec::new(),
            ends,
            ended,
        }
    }
}

impl Threads {
    /// Runs `work` on a thread of this name (15 characters are shown by tools).
    pub(super) fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) {
        let ends = self.ends.clone();
        let own_name = name.to_owned();
        let body = move || {
            let panic = catch_unwind(AssertUnwindSafe(work)).err();
            let panic = panic.map(|payload| {
                let text = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned());
                text.or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned())
            });
            // Nobody listens any more when the agent is stopping.
            drop(ends.try_send(End {
                name: own_name,
                panic,
            }));
        };
        match Builder::new().name(name.to_owned()).spawn(body) {
            Ok(handle) => self.running.push((name.to_owned(), handle)),
            Err(error) => drop(self.ends.try_send(End {
                name: name.to_owned(),
                panic: Some(format!("cannot start the thread: {error}")),
            })),
        }
    }

    /// The first worker that ends.
    pub(super) async fn first_end(&mut self) -> End {
        match self.ended.recv().await {
            Some(end) => end,
            // Never: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Waits for all, but not for ever.
    pub(super) fn join(self) {
        let clock = SystemClock::default();
        let deadline = clock.now().after(STOP_MAX);
        for (name, handle) in self.running {
            while !handle.is_finished() && clock.now() < deadline {
                sleep(Duration::from_millis(5));
            }
            if handle.is_finished() {
                drop(handle.join());
            } else {
                tracing::warn!(thread = name, "does not end; left behind");
            }
        }
    }
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
