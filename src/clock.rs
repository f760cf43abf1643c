//! The only place that reads the time, so that a simulation can inject its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point of monotonic time, as the span since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The span from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

/// Time as a parameter: workers take `&dyn Clock`, never the system's clock.
pub trait Clock: Send + Sync {
    /// Monotonic time: intervals, deadlines.
    fn now(&self) -> Moment;
    /// Wall-clock time in milliseconds since 1970: what people read.
    fn wall_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }
    fn wall_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |span| {
                u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

/// A clock that moves only when told to: tests and the simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicU64,
    /// Wall-clock time at the start of monotonic time.
    epoch_ms: AtomicU64,
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, back or forth; monotonic time does not notice.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        let epoch_ms = wall_ms.saturating_sub(self.now_ms.load(Ordering::SeqCst));
        self.epoch_ms.store(epoch_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(Duration::from_millis(self.now_ms.load(Ordering::SeqCst)))
    }
    fn wall_ms(&self) -> u64 {
        self.epoch_ms.load(Ordering::SeqCst) + self.now_ms.load(Ordering::SeqCst)
    }
}
