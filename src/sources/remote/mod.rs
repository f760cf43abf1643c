//! What sources beyond this host share: the event loop of the thread that talks,
//! waits between attempts, their end, and errors told with what caused them.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::interval;

pub(super) use pace::Pace;

/// Ends a source.
#[derive(Clone, Debug)]
pub struct Stopper(pub(super) Arc<Notify>);

impl Stopper {
    /// Its threads end after their current step.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// Runs what `start` spawns until stopped, or until one of them ends; meanwhile
/// `tick` is called now and then.
pub(super) fn talk<T: Send + 'static>(
    source: &str,
    stop: &Notify,
    start: impl FnOnce(&mut JoinSet<T>),
    (span, tick): (Duration, impl Fn()),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("event loop of the {source} source: {error}");
            return;
        }
    };
    runtime.block_on(async {
        let mut running = JoinSet::new();
        start(&mut running);
        tokio::select! {
            () = stop.notified() => {}
            ended = running.join_next() => {
                if let Some(Err(error)) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
            () = repeat(span, tick) => {}
        }
    });
    // A name lookup may hang: nobody waits for it.
    runtime.shutdown_background();
}

/// Never ends.
async fn repeat(span: Duration, tick: impl Fn()) {
    let mut interval = interval(span);
    loop {
        interval.tick().await;
        tick();
    }
}

/// An error with what caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
