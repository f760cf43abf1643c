//! Events of the monitor: one JSON object per event.

use serde::{Deserialize, Serialize};

use super::RuleName;

/// Kinds of events, as `-t` takes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Drop,
    PolicyVerdict,
    Trace,
    Agent,
}

impl EventKind {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::PolicyVerdict => "policy-verdict",
            Self::Trace => "trace",
            Self::Agent => "agent",
        }
    }
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Drop, Self::PolicyVerdict, Self::Trace, Self::Agent];
}

/// What a reader of the monitor gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum MonitorEvent {
    /// A packet was dropped.
    Drop(Decision),
    /// Policy decided about a new flow (allow, audit).
    PolicyVerdict(Decision),
    /// Something the agent did.
    Agent(AgentNote),
    /// Events that were lost before this one, and why.
    Lost { count: u64, cause: String },
}

/// One side of a packet.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    pub ip: Option<std::net::IpAddr>,
    /// None for protocols without ports.
    pub port: Option<u16>,
    pub identity: u32,
    pub labels: Vec<String>,
}

/// A decision about one packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `denied`, `allowed` or `audited`; `dropped` where no policy decided.
    pub verdict: String,
    /// For `audited`: why it would have been dropped.
    pub reason: String,
    pub reason_code: u8,
    /// `ingress` or `egress`.
    pub direction: String,
    pub endpoint: u16,
    pub source: Peer,
    pub destination: Peer,
    /// `tcp`, `udp`... or the number.
    pub protocol: String,
    /// TCP flags or ICMP type and code, in words.
    pub detail: String,
    /// The rule that decided.
    pub rule: Option<RuleName>,
    /// `log.value` of that rule.
    pub log: Option<String>,
    /// For a default deny: the policies that made the direction default-deny;
    /// else the policy of the rule.
    pub policies: Vec<String>,
    pub device: String,
    pub length_bytes: u32,
    /// A running flow, judged again after a change of policy.
    pub rejudged: bool,
    pub fragment: bool,
    pub generation: u32,
    pub revision: u64,
}

/// Something the agent did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentNote {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `policy-add`, `commit`...
    pub event: String,
    pub subject: String,
    pub revision: u64,
    pub message: String,
}
