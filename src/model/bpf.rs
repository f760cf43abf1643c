//! What the kernel holds.

use serde::{Deserialize, Serialize};

/// A group of equal verdicts of one endpoint and direction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BpfPolicyEntry {
    /// `Allow`, `Deny`, `Audit`.
    pub policy: String,
    /// `Ingress` or `Egress`.
    pub direction: String,
    pub identity: u32,
    pub labels: Vec<String>,
    /// `22/TCP`, `ANY`, `8/ICMP`...
    pub port: String,
    pub rule: Option<RuleOfCell>,
}

/// Number and name of the deciding rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleOfCell {
    pub number: u32,
    pub name: String,
}

/// One flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BpfCtEntry {
    pub protocol: String,
    /// `IN` or `OUT`: who opened it.
    pub direction: String,
    pub source: String,
    pub destination: String,
    pub expires_s: u64,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub flags: Vec<String>,
    /// `allow`, `deny`, `audit`, `unjudged`.
    pub verdict: String,
    pub rule: Option<RuleOfCell>,
    pub identity: u32,
    pub epoch: u32,
}

/// One prefix of the kernel's ipcache.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BpfIpcacheEntry {
    pub prefix: String,
    /// In the current slot.
    pub identity: u32,
    pub labels: Vec<String>,
}

/// One counter by reason and direction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BpfCounter {
    pub reason: String,
    pub reason_code: u8,
    /// `INGRESS` or `EGRESS`.
    pub direction: String,
    pub packets: u64,
    pub bytes: u64,
}

/// One rule with its hits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BpfRule {
    pub number: u32,
    pub name: String,
    pub packets: u64,
    pub bytes: u64,
    /// `log.value` of the rule.
    pub log: Option<String>,
    /// `file:line` where it was read; None for a failsafe entry.
    pub origin: Option<String>,
}
