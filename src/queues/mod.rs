//! The pipeline: queues, their consumers and the facade that edges use.
//!
//! Reading order, along the way of an event: `pipeline` (the facade), `intake`
//! (journal order is queue order), `event_queue` (the contract of a queue),
//! `desk` (policy_add, policy_delete), `repository_worker`, `reaction_worker`,
//! `endpoint_worker`; then `start` with `restore`, `imports` and `hold`, `past`
//! (earlier revisions), `told` (lines of the history), `workers` (the loops),
//! `shared`, `known`, `outcome`, `stats`.

mod desk;
mod drift;
mod endpoint_worker;
mod event_queue;
mod hold;
mod imports;
mod intake;
mod known;
mod outcome;
mod past;
mod pipeline;
mod reaction_worker;
mod repository_worker;
mod restore;
mod shared;
mod start;
mod stats;
mod told;
mod workers;

pub use crate::endpoint::GenerationNames;
pub use desk::{AuditState, JournalEvent};
pub use drift::{Drift, DriftReport, Found, line as drift_line};
pub use endpoint_worker::EndpointWorker;
pub use event_queue::{EnqueueError, EventQueue, NoResult, Taken, Ticket};
pub use outcome::{ChangeOutcome, Submission, SubmitError};
pub use past::{PastError, PastState, fingerprint, rebuild};
pub use pipeline::{Pipeline, PipelineOptions, PipelineStatus};
pub use reaction_worker::ReactionWorker;
pub use repository_worker::RepositoryWorker;
pub use stats::{QueueStats, Timing};
pub use workers::{Worker, Workers};
