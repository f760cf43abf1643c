//! The pipeline: queues, their consumers and the facade that edges use.
//!
//! Reading order: `stats`, `pipeline` (the facade).

mod pipeline;
mod stats;

pub use pipeline::{
    ChangeOutcome, GenerationNames, Pipeline, PipelineOptions, PipelineStatus, Submission,
    SubmitError, Worker,
};
pub use stats::{QueueStats, Timing};
