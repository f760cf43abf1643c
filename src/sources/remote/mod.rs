//! What sources beyond this host share: waits between attempts, their end, and
//! errors told with what caused them.

mod pace;

use std::sync::Arc;

use tokio::sync::Notify;

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
