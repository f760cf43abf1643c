//! The consumer of one endpoint's queue: regenerate = fetch, compute, hand over
//! to the committer, which executes.

use std::sync::Arc;

use super::shared::{EndpointEvent, EndpointQueue, Shared};
use crate::clock::Moment;
use crate::endpoint::{BuildPermits, Endpoint, Offer, OfferBox, Progress, Work, meters};
use crate::policy::{PolicySnapshot, Resolver};

/// The worker; its thread owns it.
#[derive(Debug)]
pub struct EndpointWorker {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    queue: Arc<EndpointQueue>,
    permits: Arc<BuildPermits>,
    offers: Arc<OfferBox>,
    /// Follows the snapshots of its builds.
    resolver: Resolver,
    has_built: bool,
}

impl EndpointWorker {
    /// The worker of one endpoint.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        endpoint: Arc<Endpoint>,
        queue: Arc<EndpointQueue>,
        permits: Arc<BuildPermits>,
        offers: Arc<OfferBox>,
    ) -> Self {
        Self {
            resolver: Resolver::new(endpoint.subject()),
            has_built: false,
            shared,
            endpoint,
            queue,
            permits,
            offers,
        }
    }

    /// The endpoint it works for.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Takes what waits, then begins the next piece of work, if it is time.
    pub fn step(&mut self, now: Moment) -> Progress {
        let mut busy = false;
        while let Some(taken) = self.queue.take() {
            let started = self.shared.clock.now();
            match taken.event.clone() {
                EndpointEvent::Regenerate(event) => self.endpoint.request(event),
                EndpointEvent::Bump(revision) => self.endpoint.bump(revision),
            }
            self.queue.handled(self.shared.clock.now().since(started));
            taken.answer(());
            busy = true;
        }
        busy |= self.work(now);
        if busy {
            Progress::Busy
        } else {
            Progress::Idle {
                wake_at: self.endpoint.retry_at(),
            }
        }
    }

    fn work(&mut self, now: Moment) -> bool {
        let Some(snapshot) = self.shared.snapshots.read().buildable.clone() else {
            return false;
        };
        let Some(work) = self.endpoint.next_work(now) else {
            return false;
        };
        match work {
            // A newer snapshot may affect this endpoint: the event of that
            // revision is on its way and says so.
            Work::Bump(revision) if revision != snapshot.revision => {
                self.endpoint.forget_bump(revision);
                revision < snapshot.revision
            }
            Work::Bump(_) => {
                self.endpoint.started(work);
                let offer = Offer {
                    policy: None,
                    snapshot,
                };
                self.offers.put(self.endpoint.id(), offer);
                true
            }
            Work::Build(_) => {
                let permits = Arc::clone(&self.permits);
                let Some(_permit) = permits.try_acquire(self.endpoint.wake()) else {
                    return false;
                };
                self.endpoint.started(work);
                self.build(snapshot);
                true
            }
        }
    }

    /// Computes the policy of the snapshot: pure, no lock is held.
    fn build(&mut self, snapshot: Arc<PolicySnapshot>) {
        if !std::mem::replace(&mut self.has_built, true) {
            self.shared.published.first_build_begins();
        }
        let started = self.shared.clock.now();
        let audit = self.shared.audit.effective(self.endpoint.id());
        let resolved = self.resolver.resolve(&snapshot, audit);
        let span = self.shared.clock.now().since(started);
        meters::regeneration_time("policyCalculation", span, resolved.is_ok());
        match resolved {
            Ok(policy) => self.offers.put(
                self.endpoint.id(),
                Offer {
                    policy: Some(Arc::new(policy)),
                    snapshot,
                },
            ),
            Err(error) => {
                let message = format!("revision {} refused: {error}", snapshot.revision);
                self.shared.published.record(
                    "regeneration-failed",
                    snapshot.revision,
                    format!("endpoint {}", self.endpoint.id()),
                    message.as_str(),
                );
                self.shared.published.refuse(message);
                self.endpoint.failed(&error.to_string());
            }
        }
    }

    /// Told when the thread ends.
    pub fn leave(&mut self) {
        self.queue.consumer_left();
    }
}
