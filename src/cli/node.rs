//! The node for which a command answers offline: the agent's options about
//! policy, as flags.

use super::CliError;
use crate::config::PolicyText;
use crate::policy::PolicyOptions;

/// The node as its agent would be configured. Nothing is read from the
/// environment: the answer is that of the flags.
#[derive(clap::Args, Debug)]
pub(super) struct NodeOptions {
    /// Offline: name of the node
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Offline: labels of the node, besides those of its Node object
    #[arg(long, value_name = "K=V,...", value_delimiter = ',')]
    node_labels: Vec<String>,
    /// Offline: default, always or never
    #[arg(long, value_name = "MODE")]
    policy_enforcement: Option<String>,
    /// Offline: as with the agent's --policy-audit-mode
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    policy_audit_mode: Option<String>,
    /// Offline: flows that always pass, [in:|out:]proto/port[@cidr],...
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    failsafe: Vec<String>,
    /// Offline: identities that CIDR rules match besides those of the outside: nodes
    #[arg(long, value_name = "MODE")]
    policy_cidr_match_mode: Option<String>,
    /// Offline: name of the cluster [default: default]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Offline: named ports of this host, NAME=PORT/PROTOCOL,...
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    named_ports: Vec<String>,
}

impl NodeOptions {
    /// What the repository of that node would know.
    ///
    /// # Errors
    /// Usage: every flag that is wrong.
    pub(super) fn policy_options(&self) -> Result<PolicyOptions, CliError> {
        let text = PolicyText {
            node_name: self.node_name.as_deref().unwrap_or_default(),
            node_labels: &self.node_labels,
            enforcement: self.policy_enforcement.as_deref(),
            audit_mode: self.policy_audit_mode.as_deref(),
            failsafe: &self.failsafe,
            cidr_match_mode: self.policy_cidr_match_mode.as_deref(),
            cluster_name: self.cluster_name.as_deref(),
            named_ports: &self.named_ports,
            numbers_are_shared: false,
        };
        text.resolve()
            .map_err(|errors| CliError::Usage(errors.to_string()))
    }

    /// A flag that was given, which means something offline only.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--node-name", self.node_name.is_some()),
            ("--node-labels", !self.node_labels.is_empty()),
            ("--policy-enforcement", self.policy_enforcement.is_some()),
            ("--policy-audit-mode", self.policy_audit_mode.is_some()),
            ("--failsafe", !self.failsafe.is_empty()),
            (
                "--policy-cidr-match-mode",
                self.policy_cidr_match_mode.is_some(),
            ),
            ("--cluster-name", self.cluster_name.is_some()),
            ("--named-ports", !self.named_ports.is_empty()),
        ];
        given
            .into_iter()
            .find_map(|(flag, given)| given.then_some(flag))
    }
}
