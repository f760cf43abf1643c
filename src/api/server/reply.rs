//! Answers: JSON, or an error with its words.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::model::ApiError;
use crate::queues::{PastError, SubmitError};

/// What a handler gives.
pub(super) type Reply<T> = Result<Json<T>, Refusal>;

/// Why it gives nothing.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: message.into(),
        }
    }
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
        }
    }
    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            message: message.into(),
        }
    }
    pub(super) fn not_lasting(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INSUFFICIENT_STORAGE,
            message: message.into(),
        }
    }
    pub(super) fn no_endpoint(id: u16) -> Self {
        Self::not_found(format!(
            "no endpoint {id}; `palisade endpoint list` shows them"
        ))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ApiError {
            error: self.message,
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::TimedOut => Self::timeout(message),
            SubmitError::NotLasting(_) => Self::not_lasting(message),
            SubmitError::Stopped | SubmitError::Full | SubmitError::Journal(_) => {
                Self::failed(message)
            }
        }
    }
}

impl From<PastError> for Refusal {
    fn from(error: PastError) -> Self {
        let message = error.to_string();
        match error {
            PastError::NotYet { .. } | PastError::Gone { .. } | PastError::Forgotten { .. } => {
                Self::not_found(message)
            }
            PastError::Busy => Self::timeout(message),
            PastError::Lost { .. } => Self::failed(message),
        }
    }
}

/// Runs what may block on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::failed(error.to_string()))?
}
