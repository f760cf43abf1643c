//! What changes for packets between two sets of policies: not their text, but
//! their verdicts.
//!
//! Both sides are read by the oracle. In reading order: types (the answer),
//! peers (everyone that the sides can tell apart), packets (the same for
//! protocols and ports), compare, words.

mod compare;
mod packets;
mod peers;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
mod types;

pub use compare::diff;
pub use types::{Decision, DirectionState, EnforcementChange, PeerSet, PolicyDiff, VerdictChange};
