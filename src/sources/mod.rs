//! Where changes come from. Each source runs on a thread of its own, tells
//! everything it holds, says `in sync`, then tells changes.
//!
//! Reading order: `board` (what `status` shows), `manifests`, `local`.

mod board;
mod device_board;
pub mod local;
pub mod manifests;

pub use board::{SourceBoard, SourceProblem, SourceReport};

use std::collections::BTreeSet;

use crate::events::{RepositoryChange, ResourceKey, SourceName};
use crate::queues::{Pipeline, SubmitError};

/// Where a source sends what it sees: the pipeline, or a recorder in tests.
pub trait ChangeSink: Send + Sync {
    /// Hands over one change; waits while the queue is full.
    ///
    /// # Errors
    /// When the pipeline has stopped.
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError>;

    /// Everything the source holds has been handed over.
    ///
    /// # Errors
    /// When the pipeline has stopped.
    fn in_sync(&self, source: SourceName, owned: &BTreeSet<ResourceKey>)
    -> Result<(), SubmitError>;
}

impl ChangeSink for Pipeline {
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError> {
        Self::submit(self, change).map(|_submission| ())
    }
    fn in_sync(
        &self,
        source: SourceName,
        owned: &BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        self.source_in_sync(source, owned)
    }
}
