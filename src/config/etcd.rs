//! Options of the etcd source.

use std::path::PathBuf;
use std::time::Duration;

use super::AgentOptions;
use super::resolve::{Check, filled};
use crate::limits::ETCD_LEASE_TTL_MIN;

/// How etcd is reached, and how long it keeps what a silent node published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdAccess {
    /// Empty: those of the file.
    pub endpoints: Vec<String>,
    pub config: Option<PathBuf>,
    pub lease_ttl: Duration,
}

impl Check<'_> {
    /// None: etcd is no source.
    pub(super) fn etcd(&mut self, options: &AgentOptions) -> Option<EtcdAccess> {
        let endpoints = filled(&options.etcd);
        for endpoint in &endpoints {
            let rest = endpoint.strip_prefix("http://");
            let rest = rest.or_else(|| endpoint.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.trim_end_matches('/').contains('/')) {
                let reason = "expected http://HOST:PORT or https://HOST:PORT";
                self.fail("etcd", endpoint, reason);
            }
        }
        let config = options.etcd_config.clone().filter(|file| !file.is_empty());
        let ttl = self.number(
            "etcd-lease-ttl",
            &options.etcd_lease_ttl,
            ETCD_LEASE_TTL_MIN,
        );
        if endpoints.is_empty() && config.is_none() {
            return None;
        }
        Some(EtcdAccess {
            endpoints,
            config: config.map(PathBuf::from),
            lease_ttl: Duration::from_secs(ttl.into()),
        })
    }
}
