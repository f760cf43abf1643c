//! Identities and addresses.

use serde::{Deserialize, Serialize};

use crate::identity::{IdentityNumber, Reserved};
use crate::policy::PolicySnapshot;

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

impl Identity {
    /// All of a snapshot, by number.
    #[must_use]
    pub fn all(snapshot: &PolicySnapshot) -> Vec<Self> {
        let numbers = snapshot.identities.iter().map(|identity| identity.number);
        let mut identities: Vec<Self> = numbers
            .map(|number| Self {
                id: number.0,
                labels: labels_of(snapshot, number),
            })
            .collect();
        identities.sort_by_key(|identity| identity.id);
        identities
    }
}

/// The host carries the labels of its node besides those of its number.
#[must_use]
pub fn labels_of(snapshot: &PolicySnapshot, number: IdentityNumber) -> Vec<String> {
    if number == Reserved::Host.number() {
        return snapshot.host_labels.to_strings();
    }
    let identity = snapshot.identities.get(number);
    identity.map_or_else(Vec::new, |identity| identity.labels.to_strings())
}
