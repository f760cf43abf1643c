//! How etcd is reached: endpoints, certificates, user. The files are read anew
//! with each connection, so that rotated certificates and passwords count.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::client::{Client, Failure};
use crate::limits::{ETCD_CONNECT, ETCD_PING, ETCD_PING_ANSWER};
use crate::sources::marked::{Marked, MarkedConnector};
use crate::sources::remote::chain;

/// Where the configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Empty: those of the file.
    pub endpoints: Vec<String>,
    /// As Cilium's etcd config: endpoints, certificates, user.
    pub config: Option<PathBuf>,
}

/// The file; its keys are Cilium's, and the user's besides.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    endpoints: Vec<String>,
    trusted_ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

impl Access {
    /// What stands in the files now.
    fn read(&self) -> Result<File, String> {
        let mut file = match &self.config {
            Some(path) => {
                let text = read(path)?;
                serde_yaml_ng::from_slice(&text)
                    .map_err(|error| format!("{}: {error}", path.display()))?
            }
            None => File::default(),
        };
        if !self.endpoints.is_empty() {
            file.endpoints.clone_from(&self.endpoints);
        }
        if file.endpoints.is_empty() {
            return Err(
                "no endpoints: give --etcd URL,... or endpoints in --etcd-config".to_owned(),
            );
        }
        Ok(file)
    }
}

impl File {
    fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        let wrong = |error: &dyn std::error::Error| format!("{url}: {}", chain(error));
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(&error))?;
        let endpoint = endpoint
            .connect_timeout(ETCD_CONNECT)
            .http2_keep_alive_interval(ETCD_PING)
            .keep_alive_timeout(ETCD_PING_ANSWER)
            .keep_alive_while_idle(true);
        if !url.starts_with("https://") {
            return Ok(endpoint);
        }
        let mut tls = match &self.trusted_ca_file {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            (None, None) => {}
            _ => return Err("cert-file and key-file: both are needed, or none".to_owned()),
        }
        endpoint.tls_config(tls).map_err(|error| wrong(&error))
    }

    fn password(&self) -> Result<String, String> {
        match (&self.password, &self.password_file) {
            (Some(password), None) => Ok(password.clone()),
            (None, Some(path)) => {
                let text = String::from_utf8(read(path)?);
                let text = text.map_err(|_| format!("{}: not text", path.display()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (None, None) => Err("username without password or password-file".to_owned()),
            (Some(_), Some(_)) => Err("password and password-file: give one of them".to_owned()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A client, and which one it is.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) client: Client,
    number: u64,
}

/// The client that feed and publisher share.
#[derive(Clone)]
pub(super) struct Doors {
    access: Access,
    marked: Arc<Marked>,
    current: Arc<Mutex<Current>>,
    /// Where it leads, for `status`.
    server: Arc<parking_lot::RwLock<String>>,
}

struct Current {
    door: Option<Door>,
    /// Of the next client: endpoints take turns.
    number: u64,
}

impl Doors {
    /// Nodes begin with different endpoints.
    pub(super) fn new(access: Access, marked: Arc<Marked>, node: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let number = u64::from(u32::try_from(hasher.finish() >> 32).unwrap_or_default());
        let server = access.endpoints.join(", ");
        Self {
            access,
            marked,
            current: Arc::new(Mutex::new(Current { door: None, number })),
            server: Arc::new(server.into()),
        }
    }

    /// The client, made where there is none.
    pub(super) async fn open(&self) -> Result<Door, Failure> {
        let mut current = self.current.lock().await;
        if let Some(door) = &current.door {
            return Ok(door.clone());
        }
        let number = current.number;
        current.number += 1;
        let client = self.client(number).await?;
        let door = Door { client, number };
        current.door = Some(door.clone());
        Ok(door)
    }

    /// This one did not work: the next comes from another endpoint, if there are
    /// several.
    pub(super) async fn close(&self, broken: &Door) {
        let mut current = self.current.lock().await;
        if current
            .door
            .as_ref()
            .is_some_and(|door| door.number == broken.number)
        {
            current.door = None;
        }
    }

    async fn client(&self, number: u64) -> Result<Client, Failure> {
        let file = self.access.read().map_err(Failure::Refused)?;
        let count = u64::try_from(file.endpoints.len()).unwrap_or(1);
        let position = usize::try_from(number % count).unwrap_or_default();
        let url = &file.endpoints[position];
        url.clone_into(&mut self.server.write());
        let endpoint = file.endpoint(url).map_err(Failure::Refused)?;
        let connector = MarkedConnector::new(&self.marked);
        let channel = endpoint.connect_with_connector(connector).await;
        let channel =
            channel.map_err(|error| Failure::Unreachable(format!("{url}: {}", chain(&error))))?;
        let mut client = Client::new(channel);
        if let Some(user) = &file.username {
            let password = file.password().map_err(Failure::Refused)?;
            client.authenticate(user, &password).await?;
        }
        Ok(client)
    }

    /// Where it leads.
    pub(super) fn server(&self) -> String {
        self.server.read().clone()
    }
}
