//! The agent's own way to its sources: sockets that carry its mark, to addresses
//! that stand in the kernel's list before the first packet goes there. Both
//! together pass whatever policy says, so no policy cuts the agent from its source.
//!
//! Reading order: `ledger` (which addresses are on the list, and why), `resolver`
//! (names, asked from marked sockets), `connector` (connections, for hyper and what
//! stands on it).

mod connector;
mod ledger;
mod resolver;

pub use connector::{MarkedConnector, MarkedError, MarkedStream};
pub use ledger::{Behind, Marked};

#[cfg(test)]
pub(super) use ledger::tests::marked;
