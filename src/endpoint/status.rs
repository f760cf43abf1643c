//! What the agent says about an endpoint: the observed side. Plain data.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::events::{EndpointId, EndpointState, Revision};
use crate::identity::{IdentityNumber, LabelSet};

/// Kinds of endpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// The node itself.
    Host,
}

/// Whether verdicts are enforced in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    Enabled,
    #[default]
    Disabled,
    /// Denials are reported and passed: by audit mode, or because only policies
    /// in audit are about the direction.
    Audit,
}

/// Enforcement by direction, as the datapath has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointPolicyStatus {
    pub ingress: Enforcement,
    pub egress: Enforcement,
    /// Whether it was computed in the endpoint's audit mode; a direction can be
    /// in audit without it, when only policies in audit are about it.
    #[serde(skip)]
    pub audit_mode: bool,
}

/// What an endpoint shall have and what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointRevisions {
    /// Newest revision that the repository asks for.
    pub desired: Revision,
    /// Revision that the datapath enforces; 0 before the first commit.
    pub realized: Revision,
}

/// The option `PolicyAuditMode` of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditSetting {
    /// Nobody set it: the agent's setting counts.
    #[default]
    Inherited,
    Enabled,
    Disabled,
}

/// The node as its devices show it; the daemon refreshes it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Protected devices.
    pub devices: Vec<String>,
}

/// One line of an endpoint's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// State after the event.
    pub state: EndpointState,
    /// Whether the last operation failed.
    pub failed: bool,
    pub message: String,
}

/// An endpoint, as `palisade endpoint get` prints it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EndpointStatus {
    pub id: EndpointId,
    pub kind: EndpointKind,
    pub identity: IdentityNumber,
    /// Prints as `source:key=value` strings.
    #[serde(serialize_with = "label_strings")]
    pub labels: LabelSet,
    pub policy: EndpointPolicyStatus,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub devices: Vec<String>,
    pub state: EndpointState,
    pub revision: EndpointRevisions,
    /// What was set on this endpoint, and what follows from it and the agent's.
    pub audit: AuditSetting,
    pub audit_effective: bool,
    /// Why the last regeneration failed; None after a success.
    pub error: Option<String>,
    /// The last transitions, oldest first; not part of the JSON of a list.
    #[serde(skip)]
    pub log: Vec<LogEntry>,
}

impl EndpointStatus {
    /// Whether what is enforced is in the audit mode that is asked for.
    #[must_use]
    pub fn audit_in_force(&self) -> bool {
        let policy = self.policy;
        let nothing = [policy.ingress, policy.egress] == [Enforcement::Disabled; 2];
        nothing || policy.audit_mode == self.audit_effective
    }
}

fn label_strings<S: serde::Serializer>(labels: &LabelSet, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(labels.iter().map(ToString::to_string))
}
