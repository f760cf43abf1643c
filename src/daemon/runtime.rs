//! The part on tokio: API, metrics, signals, readiness.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::notify;
use super::rooms::Rooms;
use super::threads::{End, Threads};
use crate::api::{Agent, Servers};
use crate::config::Config;
use crate::limits::{METRICS_UPKEEP, READY_POLL};

/// Serves until a signal comes or a worker ends.
pub(super) fn run(config: &Config, rooms: &Rooms, threads: &mut Threads) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("api")
        .enable_all()
        .build()
        .context("event loop of the API")?;
    let outcome = runtime.block_on(serve(config, Arc::clone(&rooms.agent), threads));
    // Requests that wait (for a revision, for events) end with the agent.
    runtime.shutdown_background();
    drop(std::fs::remove_file(&config.socket));
    outcome
}

async fn serve(config: &Config, agent: Arc<Agent>, threads: &mut Threads) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let servers = Servers::bind(&config.socket, config.metrics_addr).await?;
    tracing::info!(socket = %config.socket.display(), "the API is served");
    tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM");
            Ok(())
        }
        _ = interrupt.recv() => {
            tracing::info!("SIGINT");
            Ok(())
        }
        end = threads.first_end() => worker_ended(&end),
        broken = servers.serve(Arc::clone(&agent)) => {
            broken.context("the API")?;
            bail!("the API ended")
        }
        () = housekeeping(agent) => Ok(()),
    }
}

fn worker_ended(end: &End) -> Result<()> {
    match &end.panic {
        Some(message) => bail!(
            "thread {} panicked: {message}; the agent stops, the kernel goes on enforcing",
            end.name
        ),
        None => bail!(
            "thread {} ended; the agent stops, the kernel goes on enforcing",
            end.name
        ),
    }
}

/// Tells the service manager once when the agent is ready; keeps samples of
/// histograms from piling up. Never ends.
async fn housekeeping(agent: Arc<Agent>) {
    let mut ready = interval(READY_POLL);
    ready.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !agent.collector.is_ready() {
        ready.tick().await;
    }
    tracing::info!("ready: sources are in sync and the newest revision is enforced");
    notify::tell("READY=1");
    let mut upkeep = interval(METRICS_UPKEEP);
    loop {
        upkeep.tick().await;
        agent.metrics.upkeep();
    }
}
