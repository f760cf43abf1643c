//! From text to a checked configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::mark::parse_mark;
use super::{AgentOptions, EtcdAccess, PolicyText};
use crate::datapath::{ControlMark, DatapathSettings};
use crate::limits::KUBERNETES_LEASE_MIN;
use crate::policy::{EnforcementMode, FailsafeEntry, PolicyOptions};

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// Sizes of the conntrack maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConntrackLimits {
    /// Flows of each family.
    pub entries_max: u32,
}

/// How the Kubernetes API is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubernetesAccess {
    /// None: `KUBECONFIG`, `~/.kube/config` or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// None: the current context.
    pub context: Option<String>,
    /// Of the one agent that counts for the status of policies.
    pub status_lease: Duration,
}

/// The agent's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Node, enforcement, audit, failsafe: what the repository needs to know.
    pub policy: PolicyOptions,
    pub manifests: Vec<PathBuf>,
    /// None: the Kubernetes API is no source.
    pub kubernetes: Option<KubernetesAccess>,
    /// None: etcd is no source.
    pub etcd: Option<EtcdAccess>,
    /// Empty: detect them.
    pub devices: Vec<String>,
    pub state_dir: PathBuf,
    pub bpffs: PathBuf,
    pub socket: PathBuf,
    pub metrics_addr: Option<SocketAddr>,
    pub metrics_prefix: String,
    pub seal_confirmed: bool,
    /// Of the agent's own sockets.
    pub control_mark: ControlMark,
    pub conntrack: ConntrackLimits,
    pub settings: DatapathSettings,
    /// Rest between two audits of the kernel.
    pub audit_interval: Duration,
    pub log_format: LogFormat,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {}{reason}", quoted(value))]
pub struct ConfigError {
    /// The flag, variable or key the value came from.
    pub place: String,
    pub value: String,
    pub reason: String,
}

fn quoted(value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        format!("`{value}`: ")
    }
}

impl ConfigError {
    /// An error of one value.
    #[must_use]
    pub fn new(place: &str, value: &str, reason: &str) -> Self {
        Self {
            place: place.to_owned(),
            value: value.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Everything that is wrong, at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where each value came from, by key: words for messages.
#[derive(Clone, Debug, Default)]
pub struct Origins(pub BTreeMap<String, String>);

impl Origins {
    fn of(&self, key: &str) -> String {
        self.0
            .get(key)
            .cloned()
            .unwrap_or_else(|| format!("--{key}"))
    }
}

impl Config {
    /// Checks the options and fills what depends on the machine (`hostname`).
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn resolve(
        options: &AgentOptions,
        origins: &Origins,
        hostname: &str,
    ) -> Result<Self, ConfigErrors> {
        let mut check = Check::new(origins);
        let node_name = check.node_name(options.node_name.as_deref(), hostname);
        let etcd = check.etcd(options);
        let policy = check.policy(&PolicyText {
            node_name: &node_name,
            node_labels: &options.node_labels,
            enforcement: Some(&options.policy_enforcement),
            audit_mode: Some(&options.policy_audit_mode),
            failsafe: &options.failsafe,
            cidr_match_mode: options.policy_cidr_match_mode.as_deref(),
            cluster_name: Some(&options.cluster_name),
            named_ports: &options.named_ports,
            numbers_are_shared: etcd.is_some(),
        });
        let vlan_allow = check.vlans(&options.vlan_allow);
        let settings = check.settings(options, &policy.failsafe, vlan_allow);
        let config = Self {
            policy,
            manifests: check.paths("manifests", &options.manifests),
            kubernetes: check.kubernetes(options),
            etcd,
            devices: filled(&options.device),
            state_dir: check.path("state-dir", &options.state_dir),
            bpffs: check.path("bpffs", &options.bpffs),
            socket: check.path("socket", &options.socket),
            metrics_addr: check.metrics_addr(options.metrics_addr.as_deref()),
            metrics_prefix: check.prefix(&options.metrics_prefix),
            seal_confirmed: check.flag("yes-seal-this-node", &options.yes_seal_this_node),
            control_mark: check.mark(&options.control_mark),
            conntrack: ConntrackLimits {
                entries_max: check.number("ct-entries-max", &options.ct_entries_max, 1_024),
            },
            settings,
            audit_interval: Duration::from_secs(
                check
                    .number("audit-interval", &options.audit_interval, 1)
                    .into(),
            ),
            log_format: check.choice(
                "log-format",
                &options.log_format,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                LogFormat::Text,
            ),
        };
        check.refuse_seal(&config);
        check.done(config)
    }
}

/// What passes while tail calls miss: what the operator named, else the way in. (The
/// way out to the sources is in the datapath's list of the agent's own traffic.)
fn degraded_list(failsafe: &[FailsafeEntry]) -> Vec<FailsafeEntry> {
    const SSH: FailsafeEntry = FailsafeEntry {
        direction: palisade_abi::direction::INGRESS,
        proto: palisade_abi::proto::TCP,
        port: 22,
        peer: None,
    };
    if failsafe.is_empty() {
        vec![SSH]
    } else {
        failsafe.to_vec()
    }
}

/// Values of a list without the empty ones.
pub(super) fn filled(values: &[String]) -> Vec<String> {
    values
        .iter()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

/// Collects errors while values are read.
pub(super) struct Check<'a> {
    origins: &'a Origins,
    errors: Vec<ConfigError>,
}

impl<'a> Check<'a> {
    pub(super) fn new(origins: &'a Origins) -> Self {
        Self {
            origins,
            errors: Vec::new(),
        }
    }
}

impl Check<'_> {
    /// What was read, if nothing was wrong.
    pub(super) fn done<T>(self, read: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(read)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    pub(super) fn fail(&mut self, key: &str, value: &str, reason: &str) {
        let place = self.origins.of(key);
        self.errors.push(ConfigError::new(&place, value, reason));
    }

    fn mark(&mut self, text: &str) -> ControlMark {
        parse_mark(text).unwrap_or_else(|reason| {
            self.fail("control-mark", text, reason);
            ControlMark::DEFAULT
        })
    }

    /// None: the Kubernetes API is no source.
    fn kubernetes(&mut self, options: &AgentOptions) -> Option<KubernetesAccess> {
        let is_source = self.flag("kubernetes", &options.kubernetes);
        let lease = self.number(
            "kube-status-lease",
            &options.kube_status_lease,
            KUBERNETES_LEASE_MIN,
        );
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (file, context) = (given(&options.kubeconfig), given(&options.kube_context));
        if is_source {
            let kubeconfig = file.map(PathBuf::from);
            return Some(KubernetesAccess {
                kubeconfig,
                context,
                status_lease: Duration::from_secs(lease.into()),
            });
        }
        for (key, value) in [("kubeconfig", file), ("kube-context", context)] {
            if let Some(value) = value {
                self.fail(key, &value, "of no use without --kubernetes");
            }
        }
        None
    }

    pub(super) fn flag(&mut self, key: &str, value: &str) -> bool {
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" | "enabled" => true,
            "false" | "no" | "off" | "0" | "disabled" | "" => false,
            _ => {
                self.fail(key, value, "expected true or false");
                false
            }
        }
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return *choice;
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.fail(key, value, &format!("expected one of {}", names.join(", ")));
        default
    }

    pub(super) fn number(&mut self, key: &str, value: &str, min: u32) -> u32 {
        match value.parse::<u32>() {
            Ok(number) if number >= min => number,
            Ok(_) => {
                self.fail(key, value, &format!("must be at least {min}"));
                min
            }
            Err(_) => {
                self.fail(key, value, "expected a whole number");
                min
            }
        }
    }

    fn path(&mut self, key: &str, value: &str) -> PathBuf {
        if value.is_empty() {
            self.fail(key, value, "a path is needed");
        }
        PathBuf::from(value)
    }

    fn paths(&mut self, key: &str, values: &[String]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for value in filled(values) {
            // Files are known by their whole path, whatever the agent's directory.
            match std::path::absolute(&value) {
                Ok(path) => paths.push(path),
                Err(error) => self.fail(key, &value, &error.to_string()),
            }
        }
        paths
    }

    fn node_name(&mut self, value: Option<&str>, hostname: &str) -> String {
        let name = value.filter(|name| !name.is_empty()).unwrap_or(hostname);
        if name.is_empty() {
            self.fail(
                "node-name",
                "",
                "the machine has no host name; give the node a name",
            );
        }
        name.to_owned()
    }

    fn metrics_addr(&mut self, value: Option<&str>) -> Option<SocketAddr> {
        let text = value.filter(|text| !text.is_empty())?;
        let address = SocketAddr::from_str(text);
        if address.is_err() {
            self.fail(
                "metrics-addr",
                text,
                "expected IP:PORT, for instance 127.0.0.1:9962 or [::1]:9962",
            );
        }
        address.ok()
    }

    fn prefix(&mut self, value: &str) -> String {
        let fine = value.chars().enumerate().all(|(position, c)| {
            c == '_' || c.is_ascii_alphabetic() || (position > 0 && c.is_ascii_digit())
        });
        if !fine || (!value.is_empty() && !value.ends_with('_')) {
            self.fail(
                "metrics-prefix",
                value,
                "expected letters, digits and underscores, ending with an underscore",
            );
        }
        value.to_owned()
    }

    fn vlans(&mut self, values: &[String]) -> Vec<u16> {
        let mut ids = Vec::new();
        for text in filled(values) {
            match text.parse::<u16>() {
                Ok(id) if id < 4_095 => ids.push(id),
                Ok(_) | Err(_) => {
                    self.fail(
                        "vlan-allow",
                        &text,
                        "expected a VLAN id (1 to 4094, 0 = all)",
                    );
                }
            }
        }
        ids
    }

    fn settings(
        &mut self,
        options: &AgentOptions,
        failsafe: &[FailsafeEntry],
        vlan_allow: Vec<u16>,
    ) -> DatapathSettings {
        DatapathSettings {
            tcp_established_s: self.number("ct-tcp-established", &options.ct_tcp_established, 1),
            tcp_syn_s: self.number("ct-tcp-syn", &options.ct_tcp_syn, 1),
            tcp_close_s: self.number("ct-tcp-close", &options.ct_tcp_close, 1),
            other_s: self.number("ct-other", &options.ct_other, 1),
            drop_other_ethertypes: self.choice(
                "other-ethertypes",
                &options.other_ethertypes,
                &[("pass", false), ("drop", true)],
                false,
            ),
            missed_tail_call_passes: self.choice(
                "missed-tail-call",
                &options.missed_tail_call,
                &[("drop", false), ("pass", true)],
                false,
            ),
            failsafe: degraded_list(failsafe),
            vlan_allow,
        }
    }

    /// `always` without any way in seals the node; it must be asked for twice.
    /// With manifests, the daemon looks whether a policy selects the node.
    fn refuse_seal(&mut self, config: &Config) {
        let always = config.policy.enforcement == EnforcementMode::Always;
        if always
            && config.policy.failsafe.is_empty()
            && !config.seal_confirmed
            && config.manifests.is_empty()
        {
            self.fail(
                "policy-enforcement",
                "always",
                "without any policy this seals the node; keep a way in with \
                 --failsafe tcp/22@CIDR, or confirm with --yes-seal-this-node",
            );
        }
    }
}
