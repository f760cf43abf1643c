//! Where changes come from. Each source runs on a thread of its own, tells
//! everything it holds, says `in sync`, then tells changes.
//!
//! Reading order: `board` (what `status` shows), `manifests`, `remote` and
//! `marked` (what those beyond this host share, and the way to them),
//! `kubernetes`, `etcd`, `local`.

mod board;
mod device_board;
pub mod etcd;
pub mod kubernetes;
pub mod local;
pub mod manifests;
pub mod marked;
pub mod remote;

pub use board::{KindReport, SourceBoard, SourceProblem, SourceReport};

use std::collections::BTreeSet;

use crate::events::{RepositoryChange, ResourceKey, ResourceKind, SourceName};
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

    /// Kinds of which the source told an object that another source owned then,
    /// and that nobody owns any more: the source should tell it again.
    fn freed(&self, source: SourceName) -> BTreeSet<ResourceKind>;
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
    fn freed(&self, source: SourceName) -> BTreeSet<ResourceKind> {
        let snapshot = self.repository();
        let is_free = |key: &ResourceKey| {
            !snapshot.policies.contains_key(key) && !snapshot.objects.contains_key(key)
        };
        let refused = snapshot.refused.iter();
        let claims = refused.filter(|it| it.source == source && it.owner.is_some());
        claims
            .filter(|claim| is_free(&claim.key))
            .map(|claim| claim.key.kind)
            .collect()
    }
}
