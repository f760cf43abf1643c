//! The server: one router on the Unix socket, a small one for Prometheus.
//!
//! Runs on the tokio runtime of the daemon. What blocks (waiting for a
//! revision, reading whole maps) runs on the blocking pool.

mod checks;
mod endpoints;
mod follow;
mod identities;
mod kernel;
mod policies;
mod problems;
mod reply;
mod socket;
mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use tokio::net::{TcpListener, UnixListener};

use super::{Agent, VERSION};
use crate::limits::API_BODY_BYTES_MAX;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("API socket {}: {reason}", path.display())]
    Socket { path: PathBuf, reason: String },
    #[error("metrics address {address}: {reason}")]
    Metrics { address: String, reason: String },
}

/// Listeners that are bound, ready to serve.
#[derive(Debug)]
pub struct Servers {
    api: UnixListener,
    metrics: Option<TcpListener>,
}

impl Servers {
    /// Binds the socket (mode 0600, its directory is made) and the address.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub async fn bind(
        path: &Path,
        metrics: Option<std::net::SocketAddr>,
    ) -> Result<Self, ServerError> {
        let api = socket::bind(path).map_err(|reason| ServerError::Socket {
            path: path.to_owned(),
            reason,
        })?;
        let metrics =
            match metrics {
                None => None,
                Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                    ServerError::Metrics {
                        address: address.to_string(),
                        reason: error.to_string(),
                    }
                })?),
            };
        Ok(Self { api, metrics })
    }

    /// Serves until the runtime ends.
    ///
    /// # Errors
    /// When a listener breaks.
    pub async fn serve(self, agent: Arc<Agent>) -> std::io::Result<()> {
        let api = axum::serve(self.api, router(Arc::clone(&agent)));
        match self.metrics {
            None => api.await,
            Some(listener) => {
                let metrics = Router::new()
                    .route("/metrics", get(metrics))
                    .with_state(agent);
                let metrics = axum::serve(listener, metrics);
                tokio::try_join!(async { api.await }, async { metrics.await }).map(|_| ())
            }
        }
    }
}

fn router(agent: Arc<Agent>) -> Router {
    let v1 = Router::new()
        .route("/status", get(status::status))
        .route("/history", get(status::history))
        .route("/metrics", get(metrics))
        .route("/endpoints", get(endpoints::list))
        .route("/endpoints/{id}", get(endpoints::get))
        .route("/endpoints/{id}/log", get(endpoints::log))
        .route(
            "/endpoints/{id}/config",
            get(endpoints::config).patch(endpoints::set_config),
        )
        .route("/endpoints/{id}/regenerate", post(endpoints::regenerate))
        .route("/policy", get(policies::dump))
        .route("/policy/explain", get(policies::explain))
        .route("/policy/diff", get(policies::diff))
        .route("/policy/selectors", get(policies::selectors))
        .route("/policy/wait", get(policies::wait))
        .route(
            "/policy/resources",
            put(policies::import).layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX)),
        )
        .route("/policy/resources/{*key}", delete(policies::delete))
        .route("/identities", get(identities::list))
        .route("/identities/{id}", get(identities::get))
        .route("/ips", get(identities::ips))
        .route("/ips/lookup", get(identities::lookup))
        .route("/monitor", get(follow::monitor))
        .route("/bpf/policy", get(kernel::policy))
        .route("/bpf/ct", get(kernel::flows))
        .route("/bpf/ipcache", get(kernel::ipcache))
        .route("/bpf/metrics", get(kernel::counters))
        .route("/bpf/rules", get(kernel::rules))
        .with_state(agent);
    Router::new().nest(VERSION, v1)
}

async fn metrics(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(move || agent.metrics_text()).await;
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        text.unwrap_or_default(),
    )
}
