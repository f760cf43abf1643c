//! What every event carries: its place in the journal and its time.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// Place of an event in the journal; journal order is queue order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// An event on its way: with its place, and when it was accepted.
#[derive(Clone, PartialEq, Debug)]
pub struct Envelope<E> {
    pub sequence: Sequence,
    pub since: Moment,
    pub event: E,
}
