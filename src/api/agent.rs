//! What the handlers read: handles on the rooms of the running agent.

use std::sync::Arc;

use parking_lot::Mutex;

use super::noted::NotedPolicies;
use crate::clock::Clock;
use crate::datapath::kernel::{ControlList, Inspector, StartReport};
use crate::datapath::{ControlMark, DatapathError};
use crate::metrics::{Collector, KernelCounters, Metrics, Occupancy, kernel_counters};
use crate::model::{ControlLine, ControlStatus};
use crate::monitor::Monitor;
use crate::policy::FailsafeEntry;
use crate::queues::{Drift, Pipeline};
use crate::sources::SourceBoard;
use crate::sources::local::DeviceBoard;

/// Handles on the rooms of the running agent.
pub struct Agent {
    pub node: String,
    pub failsafe: Vec<FailsafeEntry>,
    /// What the start found in the kernel.
    pub start: StartReport,
    pub pipeline: Arc<Pipeline>,
    pub inspector: Inspector,
    /// The agent's own traffic: its mark, and where it may lead.
    pub control_mark: ControlMark,
    pub control: ControlList,
    pub occupancy: Occupancy,
    pub board: Arc<SourceBoard>,
    pub devices: Arc<DeviceBoard>,
    pub monitor: Arc<Monitor>,
    pub metrics: Metrics,
    pub collector: Collector,
    pub drift: Arc<Drift>,
    /// Policies that the status tells something about.
    pub noted: Mutex<NotedPolicies>,
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// What of the agent itself passes whatever policy says.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn control_status(&self) -> Result<ControlStatus, DatapathError> {
        let listed = self.control.list()?.into_iter();
        let endpoints = listed.map(|listed| ControlLine {
            endpoint: listed.endpoint.to_string(),
            flows: listed.flows,
            unmarked_while_degraded: listed.endpoint.unmarked_while_degraded,
        });
        Ok(ControlStatus {
            mark: self.control_mark.to_string(),
            endpoints: endpoints.collect(),
        })
    }

    /// The text format of Prometheus, read now.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let kernel = kernel_counters(&self.inspector, &self.pipeline, &self.occupancy);
        let kernel = kernel.unwrap_or_else(|error| {
            tracing::error!("counters of the kernel: {error}");
            KernelCounters::default()
        });
        self.collector.collect(&kernel);
        self.metrics.render()
    }
}
