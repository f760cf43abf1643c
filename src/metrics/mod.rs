//! Metrics: the catalogue, the recorder behind the `metrics` facade, and the
//! collector that reads the rest of the agent when somebody asks.
//!
//! Reading order: `catalogue`, `recorder`, `collect`.

pub mod catalogue;
mod collect;
mod recorder;

pub use collect::{Collector, KernelCounters, KernelMap};
pub use recorder::{Metrics, MetricsError};

#[cfg(test)]
mod tests;
