//! The monitor: records of the programs, enriched and told to readers.
//!
//! Reading order: `enrich` (a record to an event: no I/O), `fanout` (to bounded
//! buffers, one for each reader), `pump` (the thread `monitor`, the only writer). Enforcement never waits for a reader: a slow one loses events
//! and is told how many.

mod enrich;
mod fanout;
mod pump;

pub use enrich::enrich;
pub use fanout::{Filter, Monitor, Subscription};
pub use pump::EventPump;

#[cfg(test)]
mod tests;
