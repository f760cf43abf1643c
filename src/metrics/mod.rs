//! Metrics: the recorder behind the `metrics` facade, and the collector that reads
//! the rest of the agent when somebody asks. What there is: `crate::catalogue`.
//!
//! Reading order: `recorder`, `collect`, `kernel` (the kernel's counters), `sweep`.

mod collect;
mod kernel;
mod recorder;
mod sweep;

pub use collect::{Collector, KernelCounters, KernelMap};
pub use kernel::{Occupancy, current_names, kernel_counters, rule_hits, rule_name};
pub use recorder::{Metrics, MetricsError};
pub use sweep::swept;

#[cfg(test)]
mod tests;
