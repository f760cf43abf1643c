//! Identities and addresses.

use serde::{Deserialize, Serialize};

/// An identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub id: u32,
    /// `source:key=value` strings.
    pub labels: Vec<String>,
}

/// Who is behind a prefix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpEntry {
    /// Prefix.
    pub ip: String,
    pub identity: u32,
    pub labels: Vec<String>,
    /// Who says so: `agent`, `node`, `policy`...
    pub source: String,
}
