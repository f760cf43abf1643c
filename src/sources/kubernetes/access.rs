//! How the API server is reached: kubeconfig or the pod's service account, made
//! anew when the server refuses who we are, so that rotated tokens,
//! certificates and kubeconfigs are read again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::sync::Mutex;

use super::client::client;
use crate::limits::KUBERNETES_CONNECT;
use crate::sources::marked::{Marked, MarkedConnector};
use crate::sources::remote::chain;

/// Where the configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// None: `KUBECONFIG`, `~/.kube/config` or the pod's service account,
    /// whichever is there first.
    pub kubeconfig: Option<PathBuf>,
    /// None: the current context.
    pub context: Option<String>,
    /// Of the one agent that counts for the status of policies.
    pub status_lease: Duration,
}

impl Access {
    async fn config(&self) -> Result<Config, String> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let read = match &self.kubeconfig {
            Some(file) => {
                let config = Kubeconfig::read_from(file)
                    .map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
                Config::from_custom_kubeconfig(config, &options)
                    .await
                    .map_err(|error| format!("{}: {}", file.display(), chain(&error)))
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| chain(&error)),
            None => Config::infer().await.map_err(|error| {
                format!(
                    "neither a kubeconfig nor a service account: {}",
                    chain(&error)
                )
            }),
        };
        let mut config = read?;
        config.connect_timeout = Some(KUBERNETES_CONNECT);
        // Each feed keeps its own pace and tells of each failure.
        config.default_retry = false;
        Ok(config)
    }
}

/// A client, and which one it is.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) client: Client,
    number: u64,
}

/// The client that all feeds share.
#[derive(Clone)]
pub(super) struct Doors {
    access: Access,
    marked: Arc<Marked>,
    current: Arc<Mutex<Option<Door>>>,
    /// Where it leads, for `status`.
    server: Arc<parking_lot::RwLock<String>>,
}

impl Doors {
    pub(super) fn new(access: Access, marked: Arc<Marked>) -> Self {
        Self {
            access,
            marked,
            current: Arc::default(),
            server: Arc::default(),
        }
    }

    /// The client, made where there is none.
    pub(super) async fn open(&self) -> Result<Door, String> {
        let mut current = self.current.lock().await;
        if let Some(door) = &*current {
            return Ok(door.clone());
        }
        self.make(&mut current, 1).await
    }

    /// The server did not know us through `refused`: reads the configuration
    /// again, unless another feed did so meanwhile.
    pub(super) async fn renew(&self, refused: &Door) -> Result<(), String> {
        let mut current = self.current.lock().await;
        let number = current.as_ref().map_or(0, |door| door.number);
        if number != refused.number {
            return Ok(());
        }
        self.make(&mut current, number + 1).await.map(drop)
    }

    async fn make(&self, current: &mut Option<Door>, number: u64) -> Result<Door, String> {
        let config = self.access.config().await?;
        *self.server.write() = config.cluster_url.to_string();
        let client = client(&config, MarkedConnector::new(&self.marked))?;
        let door = Door { client, number };
        *current = Some(door.clone());
        Ok(door)
    }

    /// Where it leads; empty before the configuration was read.
    pub(super) fn server(&self) -> String {
        self.server.read().clone()
    }
}
