//! The identity of each address: prefix -> identity, by source precedence.

use serde::{Deserialize, Serialize};

use super::{IdentityIndex, IdentityNumber};

/// Identity of one prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpcacheEntry {
    pub identity: IdentityNumber,
    pub index: IdentityIndex,
}
