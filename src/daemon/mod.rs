//! The wiring of the agent, read top-down: config, store, datapath, pipeline,
//! sources, API, metrics, signals. No logic.
//!
//! Reading order: this file, `rooms` (who holds what), `runtime` (the part on
//! tokio: API, metrics, signals, readiness), `threads`, `start`, `seal`,
//! `notify`, `logging`, `detach`.

mod detach;
mod logging;
mod notify;
mod rooms;
mod runtime;
mod seal;
mod start;
mod threads;

pub use detach::detach;

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::datapath::kernel::{KernelDatapath, KernelOptions, Layout};
use crate::metrics::Metrics;
use crate::sources::local::{DeviceBoard, LocalSource};
use rooms::Rooms;
use threads::Threads;

/// Runs the agent until SIGTERM or SIGINT; enforcement outlives it.
///
/// # Errors
/// When the agent cannot start, or a worker of it died.
pub fn run(config: &Config) -> Result<()> {
    run_with(config, Layout::current())
}

/// The same with a layout of the kernel side, which only tests choose.
pub(crate) fn run_with(config: &Config, layout: Layout) -> Result<()> {
    logging::start(config.log_format);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let metrics = Metrics::install(&config.metrics_prefix)?;
    let store = start::store(&config.state_dir, &*clock)?;
    let options = kernel_options(config, layout);
    let (datapath, start) = KernelDatapath::open(&options).with_context(needs)?;
    for warning in &start.warnings {
        tracing::warn!("{warning}");
    }
    seal::check(config, start.adopted)?;

    let inspector = datapath.inspector();
    let devices = Arc::new(DeviceBoard::default());
    let local = LocalSource::open(
        &config.devices,
        datapath.attachments(),
        Arc::clone(&devices),
        Arc::clone(&clock),
    )?;
    let rooms = Rooms::build(rooms::Parts {
        config,
        clock,
        metrics,
        store,
        datapath,
        start,
        inspector,
        devices,
        facts: local.facts(),
    })?;

    let mut threads = Threads::default();
    rooms.start_workers(&mut threads);
    rooms.start_monitor(&mut threads)?;
    rooms.start_sweeper(&mut threads);
    rooms.start_audit(&mut threads, config.audit_interval);
    rooms.start_local(&mut threads, local, config.policy.node_labels.clone());
    let sink = rooms.start_kubernetes(&mut threads, config.kubernetes.as_ref());
    rooms.start_manifests(&mut threads, &config.manifests, &sink);
    rooms.start_etcd(&mut threads, config.etcd.as_ref(), &sink);
    let outcome = runtime::run(config, &rooms, &mut threads);

    tracing::info!("stopping; what is attached stays and goes on enforcing");
    notify::tell("STOPPING=1");
    rooms.stop();
    threads.join();
    outcome
}

/// What the most likely cause of a failed start is.
fn needs() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "datapath"
    } else {
        "the agent needs root to load programs; datapath"
    }
}

fn kernel_options(config: &Config, layout: Layout) -> KernelOptions {
    KernelOptions {
        layout,
        bpffs: config.bpffs.clone(),
        ct_entries_max: config.conntrack.entries_max,
        ..KernelOptions::default()
    }
}
