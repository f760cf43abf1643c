//! An immutable state of the repository: all that a regeneration reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::repository::Owner;
use super::selections::{EVERYONE, names_everyone, selectors_of};
use super::{
    PolicyOptions, Refusal, RuleCatalogue, Selections, Selector, SelectorId, StoredObject,
    StoredPolicy,
};
use crate::events::{ResourceKey, Revision};
use crate::identity::{
    IdentityNumber, IdentityTable, IpcacheEntry, IpcacheSource, LabelSet, Reserved,
};

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
    /// Who has each address that something is known of.
    pub(super) owners: OrdMap<IpAddr, Arc<Owner>>,
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
    /// Every selector in use, with what it selects.
    #[must_use]
    pub fn selectors(&self) -> Vec<SelectorEntry> {
        let mut users: BTreeMap<Selector, Vec<ResourceKey>> = BTreeMap::new();
        for (key, stored) in self
            .policies
            .iter()
            .filter(|(_, stored)| stored.selects_host)
        {
            for selector in selectors_of(&stored.policy, &self.host_labels) {
                users.entry(selector).or_default().push(key.clone());
            }
            if names_everyone(&stored.policy, &self.host_labels) {
                let everyone = users.entry(Selector::Peer(EVERYONE)).or_default();
                everyone.push(key.clone());
            }
        }
        let mut selected: BTreeMap<SelectorId, Vec<IdentityNumber>> = BTreeMap::new();
        for (index, signature) in self.selections.by_identity.iter() {
            let Some(identity) = self.identities.live_at(index) else {
                continue;
            };
            for id in signature.iter() {
                selected.entry(*id).or_default().push(identity.number);
            }
        }
        let all: BTreeMap<Selector, SelectorId> = self.selections.ids.iter().collect();
        let mut whom: BTreeMap<Selector, Vec<IdentityNumber>> = all
            .into_iter()
            .map(|(selector, id)| (selector, selected.remove(&id).unwrap_or_default()))
            .collect();
        let everyone = Selector::Peer(EVERYONE);
        if users.contains_key(&everyone) {
            let live = self.identities.live();
            whom.insert(everyone, live.map(|identity| identity.number).collect());
        }
        let entry = |(selector, mut identities): (Selector, Vec<IdentityNumber>)| {
            identities.sort();
            SelectorEntry {
                selector: selector.to_string(),
                users: users.remove(&selector).unwrap_or_default(),
                identities,
            }
        };
        whom.into_iter().map(entry).collect()
    }

    /// Who gives a prefix its identity.
    #[must_use]
    pub fn ipcache_source(&self, prefix: IpNet) -> IpcacheSource {
        let single = prefix.prefix_len() == prefix.max_prefix_len();
        let owner = single.then(|| self.owners.get(&prefix.addr())).flatten();
        let world = Reserved::World.number();
        let is_world = |identity: Option<IdentityNumber>| identity == Some(world);
        match (owner, prefix) {
            (Some(owner), _) => owner.source,
            (None, IpNet::V4(net)) if is_world(self.ipcache4.get(&net).map(|e| e.identity)) => {
                IpcacheSource::Unspec
            }
            (None, IpNet::V6(net)) if is_world(self.ipcache6.get(&net).map(|e| e.identity)) => {
                IpcacheSource::Unspec
            }
            (None, IpNet::V4(_) | IpNet::V6(_)) => IpcacheSource::Generated,
        }
    }
}
