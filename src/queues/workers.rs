//! The workers as one, and their loops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::endpoint_worker::EndpointWorker;
use super::reaction_worker::ReactionWorker;
use super::repository_worker::RepositoryWorker;
use super::shared::Shared;
use crate::clock::{Clock, Moment};
use crate::endpoint::{Committer, Progress, Signal};
use crate::limits::WORKER_SLEEP_MAX;

/// A worker's loop with the name of its thread.
pub type Worker = (String, Box<dyn FnOnce() + Send>);

/// All workers. Each has `step(now)`; a simulation steps them in any order.
#[derive(Debug)]
pub struct Workers {
    pub repository: RepositoryWorker,
    pub reaction: ReactionWorker,
    pub endpoints: Vec<EndpointWorker>,
    pub committer: Committer,
}

/// Steps in which everything must have come to rest.
const SETTLE_STEPS_MAX: usize = 10_000;

impl Workers {
    /// Steps every worker in turn until none has anything to do now: how tests
    /// run the pipeline, on one thread and any clock.
    ///
    /// # Panics
    /// When the workers never come to rest.
    pub fn settle(&mut self, clock: &dyn Clock) {
        for _ in 0..SETTLE_STEPS_MAX {
            if !self.step_all(clock.now()) {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    /// One step of every worker; whether any had something to do.
    fn step_all(&mut self, now: Moment) -> bool {
        let mut busy = self.repository.step(now) == Progress::Busy;
        busy |= self.reaction.step(now) == Progress::Busy;
        for worker in &mut self.endpoints {
            busy |= worker.step(now) == Progress::Busy;
        }
        busy | (self.committer.step() == Progress::Busy)
    }

    /// Their loops, to be run on threads.
    pub(super) fn into_loops(
        self,
        shared: &Arc<Shared>,
        stopping: &Arc<AtomicBool>,
    ) -> Vec<Worker> {
        let Self {
            mut repository,
            mut reaction,
            endpoints,
            mut committer,
        } = self;
        let signals = &shared.signals;
        let lap = |signal: &Arc<Signal>| Lap {
            signal: Arc::clone(signal),
            stopping: Arc::clone(stopping),
            clock: Arc::clone(&shared.clock),
        };
        let (changes, reactions, commits) = (
            lap(&signals.repository),
            lap(&signals.reaction),
            lap(&signals.committer),
        );
        let mut loops: Vec<Worker> = vec![
            (
                "repo-change".to_owned(),
                Box::new(move || {
                    changes.run(|now| repository.step(now));
                    repository.leave();
                }),
            ),
            (
                "rule-reaction".to_owned(),
                Box::new(move || {
                    reactions.run(|now| reaction.step(now));
                    reaction.leave();
                }),
            ),
            (
                "committer".to_owned(),
                Box::new(move || commits.run(|_| committer.step())),
            ),
        ];
        for mut worker in endpoints {
            let builds = lap(worker.endpoint().wake());
            loops.push((
                format!("endpoint-{}", worker.endpoint().id()),
                Box::new(move || {
                    builds.run(|now| worker.step(now));
                    worker.leave();
                }),
            ));
        }
        loops
    }
}

/// Runs one worker until the pipeline stops.
struct Lap {
    signal: Arc<Signal>,
    stopping: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl Lap {
    fn run(&self, mut step: impl FnMut(Moment) -> Progress) {
        while !self.stopping.load(Ordering::SeqCst) {
            let now = self.clock.now();
            if let Progress::Idle { wake_at } = step(now) {
                let span = wake_at.map_or(WORKER_SLEEP_MAX, |at| at.since(now));
                self.signal.wait(span.min(WORKER_SLEEP_MAX));
            }
        }
    }
}
