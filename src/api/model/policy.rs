//! Policies: what is in force, and why a flow passes or not.

use serde::{Deserialize, Serialize};

/// A rule item by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleName {
    /// `Kind/name`; None for a failsafe entry.
    pub resource: Option<String>,
    /// `ingress`, `ingressDeny`, `egress`, `egressDeny`, `failsafe`.
    pub section: String,
    /// Zero-based position in the section.
    pub index: usize,
}

/// An identity with its labels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityRef {
    pub id: u32,
    pub labels: Vec<String>,
}

/// What would happen to the first packet of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `allowed`, `denied` or `audited`.
    pub verdict: String,
    pub reason: String,
    pub rule: Option<RuleName>,
    pub identity: IdentityRef,
    /// Whether the direction is enforced.
    pub enforced: bool,
    pub revision: u64,
    /// The policies that made the direction default-deny.
    pub enforcing: Vec<String>,
    /// For `--why-not`: what each rule of the direction misses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
}

/// A resource in the repository.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyResource {
    /// `Kind/name`.
    pub key: String,
    /// `manifests`, `api`...
    pub source: String,
    pub file: String,
    pub line: usize,
    /// Whether it selects the host endpoint.
    pub selects: bool,
    pub body: serde_json::Value,
}

/// The repository at one revision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyDump {
    pub revision: u64,
    pub policies: Vec<PolicyResource>,
}

/// A peer selector in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Selector {
    pub selector: String,
    pub users: usize,
    pub identities: Vec<u32>,
}

/// What became of an import or a deletion.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeReply {
    pub revision: u64,
    /// One line for each resource.
    pub changes: Vec<String>,
    /// Why resources were refused.
    pub errors: Vec<String>,
}

/// The revision that every endpoint enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitReply {
    pub revision: u64,
}
