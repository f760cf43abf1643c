//! The live identities, by everything that they are asked for. Persistent:
//! a copy shares what does not change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::allocator::Cursors;
use super::{
    Allocated, DenseMap, IdentityIndex, IdentityKey, IdentityNumber, Label, LabelSet, Reserved,
};

/// A live identity, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Identity {
    pub number: IdentityNumber,
    pub index: IdentityIndex,
    pub labels: Arc<LabelSet>,
}

/// A live identity, for machines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveIdentity {
    pub key: IdentityKey,
    pub number: IdentityNumber,
    pub index: IdentityIndex,
}

/// Key of the labels that say which CIDR groups hold a prefix.
pub const CIDR_GROUP_KEY: &str = "io.cilium.policy.cidrgroupname";

/// What is known of the identity of a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfPrefix {
    pub index: IdentityIndex,
    /// Who lists the prefix: terms of selectors, and an address outside of the
    /// cluster that serves the Kubernetes API. Nobody lists what a record has
    /// brought until the policies are read again.
    pub users: u32,
}

/// All live identities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityTable {
    live: DenseMap<IdentityIndex, Arc<LiveIdentity>>,
    by_number: DenseMap<IdentityNumber, IdentityIndex>,
    /// Of CIDR identities.
    prefixes: OrdMap<IpNet, OfPrefix>,
    /// Of nodes and pods.
    keyed: OrdMap<IdentityKey, IdentityIndex>,
    /// Nodes and pods that are told apart by a prefix around them.
    placed: OrdSet<(IpNet, IdentityIndex)>,
    /// Nodes and pods by key and value of each label.
    by_label: OrdSet<(String, String, IdentityIndex)>,
    /// Whether a rule names 0.0.0.0/0, ::/0.
    all_listed: [bool; 2],
    /// Names of the groups in use that list a prefix.
    groups: OrdMap<IpNet, Arc<BTreeSet<String>>>,
    /// Addresses outside of the cluster that serve the Kubernetes API.
    apiservers: OrdSet<IpAddr>,
    host_labels: Arc<LabelSet>,
    /// Whether nodes carry the labels of the prefixes around them.
    nodes_have_prefixes: bool,
    /// Whether a cluster numbers pods: then no number of its range is ours to give.
    pub(super) numbers_are_shared: bool,
    pub(super) cursors: Cursors,
}

impl Default for IdentityTable {
    fn default() -> Self {
        Self::new(false, false)
    }
}

impl IdentityTable {
    /// The reserved identities.
    #[must_use]
    pub fn new(nodes_have_prefixes: bool, numbers_are_shared: bool) -> Self {
        let mut table = Self {
            live: DenseMap::default(),
            by_number: DenseMap::default(),
            prefixes: OrdMap::new(),
            keyed: OrdMap::new(),
            placed: OrdSet::new(),
            by_label: OrdSet::new(),
            all_listed: [false; 2],
            groups: OrdMap::new(),
            apiservers: OrdSet::new(),
            host_labels: Arc::new(Reserved::Host.labels()),
            nodes_have_prefixes,
            numbers_are_shared,
            cursors: Cursors::default(),
        };
        for reserved in Reserved::ALL {
            let key = match reserved {
                Reserved::WorldIpv4 => IdentityKey::Cidr(IpNet::V4(Ipv4Net::default())),
                Reserved::WorldIpv6 => IdentityKey::Cidr(IpNet::V6(Ipv6Net::default())),
                Reserved::Unknown
                | Reserved::Host
                | Reserved::World
                | Reserved::Unmanaged
                | Reserved::Health
                | Reserved::Init
                | Reserved::RemoteNode
                | Reserved::KubeApiserver
                | Reserved::Ingress => IdentityKey::Reserved(reserved),
            };
            let Allocated { number, index } = Allocated::reserved(reserved);
            table.insert(LiveIdentity { key, number, index }, 0);
        }
        table
    }

    /// `users`: who lists the prefix, if it is one.
    pub(super) fn insert(&mut self, identity: LiveIdentity, users: u32) {
        let index = identity.index;
        self.by_number.insert(identity.number, index);
        match &identity.key {
            IdentityKey::Reserved(_) => {}
            IdentityKey::Cidr(prefix) => {
                self.prefixes.insert(*prefix, OfPrefix { index, users });
            }
            key @ (IdentityKey::Node { labels, within }
            | IdentityKey::Workload { labels, within }) => {
                self.keyed.insert(key.clone(), index);
                self.placed.extend(within.map(|prefix| (prefix, index)));
                for label in labels.iter() {
                    let entry = (label.key.clone(), label.value.clone(), index);
                    self.by_label.insert(entry);
                }
            }
        }
        self.live.insert(index, Arc::new(identity));
    }

    /// Ends an identity.
    pub fn remove(&mut self, index: IdentityIndex) {
        let Some(identity) = self.live.remove(&index) else {
            return;
        };
        self.by_number.remove(&identity.number);
        match &identity.key {
            IdentityKey::Reserved(_) => {}
            IdentityKey::Cidr(prefix) => {
                self.prefixes.remove(prefix);
            }
            key @ (IdentityKey::Node { labels, within }
            | IdentityKey::Workload { labels, within }) => {
                self.keyed.remove(key);
                if let Some(prefix) = within {
                    self.placed.remove(&(*prefix, index));
                }
                for label in labels.iter() {
                    let entry = (label.key.clone(), label.value.clone(), index);
                    self.by_label.remove(&entry);
                }
            }
        }
    }

    /// The labels of this host.
    pub fn set_host_labels(&mut self, labels: Arc<LabelSet>) {
        self.host_labels = labels;
    }
    /// Whether a rule names all of a family.
    pub fn set_all_listed(&mut self, all: IpNet, listed: bool) {
        self.all_listed[usize::from(all.addr().is_ipv6())] = listed;
    }
    /// Whether an address outside of the cluster serves the Kubernetes API.
    pub fn set_apiserver(&mut self, address: IpAddr, serves: bool) {
        if serves {
            self.apiservers.insert(address);
        } else {
            self.apiservers.remove(&address);
        }
    }
    /// Whether a group in use lists a prefix.
    pub fn set_group(&mut self, prefix: IpNet, name: &str, lists: bool) {
        let mut names = self
            .groups
            .get(&prefix)
            .map(|names| BTreeSet::clone(names))
            .unwrap_or_default();
        if lists {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
        if names.is_empty() {
            self.groups.remove(&prefix);
        } else {
            self.groups.insert(prefix, Arc::new(names));
        }
    }

    /// All of them, by index.
    pub fn live(&self) -> impl Iterator<Item = &LiveIdentity> {
        self.live.values().map(|identity| &**identity)
    }
    /// The identity with an index.
    #[must_use]
    pub fn live_at(&self, index: IdentityIndex) -> Option<&LiveIdentity> {
        self.live.get(&index).map(|identity| &**identity)
    }
    /// The identity with a number.
    #[must_use]
    pub fn get_live(&self, number: IdentityNumber) -> Option<&LiveIdentity> {
        self.live_at(*self.by_number.get(&number)?)
    }
    /// The index of what a key stands for, if it is live.
    #[must_use]
    pub fn index_of(&self, key: &IdentityKey) -> Option<IdentityIndex> {
        match key {
            IdentityKey::Reserved(_) => key.fixed().map(|allocated| allocated.index),
            IdentityKey::Cidr(prefix) => self.of_prefix(prefix).map(|known| known.index),
            IdentityKey::Node { .. } | IdentityKey::Workload { .. } => self.keyed.get(key).copied(),
        }
    }

    /// What is known of a prefix that is an identity.
    #[must_use]
    pub fn of_prefix(&self, prefix: &IpNet) -> Option<OfPrefix> {
        self.prefixes.get(prefix).copied()
    }

    /// Notes how many list a prefix that is an identity.
    pub fn set_users(&mut self, prefix: &IpNet, users: u32) {
        if let Some(known) = self.prefixes.get_mut(prefix) {
            known.users = users;
        }
    }

    /// CIDR identities within a prefix. Prefixes sort by address, then length:
    /// those within stand between itself and the last address that it holds.
    pub fn within(&self, prefix: IpNet) -> impl Iterator<Item = IdentityIndex> {
        let last = IpNet::from(prefix.broadcast());
        let within = self.prefixes.range(prefix..=last);
        within.map(|(_, known)| known.index)
    }
    /// Nodes and pods that are told apart by a prefix within this one.
    pub fn placed_within(&self, prefix: IpNet) -> impl Iterator<Item = IdentityIndex> {
        let last = (IpNet::from(prefix.broadcast()), IdentityIndex(u32::MAX));
        self.placed
            .range((prefix, IdentityIndex(0))..=last)
            .map(|(_, index)| *index)
    }

    /// Who is within any of these prefixes, sorted: CIDR identities, nodes and
    /// pods that are told apart by a prefix.
    pub fn within_any(&self, prefixes: &[IpNet], into: &mut Vec<IdentityIndex>) {
        let mut around: Option<IpNet> = None;
        for prefix in prefixes {
            // Right behind a prefix stand those that it holds.
            if around.is_some_and(|around| around.contains(prefix)) {
                continue;
            }
            around = Some(*prefix);
            into.extend(self.within(*prefix));
            if !self.placed.is_empty() {
                into.extend(self.placed_within(*prefix));
            }
        }
    }
    /// Nodes and pods with a label.
    pub fn with_label(&self, key: &str, value: &str) -> impl Iterator<Item = IdentityIndex> {
        let first = (key.to_owned(), value.to_owned(), IdentityIndex(0));
        let last = (key.to_owned(), value.to_owned(), IdentityIndex(u32::MAX));
        self.by_label
            .range(first..=last)
            .map(|(_, _, index)| *index)
    }
    /// Nodes and pods with any label of a key.
    pub fn with_key(&self, key: &str) -> impl Iterator<Item = IdentityIndex> {
        let first = (key.to_owned(), String::new(), IdentityIndex(0));
        self.by_label
            .range(first..)
            .take_while(move |(found, _, _)| found == key)
            .map(|(_, _, index)| *index)
    }
    /// Pods with exactly these labels, wherever they are.
    pub fn workloads(&self, labels: &Arc<LabelSet>) -> impl Iterator<Item = IdentityIndex> {
        let first = IdentityKey::Workload {
            labels: Arc::clone(labels),
            within: None,
        };
        let labels = Arc::clone(labels);
        self.keyed
            .range(first..)
            .take_while(move |(key, _)| {
                matches!(key, IdentityKey::Workload { labels: found, .. } if *found == labels)
            })
            .map(|(_, index)| *index)
    }
    /// Addresses outside of the cluster that serve the Kubernetes API.
    pub fn apiservers(&self) -> impl Iterator<Item = IpAddr> {
        self.apiservers.iter().copied()
    }

    /// All of them, by index, with labels.
    pub fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.live().map(|live| self.identity(live))
    }
    /// One of them.
    #[must_use]
    pub fn get(&self, number: IdentityNumber) -> Option<Identity> {
        self.get_live(number).map(|live| self.identity(live))
    }
    /// How many are live, the reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }
    /// How many prefixes are identities, but for 0.0.0.0/0 and ::/0.
    #[must_use]
    pub fn cidr_len(&self) -> usize {
        self.prefixes.len().saturating_sub(2)
    }
    /// Never true: the reserved ones are always live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    fn identity(&self, live: &LiveIdentity) -> Identity {
        Identity {
            number: live.number,
            index: live.index,
            labels: self.labels(live),
        }
    }

    /// All labels of an identity. Those of prefixes are made when someone asks:
    /// they are long, and few of 100,000 are ever read.
    #[must_use]
    pub fn labels(&self, live: &LiveIdentity) -> Arc<LabelSet> {
        let prefix = match &live.key {
            IdentityKey::Cidr(prefix) => *prefix,
            IdentityKey::Node {
                within: Some(prefix),
                ..
            } if self.nodes_have_prefixes => *prefix,
            IdentityKey::Reserved(_) | IdentityKey::Node { .. } | IdentityKey::Workload { .. } => {
                return self.own_labels(live);
            }
        };
        let mut labels = LabelSet::clone(&self.own_labels(live));
        let family = usize::from(prefix.addr().is_ipv6());
        for around in ancestors(prefix) {
            let listed = self.prefixes.contains_key(&around);
            if listed && (around.prefix_len() > 0 || self.all_listed[family]) {
                labels.insert(Label::new("cidr", around.to_string(), ""));
            }
            for name in self
                .groups
                .get(&around)
                .into_iter()
                .flat_map(|names| &**names)
            {
                let key = format!("{CIDR_GROUP_KEY}/{name}");
                labels.insert(Label::new("cidrgroup", key, ""));
            }
        }
        Arc::new(labels)
    }

    /// The labels of an identity without those that the listed prefixes and the
    /// groups around it give.
    #[must_use]
    pub fn own_labels(&self, live: &LiveIdentity) -> Arc<LabelSet> {
        match &live.key {
            IdentityKey::Reserved(Reserved::Host) => Arc::clone(&self.host_labels),
            IdentityKey::Reserved(reserved) => reserved.shared_labels(),
            IdentityKey::Cidr(prefix) => {
                let reserved = match live.number.0 {
                    number if number == Reserved::WorldIpv4 as u32 => Reserved::WorldIpv4,
                    number if number == Reserved::WorldIpv6 as u32 => Reserved::WorldIpv6,
                    _ => Reserved::World,
                };
                let labels = reserved.shared_labels();
                let single = prefix.prefix_len() == prefix.max_prefix_len();
                if !single || !self.apiservers.contains(&prefix.addr()) {
                    return labels;
                }
                let mut labels = LabelSet::clone(&labels);
                labels.insert(Label::reserved(Reserved::KubeApiserver.name()));
                Arc::new(labels)
            }
            IdentityKey::Node { labels, .. } | IdentityKey::Workload { labels, .. } => {
                Arc::clone(labels)
            }
        }
    }
}

/// All prefixes that hold `prefix`, itself too; the widest first.
pub fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    (0..=prefix.prefix_len())
        .filter_map(move |length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()))
}
