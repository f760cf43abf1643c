//! The answer of a comparison; its JSON is a contract.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything that changes for packets.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyDiff {
    pub enforcement: Vec<EnforcementChange>,
    pub changes: Vec<VerdictChange>,
    /// Why the comparison ended before everything was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

/// A direction that begins or ceases to be enforced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnforcementChange {
    /// `ingress` or `egress`.
    pub direction: String,
    pub before: DirectionState,
    pub after: DirectionState,
}

/// Whether a direction is enforced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectionState {
    pub enforced: bool,
    /// The policies that make it default-deny.
    pub enforcing: Vec<String>,
    /// The policies in audit that would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auditing: Vec<String>,
}

/// Packets whose verdict changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct VerdictChange {
    /// `ingress` or `egress`.
    pub direction: String,
    pub before: Decision,
    pub after: Decision,
    /// `tcp/443`, `udp/8000-8100`, `icmp/8`, `gre`, `tcp` for all its ports,
    /// `any` for every protocol.
    pub packets: Vec<String>,
    pub peers: Vec<PeerSet>,
}

/// One side's word on packets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// `allowed`, `denied` or `audited`.
    pub verdict: String,
    /// The rule that decides; None where none does.
    pub rule: Option<String>,
}

/// Peers of one kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PeerSet {
    /// `world`, `host`, `remote-node`, `workload`; `pod then world`... where the
    /// sides do not agree.
    pub kind: String,
    /// Prefixes of the world, addresses of all others.
    pub prefixes: Vec<IpNet>,
    /// What lies in the prefixes and is not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<IpNet>,
    /// Labels of nodes and workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl PeerSet {
    /// Whether the set holds an address of its kind.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
            && !self.except.iter().any(|prefix| prefix.contains(&address))
    }
}

impl std::fmt::Display for PeerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const TOLD_MAX: usize = 8;
        let list = |prefixes: &[IpNet]| {
            let mut told: Vec<String> = prefixes.iter().take(TOLD_MAX).map(short).collect();
            if prefixes.len() > TOLD_MAX {
                told.push(format!("{} more", prefixes.len() - TOLD_MAX));
            }
            told.join(", ")
        };
        f.write_str(&list(&self.prefixes))?;
        if !self.except.is_empty() {
            write!(f, " except {}", list(&self.except))?;
        }
        write!(f, " ({}", self.kind)?;
        for label in &self.labels {
            write!(f, " {label}")?;
        }
        f.write_str(")")
    }
}

/// An address without its whole length.
fn short(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

impl std::fmt::Display for VerdictChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.direction.as_str() {
            "egress" => "to",
            _ => "from",
        };
        let peers: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{}  {} -> {}  {}  {side} {}",
            self.direction,
            self.before.verdict,
            self.after.verdict,
            self.packets.join(", "),
            peers.join(", ")
        )?;
        if let Some(rule) = &self.after.rule {
            write!(f, "  by {rule}")?;
        }
        if let Some(rule) = &self.before.rule {
            write!(f, "  was {rule}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for EnforcementChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |state: &DirectionState| {
            let mut words = if state.enforced {
                "enforced".to_owned()
            } else {
                "not enforced".to_owned()
            };
            if !state.enforcing.is_empty() {
                words.push_str(&format!(", default-deny by {}", state.enforcing.join(", ")));
            }
            if !state.auditing.is_empty() {
                words.push_str(&format!(", in audit {}", state.auditing.join(", ")));
            }
            words
        };
        let (before, after) = (words(&self.before), words(&self.after));
        write!(f, "{}  {before} -> {after}", self.direction)
    }
}
