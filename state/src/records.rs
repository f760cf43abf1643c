//! Typed records, as they are on the disk. Plain data.

use serde::{Deserialize, Serialize};

/// What is wanted of one endpoint, over restarts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    pub id: u16,
    /// `host`.
    pub kind: String,
    pub identity: u32,
    /// `source:key=value`.
    pub labels: Vec<String>,
    /// Revision that was wanted last.
    pub desired: u64,
}

/// An audit option: set by somebody, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditFlag {
    #[default]
    Inherited,
    Enabled,
    Disabled,
}

/// Audit options. They last, so that no restart begins to enforce by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AuditRecord {
    pub agent: AuditFlag,
    /// By endpoint id.
    pub endpoints: std::collections::BTreeMap<u16, AuditFlag>,
}

/// One generation of the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GenerationRecord {
    pub generation: u32,
    pub revision: u64,
    /// Whether its verdicts are those of an endpoint in audit mode; None in
    /// records of older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<bool>,
    /// Tells it from another generation of the same numbers; None in records of
    /// older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u32>,
}

/// The last generations: what was about to be committed, and what is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GenerationsRecord {
    /// Staged and perhaps committed; None once `realized` covers it.
    pub staged: Option<GenerationRecord>,
    pub realized: Option<GenerationRecord>,
    /// Decision epoch of the last commit.
    pub epoch: u32,
}

/// The boot of the machine that the records speak of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BootRecord {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// Names this store, so that a copied or swapped directory is noticed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoreIdentity {
    pub id: String,
}
