//! Counts the steps of a takeover: each changes something that outlives us.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::datapath::DatapathError;

/// Steps that may still be done. All of them, but in tests, where a takeover
/// ends between any two as it would by the agent's death.
#[derive(Clone, Debug)]
pub(crate) struct Steps(Arc<AtomicUsize>);

impl Steps {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(max)))
    }

    /// Asked before each step.
    pub(crate) fn next(&self) -> Result<(), DatapathError> {
        let left = |left: usize| left.checked_sub(1);
        let took = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        took.map(|_| ())
            .map_err(|_| DatapathError::Other("the takeover was ended by its test".to_owned()))
    }
}
