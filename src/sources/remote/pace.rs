//! How long to wait before the next try: longer after each failure, and never
//! the same on two nodes, so that thousands do not come back at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::limits::{KUBERNETES_RETRY_FIRST, KUBERNETES_RETRY_MAX};

/// Waits of one feed.
#[derive(Debug)]
pub(in crate::sources) struct Pace {
    failures: u32,
    state: u64,
}

impl Pace {
    /// `who` tells this feed from all others of the cluster.
    pub(in crate::sources) fn new(who: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        who.hash(&mut hasher);
        Self {
            failures: 0,
            state: hasher.finish() | 1,
        }
    }

    /// Something worked.
    pub(in crate::sources) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since something worked.
    pub(in crate::sources) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something failed: the wait until the next try, between half and all of a
    /// span that doubles each time.
    pub(in crate::sources) fn failed(&mut self) -> Duration {
        let doubled = KUBERNETES_RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let span = doubled.min(KUBERNETES_RETRY_MAX);
        span / 2 + self.spread(span / 2)
    }

    /// A span between zero and `span`.
    pub(in crate::sources) fn spread(&mut self, span: Duration) -> Duration {
        // xorshift64: enough to keep nodes apart.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let thousandth = u32::try_from(self.state % 1_000).unwrap_or(0);
        span * thousandth / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_differ_between_nodes() {
        let (mut one, mut other) = (Pace::new("one"), Pace::new("other"));
        let waits: Vec<_> = (0..40).map(|_| (one.failed(), other.failed())).collect();
        assert!(waits.iter().any(|(one, other)| one != other));
        for (count, (wait, _)) in waits.iter().enumerate() {
            assert!(*wait <= KUBERNETES_RETRY_MAX, "{count}: {wait:?}");
            assert!(*wait >= KUBERNETES_RETRY_FIRST / 2, "{count}: {wait:?}");
        }
        assert!(waits[39].0 >= KUBERNETES_RETRY_MAX / 2);
        assert_eq!(one.failures(), 40);
        one.reset();
        assert!(one.failed() <= KUBERNETES_RETRY_FIRST);
    }
}
