//! The options about policy: those of the agent, and the same ones of commands
//! that answer offline as an agent would.

use std::collections::BTreeMap;

use super::resolve::{Check, filled};
use super::{ConfigErrors, Origins, parse_failsafe};
use crate::limits::{CLUSTER_NAME_BYTES_MAX, NAMED_PORTS_MAX};
use crate::policy::language::{NamedPort, PortProtocol, is_service_name};
use crate::policy::{EnforcementMode, FailsafeEntry, PolicyOptions};

/// The options about policy, as text. None and empty: not given.
#[derive(Clone, Debug, Default)]
pub struct PolicyText<'a> {
    pub node_name: &'a str,
    pub node_labels: &'a [String],
    pub enforcement: Option<&'a str>,
    pub audit_mode: Option<&'a str>,
    pub failsafe: &'a [String],
    pub cidr_match_mode: Option<&'a str>,
    pub cluster_name: Option<&'a str>,
    pub named_ports: &'a [String],
    /// Whether etcd is a source.
    pub numbers_are_shared: bool,
}

impl PolicyText<'_> {
    /// Checks them.
    ///
    /// # Errors
    /// Everything that is wrong; the places are flags.
    pub fn resolve(&self) -> Result<PolicyOptions, ConfigErrors> {
        let origins = Origins::default();
        let mut check = Check::new(&origins);
        let options = check.policy(self);
        check.done(options)
    }
}

/// Why a named port is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseNamedPortError {
    #[error("expected NAME=PORT/PROTOCOL, for instance `ssh=22/tcp`")]
    Form,
    #[error(
        "`{0}` is not the name of a port: 1 to 15 letters, digits and single dashes, one letter \
         at least, no dash at the ends"
    )]
    Name(String),
    #[error("`{0}` is not a port (1 to 65535)")]
    Port(String),
    #[error("`{0}` is neither tcp, udp nor sctp")]
    Protocol(String),
}

/// Parses `NAME=PORT/PROTOCOL`.
///
/// # Errors
/// Names the part that is wrong.
pub fn parse_named_port(text: &str) -> Result<NamedPort, ParseNamedPortError> {
    use ParseNamedPortError as Error;
    let (name, rest) = text.split_once('=').ok_or(Error::Form)?;
    let (port, protocol) = rest.split_once('/').ok_or(Error::Form)?;
    if !is_service_name(name) {
        return Err(Error::Name(name.to_owned()));
    }
    let port = port.parse().ok().filter(|port| *port != 0);
    let bad_port = || Error::Port(rest.split('/').next().unwrap_or_default().to_owned());
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => PortProtocol::Sctp,
        _ => return Err(Error::Protocol(protocol.to_owned())),
    };
    Ok(NamedPort {
        name: name.to_ascii_lowercase(),
        protocol,
        port: port.ok_or_else(bad_port)?,
    })
}

/// Cilium's grammar: lower-case letters, digits and dashes, no dash at the ends.
fn is_cluster_name(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= CLUSTER_NAME_BYTES_MAX
        && !text.is_empty()
        && text.chars().all(fine)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl Check<'_> {
    pub(super) fn policy(&mut self, text: &PolicyText<'_>) -> PolicyOptions {
        PolicyOptions {
            node_name: text.node_name.to_owned(),
            node_labels: self.labels(text.node_labels),
            enforcement: self.choice(
                "policy-enforcement",
                text.enforcement.unwrap_or("default"),
                &[
                    ("default", EnforcementMode::Default),
                    ("always", EnforcementMode::Always),
                    ("never", EnforcementMode::Never),
                ],
                EnforcementMode::Default,
            ),
            audit: self.flag("policy-audit-mode", text.audit_mode.unwrap_or_default()),
            failsafe: self.failsafe(text.failsafe),
            cidr_match_nodes: self.cidr_match_mode(text.cidr_match_mode.unwrap_or_default()),
            cluster_name: self.cluster_name(text.cluster_name.unwrap_or_default()),
            named_ports: self.named_ports(text.named_ports),
            numbers_are_shared: text.numbers_are_shared,
        }
    }

    fn labels(&mut self, values: &[String]) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for text in filled(values) {
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            if key.is_empty() {
                self.fail("node-labels", &text, "expected key=value");
            } else {
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        labels
    }

    fn failsafe(&mut self, values: &[String]) -> Vec<FailsafeEntry> {
        let mut entries = Vec::new();
        for text in filled(values) {
            match parse_failsafe(&text) {
                Ok(entry) => entries.push(entry),
                Err(error) => self.fail("failsafe", &text, &error.to_string()),
            }
        }
        // The map holds the lists of two generations at a time.
        let max = palisade_abi::settings::FAILSAFE_MAX as usize / 2;
        let families = |entry: &FailsafeEntry| if entry.peer.is_some() { 1 } else { 2 };
        let needed: usize = entries.iter().map(families).sum();
        if needed > max {
            let reason = format!(
                "{needed} entries given, where one without a peer counts for both families; at \
                 most {max} fit"
            );
            self.fail("failsafe", "", &reason);
        }
        entries
    }

    fn cidr_match_mode(&mut self, value: &str) -> bool {
        match value {
            "" => false,
            "nodes" => true,
            "pods" => {
                let reason = "only nodes is known here; select pods with fromEndpoints";
                self.fail("policy-cidr-match-mode", value, reason);
                false
            }
            _ => {
                self.fail("policy-cidr-match-mode", value, "expected nodes");
                false
            }
        }
    }

    fn cluster_name(&mut self, value: &str) -> String {
        if value.is_empty() {
            return PolicyOptions::CLUSTER_NAME.to_owned();
        }
        if !is_cluster_name(value) {
            let reason = format!(
                "expected at most {CLUSTER_NAME_BYTES_MAX} lower-case letters, digits and dashes, \
                 no dash at the ends"
            );
            self.fail("cluster-name", value, &reason);
        }
        value.to_owned()
    }

    fn named_ports(&mut self, values: &[String]) -> Vec<NamedPort> {
        let mut ports: BTreeMap<(String, PortProtocol), NamedPort> = BTreeMap::new();
        for text in filled(values) {
            match parse_named_port(&text) {
                Ok(named) => {
                    let key = (named.name.clone(), named.protocol);
                    let old = ports.insert(key, named.clone());
                    if let Some(old) = old.filter(|old| *old != named) {
                        let reason = format!("the same name is given for port {} too", old.port);
                        self.fail("named-ports", &text, &reason);
                    }
                }
                Err(error) => self.fail("named-ports", &text, &error.to_string()),
            }
        }
        if ports.len() > NAMED_PORTS_MAX {
            let reason = format!("{} given, at most {NAMED_PORTS_MAX} fit", ports.len());
            self.fail("named-ports", "", &reason);
        }
        ports.into_values().collect()
    }
}
