//! The monitor: records of the programs, enriched and told to readers.
//!
//! Reading order: `enrich` (a record to an event: no I/O), `fanout` (to bounded
//! buffers, one for each reader). The thread `monitor` of the daemon is the
//! only writer. Enforcement never waits for a reader: a slow one loses events
//! and is told how many.

mod enrich;
mod fanout;

pub use enrich::{Names, enrich};
pub use fanout::{Filter, Monitor, Subscription};

#[cfg(test)]
mod tests;
