//! What the objects of a snapshot say about addresses, gathered by reading all
//! of them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::labels::{matches, of_source};
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{Label, LabelSet};
use crate::policy::language::{
    CidrGroups, NamedPort, Peer, Peers, Ports, Rule, RuleSubject, ServiceBy, ServiceReference,
};
use crate::policy::objects::{CidrGroupObject, EndpointSliceObject, Object, ServiceObject};
use crate::policy::{Direction, PolicySnapshot};

/// What is known of addresses and prefixes.
#[derive(Debug)]
pub struct Book<'a> {
    pub(super) snapshot: &'a PolicySnapshot,
    /// Objects by the addresses that they claim.
    pub(super) claims: BTreeMap<IpAddr, Vec<(&'a ResourceKey, &'a Object)>>,
    cidr_groups: Vec<(&'a str, &'a CidrGroupObject)>,
    services: Vec<(&'a ResourceKey, &'a ServiceObject)>,
    slices: Vec<(&'a ResourceKey, &'a EndpointSliceObject)>,
    /// Named ports of pods by their labels, once someone asked.
    pub(super) named_ports: OnceCell<BTreeMap<LabelSet, Vec<&'a NamedPort>>>,
    /// Where the Kubernetes API is served.
    pub(super) apiservers: BTreeSet<IpAddr>,
    /// Every prefix that a rule in use or a failsafe entry names.
    pub(super) listed: BTreeSet<IpNet>,
    /// The CIDR groups that rules in use name.
    pub(super) groups: BTreeMap<&'a str, &'a CidrGroupObject>,
    /// Whether a rule in use tells nodes apart by their labels.
    pub(super) node_labels: bool,
    /// Whether this host serves the Kubernetes API.
    pub(super) host_is_apiserver: bool,
    pub(super) host_labels: LabelSet,
    /// The rules that select the host.
    pub(super) rules: Vec<RuleInUse<'a>>,
}

/// A rule that selects the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleInUse<'a> {
    pub(super) key: &'a ResourceKey,
    pub(super) rule: &'a Rule,
    /// Of a policy in audit.
    pub(super) audited: bool,
}

impl<'a> Book<'a> {
    /// Reads everything that a snapshot holds.
    #[must_use]
    pub fn new(snapshot: &'a PolicySnapshot) -> Self {
        let mut book = Self {
            snapshot,
            claims: BTreeMap::new(),
            cidr_groups: Vec::new(),
            services: Vec::new(),
            slices: Vec::new(),
            named_ports: OnceCell::new(),
            apiservers: BTreeSet::new(),
            listed: BTreeSet::new(),
            groups: BTreeMap::new(),
            node_labels: false,
            host_is_apiserver: false,
            host_labels: LabelSet::clone(&snapshot.host_labels),
            rules: Vec::new(),
        };
        for (key, stored) in &snapshot.objects {
            for address in addresses(&stored.object) {
                let claims = book.claims.entry(*address).or_default();
                claims.push((key, &stored.object));
            }
            match &stored.object {
                Object::CidrGroup(group) => book.cidr_groups.push((&key.name, group)),
                Object::Service(service) => book.services.push((key, service)),
                Object::EndpointSlice(slice) => book.slices.push((key, slice)),
                _ => {}
            }
        }
        for (key, slice) in &book.slices {
            if key.namespace.as_deref() == Some("default")
                && slice.service.as_deref() == Some("kubernetes")
            {
                book.apiservers.extend(&slice.addresses);
            }
        }
        book.host_is_apiserver = book
            .apiservers
            .iter()
            .any(|address| book.who_claims(*address).is_host());
        if book.host_is_apiserver {
            book.host_labels.insert(Label::reserved("kube-apiserver"));
        }
        book.read_rules();
        for address in book.apiservers.clone() {
            if book.who_claims(address).is_outside() {
                book.listed.insert(address.into());
            }
        }
        let failsafe = snapshot.options.failsafe.iter();
        book.listed.extend(
            failsafe
                .filter_map(|entry| entry.peer)
                .map(|peer| peer.trunc()),
        );
        book
    }

    /// Finds the rules in use, and what they name.
    fn read_rules(&mut self) {
        for (key, stored) in &self.snapshot.policies {
            for rule in &stored.policy.rules {
                let RuleSubject::Node(selector) = &rule.subject else {
                    continue;
                };
                if !matches(selector, &self.host_labels) {
                    continue;
                }
                self.rules.push(RuleInUse {
                    key,
                    rule,
                    audited: stored.policy.audit,
                });
                for item in &rule.items {
                    if let Peers::Select(peers) = &item.peers {
                        peers.iter().for_each(|peer| self.read_peer(peer));
                    }
                }
            }
        }
    }

    fn read_peer(&mut self, peer: &'a Peer) {
        match peer {
            Peer::Entity(entity) => self.listed.extend(entity.prefix()),
            Peer::Cidr { cidr, except } => {
                self.listed.insert(*cidr);
                self.listed.extend(except);
            }
            Peer::CidrGroup { groups, except } => {
                self.listed.extend(except);
                for (name, group) in self.groups_of(groups) {
                    self.listed.extend(&group.cidrs);
                    self.groups.insert(name, group);
                }
            }
            Peer::Endpoints(selector) => {
                let mut sources = selector
                    .requirements
                    .iter()
                    .map(|one| one.source.as_deref());
                self.node_labels |= sources.any(|source| source == Some("node"));
            }
            Peer::Nodes(_) => self.node_labels = true,
            Peer::Services(reference) => {
                for (key, service) in self.services_of(reference) {
                    if service.selector.is_empty() {
                        let addresses = self.slice_addresses(key);
                        self.listed.extend(addresses.into_iter().map(IpNet::from));
                    }
                }
            }
        }
    }

    /// The CIDR groups that a peer means, by name.
    pub(super) fn groups_of(&self, groups: &CidrGroups) -> Vec<(&'a str, &'a CidrGroupObject)> {
        let mut found = Vec::new();
        for (key, group) in self.cidr_groups.iter().copied() {
            let meant = match groups {
                CidrGroups::Named(name) => name == key,
                CidrGroups::Labelled(selector) => {
                    matches(selector, &of_source("k8s", &group.labels))
                }
            };
            if meant {
                found.push((key, group));
            }
        }
        found
    }

    /// The services that a peer means.
    pub(super) fn services_of(
        &self,
        reference: &ServiceReference,
    ) -> Vec<(&'a ResourceKey, &'a ServiceObject)> {
        let mut found = Vec::new();
        for (key, service) in self.services.iter().copied() {
            if reference.namespace.is_some() && reference.namespace != key.namespace {
                continue;
            }
            let meant = match &reference.by {
                ServiceBy::Name(name) => *name == key.name,
                ServiceBy::Labels(selector) => {
                    matches(selector, &of_source("k8s", &service.labels))
                }
            };
            if meant {
                found.push((key, service));
            }
        }
        found
    }

    /// The addresses behind a service, by its EndpointSlices.
    pub(super) fn slice_addresses(&self, service: &ResourceKey) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (key, slice) in &self.slices {
            if key.namespace == service.namespace && slice.service.as_ref() == Some(&service.name) {
                found.extend(&slice.addresses);
            }
        }
        found
    }

    /// An object of a kind without namespace.
    pub(super) fn object(&self, kind: ResourceKind, name: &str) -> Option<&'a Object> {
        let key = ResourceKey {
            kind,
            namespace: None,
            name: name.to_owned(),
        };
        Some(&self.snapshot.objects.get(&key)?.object)
    }

    /// Every address that an object claims or the host has.
    #[must_use]
    pub fn known_addresses(&self) -> BTreeSet<IpAddr> {
        let mut known: BTreeSet<IpAddr> = self.claims.keys().copied().collect();
        known.extend(self.snapshot.local_addresses.iter());
        known
    }

    /// The ports of every item of a direction.
    pub fn ports_in_use(&self, direction: Direction) -> impl Iterator<Item = &'a Ports> {
        let items = self.rules.iter().flat_map(|in_use| &in_use.rule.items);
        items
            .filter(move |item| item.section.direction() == Some(direction))
            .map(|item| &item.ports)
    }

    /// Every named port that an item of a direction may mean.
    #[must_use]
    pub fn all_named_ports(&self, direction: Direction) -> Vec<&'a NamedPort> {
        if direction == Direction::Ingress {
            return self.snapshot.options.named_ports.iter().collect();
        }
        let objects = self.snapshot.objects.values();
        let of_object = |object: &'a Object| match object {
            Object::Pod(pod) => pod.named_ports.as_slice(),
            Object::Endpoint(endpoint) => endpoint.named_ports.as_slice(),
            _ => &[],
        };
        objects
            .flat_map(|stored| of_object(&stored.object))
            .collect()
    }

    /// Protocol, and port or type, of every failsafe entry of a direction; port
    /// 0 is all of them.
    pub fn failsafe_packets(&self, direction: Direction) -> impl Iterator<Item = (u8, u16)> {
        let entries = self.snapshot.options.failsafe.iter();
        entries
            .filter(move |entry| entry.direction == direction.number())
            .map(|entry| (entry.proto, entry.port))
    }

    /// How many steps it takes to ask all rules about one peer, about.
    #[must_use]
    pub fn steps(&self) -> usize {
        let prefixes = |group: &CidrGroupObject| 1 + group.cidrs.len();
        let groups: usize = self.cidr_groups.iter().map(|(_, one)| prefixes(one)).sum();
        let of_peer = |peer: &Peer| match peer {
            Peer::CidrGroup { .. } => 1 + groups,
            Peer::Services(_) => 1 + self.services.len() + self.slices.len(),
            Peer::Entity(_) | Peer::Cidr { .. } | Peer::Endpoints(_) | Peer::Nodes(_) => 1,
        };
        let items = self.rules.iter().flat_map(|in_use| &in_use.rule.items);
        let of_item = |peers: &Peers| match peers {
            Peers::Any => 1,
            Peers::Select(peers) => 1 + peers.iter().map(of_peer).sum::<usize>(),
        };
        groups + items.map(|item| of_item(&item.peers)).sum::<usize>()
    }

    /// Every prefix that a rule in use or a failsafe entry names.
    #[must_use]
    pub fn listed_prefixes(&self) -> &BTreeSet<IpNet> {
        &self.listed
    }
}

/// The addresses that belong to whom the object is about.
fn addresses(object: &Object) -> &[IpAddr] {
    match object {
        Object::Node(node) => &node.addresses,
        Object::Pod(pod) => &pod.addresses,
        // Without an identity it says nothing yet.
        Object::Endpoint(endpoint) if endpoint.is_somebody() => &endpoint.addresses,
        Object::Endpoint(_)
        | Object::Namespace(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Identity(_)
        | Object::CidrGroup(_) => &[],
    }
}
