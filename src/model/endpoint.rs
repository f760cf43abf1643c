//! Endpoints.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::status::ControlLine;

use crate::endpoint::{EndpointKind, EndpointStatus, Enforcement};
use crate::events::EndpointState;

/// An endpoint, as `palisade endpoint list -o json` prints it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: u16,
    pub kind: EndpointKind,
    /// Number of its identity.
    pub identity: u32,
    /// `source:key=value` strings.
    pub labels: Vec<String>,
    pub policy: EndpointPolicy,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub devices: Vec<String>,
    pub state: EndpointState,
    pub revision: EndpointRevision,
}

/// Enforcement of each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointPolicy {
    pub ingress: Enforcement,
    pub egress: Enforcement,
}

/// What shall be enforced and what is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRevision {
    pub desired: u64,
    pub realized: u64,
}

impl From<&EndpointStatus> for Endpoint {
    fn from(status: &EndpointStatus) -> Self {
        Self {
            id: status.id.0,
            kind: status.kind,
            identity: status.identity.0,
            labels: status.labels.to_strings(),
            policy: EndpointPolicy {
                ingress: status.policy.ingress,
                egress: status.policy.egress,
            },
            ipv4: status.ipv4,
            ipv6: status.ipv6,
            devices: status.devices.clone(),
            state: status.state,
            revision: EndpointRevision {
                desired: status.revision.desired.0,
                realized: status.revision.realized.0,
            },
        }
    }
}

/// An endpoint with everything, as `palisade endpoint get` prints it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointDetail {
    #[serde(flatten)]
    pub endpoint: Endpoint,
    pub options: EndpointConfig,
    /// The policies that made each direction default-deny.
    pub enforcing: Enforcing,
    /// The policies in audit that would make it default-deny.
    #[serde(default)]
    pub auditing: Enforcing,
    pub failsafe: Vec<FailsafeFlow>,
    /// Where the agent's own traffic leads, which passes too.
    #[serde(default)]
    pub control: Vec<ControlLine>,
    /// Why the last regeneration failed.
    pub error: Option<String>,
}

/// Names of policies, by direction.
pub type Enforcing = std::collections::BTreeMap<String, Vec<String>>;

/// Options of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointConfig {
    /// `Enabled`, `Disabled`.
    #[serde(rename = "PolicyAuditMode")]
    pub policy_audit_mode: String,
}

/// A flow that always passes, with its hits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailsafeFlow {
    /// `in:tcp/22@10.0.0.0/8`.
    pub flow: String,
    pub packets: u64,
    pub bytes: u64,
}

/// One line of an endpoint's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `OK` or `Failure`.
    pub status: String,
    pub state: EndpointState,
    pub message: String,
}
