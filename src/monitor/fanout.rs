//! Bounded buffers, one for each reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::enrich::is_policy;
use crate::limits::MONITOR_BUFFER_MAX;
use crate::model::{AgentNote, Decision, EventKind, MonitorEvent};

/// What a reader wants to see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Empty: every kind.
    pub kinds: BTreeSet<EventKind>,
    pub from: Option<u16>,
    pub to: Option<u16>,
    pub related_to: Option<u16>,
}

impl Filter {
    fn wants(&self, kind: EventKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn wants_packet(&self, decision: &Decision) -> bool {
        let (source, destination) = if decision.direction == "egress" {
            (Some(decision.endpoint), None)
        } else {
            (None, Some(decision.endpoint))
        };
        let is = |wanted: Option<u16>, side: Option<u16>| wanted.is_none() || wanted == side;
        is(self.from, source)
            && is(self.to, destination)
            && is(self.related_to, Some(decision.endpoint))
    }

    /// The event of a decision, once: a denial is a drop for readers of drops,
    /// a verdict for readers of verdicts only.
    fn decision(&self, decision: &Decision) -> Option<MonitorEvent> {
        if !self.wants_packet(decision) {
            return None;
        }
        let passed = matches!(decision.verdict.as_str(), "allowed" | "audited");
        if !passed && self.wants(EventKind::Drop) {
            return Some(MonitorEvent::Drop(decision.clone()));
        }
        let verdict = passed || is_policy(decision.reason_code);
        (verdict && self.wants(EventKind::PolicyVerdict))
            .then(|| MonitorEvent::PolicyVerdict(decision.clone()))
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<MonitorEvent>,
    lost: Arc<AtomicU64>,
    /// An event that waits until its losses are told.
    next: Option<MonitorEvent>,
}

impl Subscription {
    /// The next event; what was lost before it is told first. None when the
    /// monitor is gone.
    pub async fn next(&mut self) -> Option<MonitorEvent> {
        if let Some(event) = self.next.take() {
            return Some(event);
        }
        let event = self.events.recv().await?;
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Some(event),
            count => {
                self.next = Some(event);
                Some(MonitorEvent::Lost {
                    count,
                    cause: "this reader was too slow".to_owned(),
                })
            }
        }
    }
}

#[derive(Debug)]
struct Reader {
    filter: Filter,
    events: mpsc::Sender<MonitorEvent>,
    lost: Arc<AtomicU64>,
}

/// All readers.
#[derive(Debug, Default)]
pub struct Monitor {
    readers: Mutex<Vec<Reader>>,
    lost_by_readers: AtomicU64,
}

impl Monitor {
    /// A new reader, from now on.
    #[must_use]
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let (sender, events) = mpsc::channel(MONITOR_BUFFER_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        self.readers.lock().push(Reader {
            filter,
            events: sender,
            lost: Arc::clone(&lost),
        });
        Subscription {
            events,
            lost,
            next: None,
        }
    }

    /// Whether anyone reads: without readers nothing needs a name.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.readers() > 0
    }

    /// How many there are.
    #[must_use]
    pub fn readers(&self) -> usize {
        let mut readers = self.readers.lock();
        readers.retain(|reader| !reader.events.is_closed());
        readers.len()
    }

    /// Events that slow readers did not get.
    #[must_use]
    pub fn lost_by_readers(&self) -> u64 {
        self.lost_by_readers.load(Ordering::Relaxed)
    }

    /// Tells a decision.
    pub fn decision(&self, decision: &Decision) {
        self.tell(|filter| filter.decision(decision));
    }

    /// Tells something the agent did.
    pub fn note(&self, note: &AgentNote) {
        self.tell(|filter| {
            filter
                .wants(EventKind::Agent)
                .then(|| MonitorEvent::Agent(note.clone()))
        });
    }

    /// Tells that the programs lost events.
    pub fn lost(&self, count: u64, cause: &str) {
        self.tell(|_| {
            Some(MonitorEvent::Lost {
                count,
                cause: cause.to_owned(),
            })
        });
    }

    fn tell(&self, event_for: impl Fn(&Filter) -> Option<MonitorEvent>) {
        let mut readers = self.readers.lock();
        readers.retain(|reader| {
            let Some(event) = event_for(&reader.filter) else {
                return !reader.events.is_closed();
            };
            match reader.events.try_send(event) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    reader.lost.fetch_add(1, Ordering::Relaxed);
                    self.lost_by_readers.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }
}
