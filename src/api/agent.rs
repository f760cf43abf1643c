//! What the handlers read: handles on the rooms of the running agent.

use std::sync::Arc;

use crate::metrics::{Collector, KernelCounters, Metrics};
use crate::monitor::Monitor;
use crate::policy::FailsafeEntry;
use crate::queues::Pipeline;
use crate::sources::SourceBoard;

/// Handles on the rooms of the running agent.
#[derive(Debug)]
pub struct Agent {
    pub node: String,
    pub failsafe: Vec<FailsafeEntry>,
    pub pipeline: Arc<Pipeline>,
    pub board: Arc<SourceBoard>,
    pub monitor: Arc<Monitor>,
    pub metrics: Metrics,
    pub collector: Collector,
}

impl Agent {
    /// The text format of Prometheus, read now.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.collector.collect(&self.kernel_counters());
        self.metrics.render()
    }

    fn kernel_counters(&self) -> KernelCounters {
        KernelCounters::default()
    }
}
