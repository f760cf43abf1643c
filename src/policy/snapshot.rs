//! An immutable state of the repository: all that a regeneration reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::language::{Peer, Peers};
use super::repository::selects_host;
use super::resolve::positions;
use super::{PolicyOptions, Refusal, RuleCatalogue, Selections, StoredObject, StoredPolicy};
use crate::events::{ResourceKey, Revision};
use crate::identity::{IdentityNumber, IdentityTable, IpcacheEntry, LabelSet};

/// One revision of everything.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    pub revision: Revision,
    pub options: Arc<PolicyOptions>,
    /// `reserved:host` and all labels of the node.
    pub host_labels: Arc<LabelSet>,
    /// The valid policies, whether they select this node or not.
    pub policies: OrdMap<ResourceKey, Arc<StoredPolicy>>,
    /// The valid context objects, by key.
    pub objects: OrdMap<ResourceKey, Arc<StoredObject>>,
    /// The node's own addresses, sorted.
    pub local_addresses: Arc<[IpAddr]>,
    pub identities: Arc<IdentityTable>,
    pub selections: Selections,
    pub ipcache4: OrdMap<Ipv4Net, IpcacheEntry>,
    pub ipcache6: OrdMap<Ipv6Net, IpcacheEntry>,
    /// What each rule number stands for.
    pub rules: RuleCatalogue,
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
        let mut users: BTreeMap<&Peer, Vec<&ResourceKey>> = BTreeMap::new();
        for (key, stored) in self.policies.iter() {
            for rule in &stored.policy.rules {
                if !selects_host(rule, &self.host_labels) {
                    continue;
                }
                for item in &rule.items {
                    let Peers::Select(peers) = &item.peers else {
                        continue;
                    };
                    for peer in peers {
                        let users = users.entry(peer).or_default();
                        if users.last() != Some(&key) {
                            users.push(key);
                        }
                    }
                }
            }
        }
        users
            .into_iter()
            .map(|(peer, users)| SelectorEntry {
                selector: peer.to_string(),
                users: users.into_iter().cloned().collect(),
                identities: self.selected(peer),
            })
            .collect()
    }

    fn selected(&self, peer: &Peer) -> Vec<IdentityNumber> {
        let peers = Peers::Select(vec![peer.clone()]);
        let live = self.identities.live();
        let mut numbers: Vec<IdentityNumber> = positions(&self.identities, &peers)
            .into_iter()
            .flat_map(|range| &live[range])
            .map(|identity| identity.number)
            .collect();
        numbers.sort();
        numbers
    }
}
