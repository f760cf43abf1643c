//! The thread that drains the ring buffer and tells readers.
//!
//! Owner: thread `monitor`, the only consumer of the ring. It drains also when
//! nobody reads, so that counts of lost events mean something.

use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Monitor, enrich};
use crate::clock::Clock;
use crate::datapath::GenerationNumber;
use crate::datapath::events::EventReader;
use crate::datapath::kernel::{Inspector, LostEvents};
use crate::events::HistoryEntry;
use crate::limits::{KERNEL_EVENTS_BATCH_MAX, KERNEL_EVENTS_POLL, MONITOR_NOTES_POLL};
use crate::model::AgentNote;
use crate::queues::{GenerationNames, Pipeline};
use crate::sources::local::DeviceBoard;

/// Drains the ring buffer.
pub struct EventPump {
    pub reader: EventReader,
    pub inspector: Inspector,
    pub pipeline: Arc<Pipeline>,
    pub monitor: Arc<Monitor>,
    pub devices: Arc<DeviceBoard>,
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for EventPump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventPump")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl EventPump {
    /// Drains until stopped.
    pub fn run(mut self, stop: &Receiver<()>) {
        let mut batch = Vec::with_capacity(KERNEL_EVENTS_BATCH_MAX);
        let mut names: Option<Arc<GenerationNames>> = None;
        let mut notes = Notes::new(&self.pipeline.history());
        let mut lost = self.inspector.lost_events().unwrap_or_default();
        let mut noted = self.clock.now();
        while stop.recv_timeout(KERNEL_EVENTS_POLL) != Err(RecvTimeoutError::Disconnected) {
            batch.clear();
            while self.reader.read(&mut batch, KERNEL_EVENTS_BATCH_MAX) > 0 {
                self.tell(&batch, &mut names);
                batch.clear();
            }
            if self.clock.now().since(noted) >= MONITOR_NOTES_POLL {
                noted = self.clock.now();
                self.tell_losses(&mut lost);
                for note in notes.news(self.pipeline.history()) {
                    self.monitor.note(&note);
                }
            }
        }
    }

    fn tell(&self, batch: &[palisade_abi::event::Event], names: &mut Option<Arc<GenerationNames>>) {
        if !self.monitor.has_readers() {
            return;
        }
        let time_ms = self.clock.wall_ms();
        for event in batch {
            let generation = GenerationNumber(event.generation);
            if names.as_ref().map(|names| names.generation) != Some(generation) {
                *names = self.pipeline.rules_of(generation);
            }
            let device = self.devices.name(event.ifindex);
            let decision = enrich(event, names.as_deref(), device, time_ms);
            self.monitor.decision(&decision);
        }
    }

    fn tell_losses(&self, before: &mut LostEvents) {
        let Ok(now) = self.inspector.lost_events() else {
            return;
        };
        for (count, cause) in [
            (
                now.budget.saturating_sub(before.budget),
                "over the kernel's budget of events",
            ),
            (
                now.ring_full.saturating_sub(before.ring_full),
                "the ring buffer was full",
            ),
        ] {
            if count > 0 {
                self.monitor.lost(count, cause);
            }
        }
        *before = now;
    }
}

/// What of the history was told already.
#[derive(Debug)]
struct Notes {
    last: Option<HistoryEntry>,
}

impl Notes {
    fn new(history: &[HistoryEntry]) -> Self {
        Self {
            last: history.last().cloned(),
        }
    }

    fn news(&mut self, history: Vec<HistoryEntry>) -> Vec<AgentNote> {
        let told = match &self.last {
            None => 0,
            Some(last) => history
                .iter()
                .rposition(|entry| entry == last)
                .map_or(0, |position| position + 1),
        };
        self.last = history.last().cloned();
        let new = history.into_iter().skip(told);
        new.map(|entry| AgentNote {
            time_ms: entry.time_ms,
            event: entry.event,
            subject: entry.subject,
            revision: entry.revision.0,
            message: entry.message,
        })
        .collect()
    }
}
