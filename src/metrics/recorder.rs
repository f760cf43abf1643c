//! The recorder behind the `metrics` facade: one for the process.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::layers::{Layer, PrefixLayer};

use crate::catalogue::{ALL, BUCKETS_S, Kind};

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("metrics: {0}")]
    Build(#[from] BuildError),
    #[error("metrics: a recorder is installed already")]
    Installed,
}

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder; every name gets `prefix`.
    ///
    /// # Errors
    /// When the process has a recorder already.
    pub fn install(prefix: &str) -> Result<Self, MetricsError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(BUCKETS_S)?
            .build_recorder();
        let handle = recorder.handle();
        // The layer puts a dot after the prefix, which the exporter writes as `_`.
        let installed = match prefix.strip_suffix('_') {
            Some(stem) => {
                let prefixed = PrefixLayer::new(stem.to_owned()).layer(recorder);
                metrics::set_global_recorder(prefixed).is_ok()
            }
            None => metrics::set_global_recorder(recorder).is_ok(),
        };
        if !installed {
            return Err(MetricsError::Installed);
        }
        describe();
        Ok(Self { handle })
    }

    /// The text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Moves recorded samples into their buckets; call it now and then, so that
    /// samples do not pile up while nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    for metric in ALL {
        let unit: Unit = metric.unit;
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, unit, metric.help),
        }
    }
}
