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
use crate::limits::{METRICS_UPKEEP, NOTIFY_READY_MAX, READY_POLL};

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

/// Tells the service manager when the node is guarded, and signs of life; keeps
/// samples of histograms from piling up. Never ends.
async fn housekeeping(agent: Arc<Agent>) {
    let watchdog = tokio::spawn(signs_of_life(Arc::clone(&agent)));
    let mut poll = interval(READY_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = agent.clock.now();
    // A policy that is known is waited for, however slow the machine: the service
    // manager has a limit of its own.
    let may_wait = || {
        agent.pipeline.is_about_to_enforce() || agent.clock.now().since(began) < NOTIFY_READY_MAX
    };
    while !is_guarded(&agent) && may_wait() {
        poll.tick().await;
    }
    tracing::info!(
        guarded = is_guarded(&agent),
        "the service manager is told to go on"
    );
    notify::tell(&format!("READY=1\nSTATUS={}", state_line(&agent)));
    while !agent.collector.is_ready() {
        poll.tick().await;
    }
    tracing::info!("ready: sources are in sync and the newest revision is enforced");
    notify::tell(&format!("STATUS={}", state_line(&agent)));
    let mut upkeep = interval(METRICS_UPKEEP);
    while !watchdog.is_finished() {
        upkeep.tick().await;
        agent.metrics.upkeep();
    }
}

/// The last good policy is enforced: from the kernel, the store or the sources.
/// The network may come up; sources that need it may answer later.
fn is_guarded(agent: &Agent) -> bool {
    let pipeline = &agent.pipeline;
    let is_last_good = pipeline.realized().is_some() && !pipeline.is_about_to_enforce();
    is_last_good || agent.collector.is_ready()
}

fn state_line(agent: &Agent) -> String {
    let state = match agent.pipeline.realized() {
        Some(realized) => format!("revision {} is in the kernel", realized.revision),
        None => "nothing is enforced yet".to_owned(),
    };
    let waiting = agent.pipeline.status().waiting_for;
    let names: Vec<&str> = waiting.iter().map(|source| source.as_str()).collect();
    if names.is_empty() {
        state
    } else {
        format!("{state}; waiting for {}", names.join(", "))
    }
}

/// A sign of life for as long as the pipeline's locks can be had. Never ends.
async fn signs_of_life(agent: Arc<Agent>) {
    let Some(pause) = notify::watchdog() else {
        return std::future::pending().await;
    };
    let mut tick = interval(pause);
    loop {
        tick.tick().await;
        let asked = Arc::clone(&agent);
        let answers = tokio::task::spawn_blocking(move || asked.pipeline.status()).await;
        if answers.is_ok() {
            notify::tell("WATCHDOG=1");
        }
    }
}
