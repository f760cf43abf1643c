//! The consumer of the RuleReactionQueue: `react_to_rule_updates`.
//!
//! Reactions that wait are merged; each affected endpoint gets one event, the
//! others get their revision bumped. Reactions to what may not be built yet are
//! kept, since nothing may be regenerated from half a desired state.

use std::sync::Arc;

use super::event_queue::EnqueueError;
use super::shared::{EndpointEvent, Shared};
use crate::clock::Moment;
use crate::endpoint::Progress;
use crate::events::{EndpointId, EndpointRegenerationEvent, RuleReaction};

/// The worker; its thread owns it.
#[derive(Debug)]
pub struct ReactionWorker {
    shared: Arc<Shared>,
    /// Merged, to what may be built; not yet with every endpoint.
    waiting: Option<RuleReaction>,
    /// Merged, to what may not be built yet.
    held: Option<RuleReaction>,
}

impl ReactionWorker {
    /// A worker with nothing to do.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            waiting: None,
            held: None,
        }
    }

    /// Merges what waits and tells the endpoints.
    pub fn step(&mut self, _now: Moment) -> Progress {
        let started = self.shared.clock.now();
        let mut taken = 0;
        while let Some(reaction) = self.shared.reactions.take() {
            taken += 1;
            let later = reaction.event.clone();
            if self.held.is_none() && self.may_be_built(&later) {
                RuleReaction::merge_into(&mut self.waiting, later);
            } else {
                RuleReaction::merge_into(&mut self.held, later);
            }
            reaction.answer(());
        }
        if let Some(held) = self.held.take() {
            if self.may_be_built(&held) {
                RuleReaction::merge_into(&mut self.waiting, held);
            } else {
                self.held = Some(held);
            }
        }
        let told = self.react_to_rule_updates();
        if taken > 0 {
            let span = self.shared.clock.now().since(started);
            for _ in 0..taken {
                self.shared.reactions.handled(span / taken);
            }
        }
        if told || taken > 0 {
            Progress::Busy
        } else {
            Progress::IDLE
        }
    }

    fn may_be_built(&self, reaction: &RuleReaction) -> bool {
        self.shared.buildable() >= Some(reaction.revision)
    }

    /// Tells the endpoints; those whose queue is full are told later. False if
    /// nobody was told.
    fn react_to_rule_updates(&mut self) -> bool {
        let Some(mut waiting) = self.waiting.take() else {
            return false;
        };
        let before = waiting.to_regenerate.len() + waiting.to_bump.len();
        let RuleReaction {
            revision, causes, ..
        } = waiting.clone();
        waiting.to_regenerate.retain(|id| {
            let event = EndpointRegenerationEvent {
                endpoint: *id,
                revision,
                causes: causes.clone(),
            };
            !self.tell(*id, EndpointEvent::Regenerate(event))
        });
        waiting
            .to_bump
            .retain(|id| !self.tell(*id, EndpointEvent::Bump(revision)));
        let left = waiting.to_regenerate.len() + waiting.to_bump.len();
        if left > 0 {
            self.waiting = Some(waiting);
        }
        left < before
    }

    /// False if the endpoint's queue is full.
    fn tell(&self, id: EndpointId, event: EndpointEvent) -> bool {
        let Some(room) = self.shared.room(id) else {
            return true;
        };
        match room.queue.try_enqueue(event) {
            Ok(_) | Err(EnqueueError::Stopped(_)) => true,
            Err(EnqueueError::Full(_)) => false,
        }
    }

    /// Told when the thread ends.
    pub fn leave(&mut self) {
        self.shared.reactions.consumer_left();
    }
}
