//! Statistics of the queues: what `status` and the metrics show.

use std::time::Duration;

use serde::Serialize;

/// Durations of one kind, summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Timing {
    pub count: u64,
    pub total: Duration,
    pub max: Duration,
    pub last: Duration,
}

impl Timing {
    /// Adds one duration.
    pub fn record(&mut self, span: Duration) {
        self.count += 1;
        self.total += span;
        self.max = self.max.max(span);
        self.last = span;
    }
}

/// One queue at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct QueueStats {
    /// `repository-change-queue`, `repository-reaction-queue`, `endpoint-<id>`.
    pub name: String,
    pub depth: usize,
    pub capacity: usize,
    pub enqueued: u64,
    pub handled: u64,
    pub cancelled: u64,
    /// How long producers waited for room.
    pub enqueue_wait: Timing,
    /// How long events waited in the queue.
    pub queue_wait: Timing,
    /// How long the handler took.
    pub handling: Timing,
}
