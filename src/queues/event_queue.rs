//! A bounded FIFO queue with one consumer (REFERENCE 4.1, the event queue).
//!
//! Contract: `enqueue` waits while the queue is full and returns a ticket, the
//! receiving end of a channel of capacity 1; handlers run one at a time, in
//! order; `stop` closes the intake and cancels what was not yet run, by closing
//! its ticket without a value. An event enters a queue once: it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::stats::{QueueStats, Timing};
use crate::clock::{Clock, Moment};
use crate::endpoint::Signal;
use crate::limits::ENQUEUE_RECHECK;

/// Why an event was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum EnqueueError<E> {
    /// Only from `try_enqueue`.
    Full(E),
    Stopped(E),
}

/// Where the result of an event arrives.
#[derive(Debug)]
pub struct Ticket<R>(Receiver<R>);

/// Why a ticket has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoResult {
    /// The queue was stopped before the event ran.
    Cancelled,
    TimedOut,
}

impl<R> Ticket<R> {
    /// Waits for the result.
    pub fn wait(&self, span: Duration) -> Result<R, NoResult> {
        self.0.recv_timeout(span).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoResult::TimedOut,
            RecvTimeoutError::Disconnected => NoResult::Cancelled,
        })
    }
}

/// An event that the consumer took.
#[derive(Debug)]
pub struct Taken<E, R> {
    pub event: E,
    result: Sender<R>,
}

impl<E, R> Taken<E, R> {
    /// Gives the producer its result. A producer that went away is fine.
    pub fn answer(self, result: R) {
        // The channel has room for one and this is the only send; an error
        // means that nobody waits.
        let _ = self.result.try_send(result);
    }
}

#[derive(Debug)]
struct Item<E, R> {
    event: E,
    since: Moment,
    result: Sender<R>,
}

#[derive(Debug, Default)]
struct Counters {
    enqueued: u64,
    handled: u64,
    cancelled: u64,
    enqueue_wait: Timing,
    queue_wait: Timing,
    handling: Timing,
}

/// The queue: producers call `enqueue`, its one consumer `take` and `handled`.
#[derive(Debug)]
pub struct EventQueue<E, R> {
    name: String,
    capacity: usize,
    sender: Sender<Item<E, R>>,
    receiver: Receiver<Item<E, R>>,
    stopped: AtomicBool,
    drained: Mutex<bool>,
    drained_wake: Condvar,
    /// Raised when there is something to take.
    consumer: Arc<Signal>,
    /// Raised when there is room again.
    producer: Option<Arc<Signal>>,
    counters: Mutex<Counters>,
    clock: ClockHandle,
}

struct ClockHandle(Arc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl<E, R> EventQueue<E, R> {
    /// An empty queue. `consumer` wakes its consumer; `producer`, if there is
    /// one main producer that never blocks, is told of room.
    pub fn new(
        name: impl Into<String>,
        capacity: usize,
        clock: Arc<dyn Clock>,
        consumer: Arc<Signal>,
        producer: Option<Arc<Signal>>,
    ) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self {
            name: name.into(),
            capacity,
            sender,
            receiver,
            stopped: AtomicBool::new(false),
            drained: Mutex::new(false),
            drained_wake: Condvar::new(),
            consumer,
            producer,
            counters: Mutex::default(),
            clock: ClockHandle(clock),
        }
    }

    /// Puts an event in; waits while the queue is full.
    pub fn enqueue(&self, event: E) -> Result<Ticket<R>, EnqueueError<E>> {
        let since = self.clock.0.now();
        let (result, ticket) = bounded(1);
        let mut item = Item {
            event,
            since,
            result,
        };
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Err(EnqueueError::Stopped(item.event));
            }
            match self.sender.send_timeout(item, ENQUEUE_RECHECK) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(back) | SendTimeoutError::Disconnected(back)) => {
                    item = back;
                }
            }
        }
        self.entered(since);
        Ok(Ticket(ticket))
    }

    /// Puts an event in if there is room.
    pub fn try_enqueue(&self, event: E) -> Result<Ticket<R>, EnqueueError<E>> {
        let since = self.clock.0.now();
        let (result, ticket) = bounded(1);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(EnqueueError::Stopped(event));
        }
        let item = Item {
            event,
            since,
            result,
        };
        match self.sender.try_send(item) {
            Ok(()) => {
                self.entered(since);
                Ok(Ticket(ticket))
            }
            Err(error) => Err(EnqueueError::Full(error.into_inner().event)),
        }
    }

    fn entered(&self, since: Moment) {
        {
            let mut counters = self.counters.lock();
            counters.enqueued += 1;
            let waited = self.clock.0.now().since(since);
            counters.enqueue_wait.record(waited);
        }
        self.consumer.raise();
        // A stop in between may have missed it.
        if self.stopped.load(Ordering::SeqCst) {
            self.cancel_waiting();
        }
    }

    /// The next event, if there is one. After a stop: cancels and gives none.
    pub fn take(&self) -> Option<Taken<E, R>> {
        if self.stopped.load(Ordering::SeqCst) {
            self.cancel_waiting();
            return None;
        }
        let item = self.receiver.try_recv().ok()?;
        let waited = self.clock.0.now().since(item.since);
        self.counters.lock().queue_wait.record(waited);
        if let Some(producer) = &self.producer {
            producer.raise();
        }
        Some(Taken {
            event: item.event,
            result: item.result,
        })
    }

    /// Counts one event as handled.
    pub fn handled(&self, span: Duration) {
        let mut counters = self.counters.lock();
        counters.handled += 1;
        counters.handling.record(span);
    }

    /// Closes the intake and cancels the events that were not yet taken.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.cancel_waiting();
        self.consumer.raise();
    }

    fn cancel_waiting(&self) {
        // Dropping an item closes its ticket.
        let cancelled = self.receiver.try_iter().count() as u64;
        self.counters.lock().cancelled += cancelled;
    }

    /// Told by the consumer when it will take no more.
    pub fn consumer_left(&self) {
        self.cancel_waiting();
        *self.drained.lock() = true;
        self.drained_wake.notify_all();
    }

    /// Waits until the consumer has left; false after `span`.
    pub fn wait_to_be_drained(&self, span: Duration) -> bool {
        let mut drained = self.drained.lock();
        if !*drained {
            self.drained_wake.wait_for(&mut drained, span);
        }
        *drained
    }

    /// Whether the intake is closed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Events that wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.receiver.len()
    }

    /// Events that may still enter without waiting.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.depth().min(self.capacity)
    }

    /// The statistics at this moment.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let counters = self.counters.lock();
        QueueStats {
            name: self.name.clone(),
            depth: self.depth(),
            capacity: self.capacity,
            enqueued: counters.enqueued,
            handled: counters.handled,
            cancelled: counters.cancelled,
            enqueue_wait: counters.enqueue_wait,
            queue_wait: counters.queue_wait,
            handling: counters.handling,
        }
    }
}

#[cfg(test)]
#[path = "event_queue_tests.rs"]
mod tests;
