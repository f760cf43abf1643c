//! A client of the API for the command line: one connection per request.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::limits::API_BODY_BYTES_MAX;
use crate::model::ApiError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent answers on {socket} ({reason}); start one with `palisade agent`, or name its socket with --socket or PALISADE_SOCKET"
    )]
    NoAgent { socket: PathBuf, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("the connection to the agent broke: {0}")]
    Broken(String),
    #[error(
        "the agent's answer is not understood ({0}); are agent and command of the same version?"
    )]
    Answer(String),
}

/// Talks to the agent behind a Unix socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the agent that listens on `socket`. Connects on use.
    ///
    /// # Errors
    /// When the process cannot have an event loop.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// GET of a path below the version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None)
    }

    /// Any method with a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Broken(error.to_string()))?;
        self.call(method, path, Some(body))
    }

    /// GET of a plain text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.bytes(Method::GET, path, None)?;
        String::from_utf8(bytes.into()).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// GET of lines that never end; `each` gets every line and says whether to
    /// go on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let response = self.request(Method::GET, path, None).await?;
            let mut body = accepted(response).await?;
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
                let Some(data) = frame.data_ref() else {
                    continue;
                };
                pending.extend_from_slice(data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line[..end]);
                    if !line.is_empty() && !each(&line) {
                        return Ok(());
                    }
                }
            }
            Err(ClientError::Broken("the agent closed it".to_owned()))
        })
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(method, path, body)?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.to_string()))
    }

    fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        self.runtime.block_on(async {
            let response = self.request(method, path, body).await?;
            let body = accepted(response).await?;
            let collected = body
                .collect()
                .await
                .map_err(|error| ClientError::Broken(error.to_string()))?;
            Ok(collected.to_bytes())
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| ClientError::NoAgent {
                    socket: self.socket.clone(),
                    reason: reason_of(&error),
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", super::VERSION))
            .header("host", "palisade")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        sender.send_request(request).await.map_err(broken)
    }
}

fn reason_of(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such socket".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied; root is needed".to_owned(),
        _ => error.to_string(),
    }
}

async fn accepted(response: Response<Incoming>) -> Result<Incoming, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(|error| ClientError::Broken(error.to_string()))?
        .to_bytes();
    let message = serde_json::from_slice::<ApiError>(&bytes)
        .map(|body| body.error)
        .unwrap_or_else(|_| match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the request has more than {API_BODY_BYTES_MAX} bytes; send less at once")
            }
            StatusCode::NOT_FOUND => "the agent does not know this request".to_owned(),
            other => format!("the agent answered {other}"),
        });
    Err(ClientError::Refused(message))
}
