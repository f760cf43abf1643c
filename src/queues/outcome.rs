//! What callers of the pipeline learn of their changes.

use std::time::Duration;

use serde::Serialize;

use super::event_queue::{NoResult, Ticket};
use crate::events::{Revision, Sequence};
use crate::policy::Refusal;
use crate::policy::language::FieldError;

/// What became of an accepted change, told after it was journalled and applied.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum ChangeOutcome {
    /// In the repository, as this revision. Not yet enforced: see
    /// [`Pipeline::wait_enforced`].
    Applied {
        revision: Revision,
        warnings: Vec<FieldError>,
    },
    /// Invalid or owned by another source; the last valid version stays.
    Refused {
        revision: Revision,
        refusal: Refusal,
    },
    /// Nothing to change.
    Unchanged { revision: Revision },
    /// A deletion that waits until every source is in sync.
    Deferred { revision: Revision },
}

/// A change that was taken.
#[derive(Debug)]
pub struct Submission {
    /// Its place in the journal; None when it changes nothing.
    pub sequence: Option<Sequence>,
    /// None when there is nothing to wait for.
    pub(super) ticket: Option<Ticket<ChangeOutcome>>,
    /// The repository's revision when it was taken.
    pub(super) revision: Revision,
}

/// Why a change was not taken, or its outcome is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("the agent is stopping; the change was cancelled")]
    Stopped,
    #[error("the queue is full")]
    Full,
    /// Too large for the journal; nothing was done.
    #[error("{0}")]
    Journal(String),
    /// The store is suspended; nothing was done.
    #[error(
        "not taken, since it would be lost with the agent: {0}; until then, put policies into \
         the manifests directory"
    )]
    NotLasting(String),
    #[error("not done within the time limit; it goes on in the background")]
    TimedOut,
}

impl Submission {
    /// Waits until the change is on the disk and in the repository.
    pub fn wait(self, span: Duration) -> Result<ChangeOutcome, SubmitError> {
        let Some(ticket) = self.ticket else {
            return Ok(ChangeOutcome::Unchanged {
                revision: self.revision,
            });
        };
        ticket.wait(span).map_err(|error| match error {
            NoResult::TimedOut => SubmitError::TimedOut,
            NoResult::Cancelled => SubmitError::Stopped,
        })
    }

    /// The outcome if it is known already; None while it is not, and for good
    /// if the change was cancelled.
    #[must_use]
    pub fn try_outcome(&self) -> Option<ChangeOutcome> {
        match &self.ticket {
            Some(ticket) => ticket.wait(Duration::ZERO).ok(),
            None => Some(ChangeOutcome::Unchanged {
                revision: self.revision,
            }),
        }
    }
}
