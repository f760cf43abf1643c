//! What the agent's configuration says about policy.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::language::NamedPort;

/// When a direction is enforced (Cilium: `enable-policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementMode {
    /// When a rule that selects the endpoint has an item for the direction.
    #[default]
    Default,
    /// Always, even without any rule.
    Always,
    /// Never; rules are read and reported, nothing is enforced.
    Never,
}

/// One flow that always passes: `[in:|out:]proto/port[@cidr]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailsafeEntry {
    /// `palisade_abi::direction` of the opener.
    pub direction: u32,
    pub proto: u8,
    /// 0 = every port.
    pub port: u16,
    /// None = every peer.
    pub peer: Option<IpNet>,
}

/// Options of the repository. Also a record on the disk: what it lacks is the
/// default.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyOptions {
    /// The name of this node: which Node object is our own.
    pub node_name: String,
    /// Labels of the host endpoint besides those of the Node object (source
    /// `k8s`); `RepositoryChange::NodeLabels` replaces them.
    pub node_labels: BTreeMap<String, String>,
    pub enforcement: EnforcementMode,
    /// Audit for all endpoints (`--policy-audit-mode`).
    pub audit: bool,
    pub failsafe: Vec<FailsafeEntry>,
    /// `--policy-cidr-match-mode nodes`: CIDR rules match other nodes as well.
    pub cidr_match_nodes: bool,
    /// Value of the label `io.cilium.k8s.policy.cluster` of pods.
    pub cluster_name: String,
    /// What named ports of rules for ingress mean on this host.
    pub named_ports: Vec<NamedPort>,
    /// A cluster (etcd) numbers pods: until it has, they have numbers outside of
    /// its range, so that no number of it ever means something else here.
    pub numbers_are_shared: bool,
}

impl PolicyOptions {
    /// Cilium's name of a cluster that nobody named.
    pub const CLUSTER_NAME: &str = "default";
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            node_labels: BTreeMap::new(),
            enforcement: EnforcementMode::default(),
            audit: false,
            failsafe: Vec::new(),
            cidr_match_nodes: false,
            cluster_name: Self::CLUSTER_NAME.to_owned(),
            named_ports: Vec::new(),
            numbers_are_shared: false,
        }
    }
}
