//! The options of `palisade agent`, as text: parsed and checked in `resolve`,
//! so that every error can be told at once.
//!
//! The id of each argument is its key in the config file; `PALISADE_<ID>` is
//! its environment variable.

use clap::Args;

use super::{DEFAULT_BPFFS, DEFAULT_SOCKET, DEFAULT_STATE_DIR};
use crate::policy::PolicyOptions;

/// Options of the agent. Each is also a key of the config file and an
/// environment variable.
#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    /// YAML file with the same options as keys
    #[arg(long, env = "PALISADE_CONFIG", value_name = "FILE", id = "config")]
    pub config: Option<String>,

    /// Directory of manifests to watch (*.yaml, *.yml, *.json); repeatable
    #[arg(
        long,
        env = "PALISADE_MANIFESTS",
        value_name = "DIR",
        value_delimiter = ',',
        id = "manifests"
    )]
    pub manifests: Vec<String>,

    /// Device to protect; repeatable [default: every device that is up and has a global unicast address]
    #[arg(
        long,
        env = "PALISADE_DEVICE",
        value_name = "DEV",
        value_delimiter = ',',
        id = "device"
    )]
    pub device: Vec<String>,

    /// Name of this node [default: the host name]
    #[arg(
        long,
        env = "PALISADE_NODE_NAME",
        value_name = "NAME",
        id = "node-name"
    )]
    pub node_name: Option<String>,

    /// Labels of this node, besides those of its Node object
    #[arg(
        long,
        env = "PALISADE_NODE_LABELS",
        value_name = "K=V,...",
        value_delimiter = ',',
        id = "node-labels"
    )]
    pub node_labels: Vec<String>,

    /// Directory of the journal and records
    #[arg(long, env = "PALISADE_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR, id = "state-dir")]
    pub state_dir: String,

    /// Directory of the pins, on a BPF file system
    #[arg(long, env = "PALISADE_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS, id = "bpffs")]
    pub bpffs: String,

    /// Unix socket of the API
    #[arg(long, env = "PALISADE_SOCKET", value_name = "FILE", default_value = DEFAULT_SOCKET, id = "socket")]
    pub socket: String,

    /// Address of the Prometheus endpoint, IP:PORT; without it none is served
    #[arg(
        long,
        env = "PALISADE_METRICS_ADDR",
        value_name = "IP:PORT",
        id = "metrics-addr"
    )]
    pub metrics_addr: Option<String>,

    /// Prefix of every metric's name
    #[arg(
        long,
        env = "PALISADE_METRICS_PREFIX",
        value_name = "PREFIX",
        default_value = "palisade_",
        id = "metrics-prefix"
    )]
    pub metrics_prefix: String,

    /// When a direction is enforced: default (a policy with rules for it selects the host), always, never
    #[arg(
        long,
        env = "PALISADE_POLICY_ENFORCEMENT",
        value_name = "MODE",
        default_value = "default",
        id = "policy-enforcement"
    )]
    pub policy_enforcement: String,

    /// Report what policy would deny, and pass it
    #[arg(long, env = "PALISADE_POLICY_AUDIT_MODE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "false", id = "policy-audit-mode")]
    pub policy_audit_mode: String,

    /// Identities that CIDR rules match besides those of the outside: nodes
    #[arg(
        long,
        env = "PALISADE_POLICY_CIDR_MATCH_MODE",
        value_name = "MODE",
        id = "policy-cidr-match-mode"
    )]
    pub policy_cidr_match_mode: Option<String>,

    /// Name of the cluster, as policies name it (label io.cilium.k8s.policy.cluster)
    #[arg(
        long,
        env = "PALISADE_CLUSTER_NAME",
        value_name = "NAME",
        default_value = PolicyOptions::CLUSTER_NAME,
        id = "cluster-name"
    )]
    pub cluster_name: String,

    /// What the named ports of rules for ingress mean on this host: NAME=PORT/PROTOCOL,...
    #[arg(
        long,
        env = "PALISADE_NAMED_PORTS",
        value_name = "LIST",
        value_delimiter = ',',
        id = "named-ports"
    )]
    pub named_ports: Vec<String>,

    /// Flows that always pass: [in:|out:]proto/port[@cidr],...
    #[arg(
        long,
        env = "PALISADE_FAILSAFE",
        value_name = "LIST",
        value_delimiter = ',',
        id = "failsafe"
    )]
    pub failsafe: Vec<String>,

    /// Mark of the agent's own sockets, VALUE/MASK: packets with it pass to the API server, etcd and their name servers
    #[arg(
        long,
        env = "PALISADE_CONTROL_MARK",
        value_name = "VALUE/MASK",
        default_value = "0x50/0x7f",
        id = "control-mark"
    )]
    pub control_mark: String,

    /// Accept `--policy-enforcement always` where no policy and no failsafe lets anyone in
    #[arg(long, env = "PALISADE_YES_SEAL_THIS_NODE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "false", id = "yes-seal-this-node")]
    pub yes_seal_this_node: String,

    /// VLAN ids that may pass on every protected device (0 = all)
    #[arg(
        long,
        env = "PALISADE_VLAN_ALLOW",
        value_name = "ID,...",
        value_delimiter = ',',
        id = "vlan-allow"
    )]
    pub vlan_allow: Vec<String>,

    /// What happens to ethertypes other than ARP, IPv4 and IPv6 where policy is enforced: pass or drop
    #[arg(
        long,
        env = "PALISADE_OTHER_ETHERTYPES",
        value_name = "CLASS",
        default_value = "pass",
        id = "other-ethertypes"
    )]
    pub other_ethertypes: String,

    /// What happens to a packet whose family's program is missing: drop or pass
    #[arg(
        long,
        env = "PALISADE_MISSED_TAIL_CALL",
        value_name = "MODE",
        default_value = "drop",
        id = "missed-tail-call"
    )]
    pub missed_tail_call: String,

    /// Seconds an established TCP flow stays in conntrack without a packet
    #[arg(
        long,
        env = "PALISADE_CT_TCP_ESTABLISHED",
        value_name = "SECONDS",
        default_value = "8000",
        id = "ct-tcp-established"
    )]
    pub ct_tcp_established: String,

    /// Seconds an unanswered TCP flow stays in conntrack
    #[arg(
        long,
        env = "PALISADE_CT_TCP_SYN",
        value_name = "SECONDS",
        default_value = "60",
        id = "ct-tcp-syn"
    )]
    pub ct_tcp_syn: String,

    /// Seconds a closed TCP flow stays in conntrack
    #[arg(
        long,
        env = "PALISADE_CT_TCP_CLOSE",
        value_name = "SECONDS",
        default_value = "10",
        id = "ct-tcp-close"
    )]
    pub ct_tcp_close: String,

    /// Seconds any other flow stays in conntrack without a packet
    #[arg(
        long,
        env = "PALISADE_CT_OTHER",
        value_name = "SECONDS",
        default_value = "60",
        id = "ct-other"
    )]
    pub ct_other: String,

    /// Flows of each family that conntrack holds
    #[arg(
        long,
        env = "PALISADE_CT_ENTRIES_MAX",
        value_name = "N",
        default_value = "524288",
        id = "ct-entries-max"
    )]
    pub ct_entries_max: String,

    /// Seconds between the end of a whole audit of the kernel and the beginning of the next
    #[arg(
        long,
        env = "PALISADE_AUDIT_INTERVAL",
        value_name = "SECONDS",
        default_value = "30",
        id = "audit-interval"
    )]
    pub audit_interval: String,

    /// Form of the log on standard error: text or json
    #[arg(
        long,
        env = "PALISADE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        id = "log-format"
    )]
    pub log_format: String,

    /// Read policies, nodes, pods and services from the Kubernetes API
    #[arg(long, env = "PALISADE_KUBERNETES", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "false", id = "kubernetes")]
    pub kubernetes: String,

    /// Kubeconfig of the Kubernetes API [default: KUBECONFIG, ~/.kube/config or the pod's service account]
    #[arg(
        long,
        env = "PALISADE_KUBECONFIG",
        value_name = "FILE",
        id = "kubeconfig"
    )]
    pub kubeconfig: Option<String>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(
        long,
        env = "PALISADE_KUBE_CONTEXT",
        value_name = "NAME",
        id = "kube-context"
    )]
    pub kube_context: Option<String>,

    /// How long the agent that counts for `kubectl get ccnp` may be silent before another one does: seconds
    #[arg(
        long,
        env = "PALISADE_KUBE_STATUS_LEASE",
        value_name = "SECONDS",
        default_value = "300",
        id = "kube-status-lease"
    )]
    pub kube_status_lease: String,

    /// etcd endpoints to share policies, nodes and identities through: http(s)://HOST:PORT,...
    #[arg(
        long,
        env = "PALISADE_ETCD",
        value_name = "URL,...",
        value_delimiter = ',',
        id = "etcd"
    )]
    pub etcd: Vec<String>,

    /// File with endpoints, certificates and user of etcd (keys as in Cilium: endpoints, trusted-ca-file, cert-file, key-file; and username, password-file)
    #[arg(
        long,
        env = "PALISADE_ETCD_CONFIG",
        value_name = "FILE",
        id = "etcd-config"
    )]
    pub etcd_config: Option<String>,

    /// Seconds that etcd keeps what this node publishes after it is heard no more
    #[arg(
        long,
        env = "PALISADE_ETCD_LEASE_TTL",
        value_name = "SECONDS",
        default_value = "900",
        id = "etcd-lease-ttl"
    )]
    pub etcd_lease_ttl: String,
}
