//! What every event carries: its place in the journal and its time.

use serde::{Deserialize, Serialize};

/// Place of an event in the journal; journal order is queue order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// An event with its place, cause and time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope<E> {
    pub sequence: Sequence,
    /// Wall-clock time in milliseconds since 1970 at which it was accepted.
    pub accepted_ms: u64,
    pub event: E,
}
