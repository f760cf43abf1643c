//! An immutable state of the repository: all that a regeneration reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{PolicyOptions, Refusal, RuleCatalogue};
use crate::events::{ResourceKey, Revision};
use crate::identity::{IdentityNumber, IdentityTable, IpcacheEntry, LabelSet};

/// One revision of everything.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    pub revision: Revision,
    pub options: Arc<PolicyOptions>,
    /// `reserved:host` and all labels of the node.
    pub host_labels: Arc<LabelSet>,
    pub identities: Arc<IdentityTable>,
    pub ipcache4: Arc<BTreeMap<Ipv4Net, IpcacheEntry>>,
    pub ipcache6: Arc<BTreeMap<Ipv6Net, IpcacheEntry>>,
    /// What each rule number stands for.
    pub rules: Arc<RuleCatalogue>,
    /// Refused versions of resources, with their errors.
    pub refused: Arc<Vec<Refusal>>,
}

/// One line of `palisade policy selectors`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SelectorEntry {
    /// As written, normalised.
    pub selector: String,
    /// The policies that use it.
    pub users: Vec<ResourceKey>,
    /// The identities that it selects.
    pub identities: Vec<IdentityNumber>,
}

impl PolicySnapshot {
    /// Every peer selector in use, with what it selects.
    #[must_use]
    pub fn selectors(&self) -> Vec<SelectorEntry> {
        Vec::new()
    }
}
