//! What a selector means, once groups and services are looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::Selector;
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{Label, LabelSet};
use crate::policy::StoredObject;
use crate::policy::language::{Entity, LabelSelector, Operator, Peer, Peers, Policy, Requirement};
use crate::policy::objects::{Object, ServiceObject};
use crate::policy::repository::selects_host;

/// All context objects, by key.
pub(in crate::policy) type Objects = OrdMap<ResourceKey, Arc<StoredObject>>;

/// Key of the label that says in which namespace a pod is.
pub(in crate::policy) const NAMESPACE_KEY: &str = "io.kubernetes.pod.namespace";

/// One thing that a selector selects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::policy) enum Term {
    Entity(Entity),
    /// What is outside of the cluster within the prefix; nodes too, if CIDR
    /// rules match nodes.
    Prefix(IpNet),
    /// Whoever has an address within the prefix, but this host.
    Address(IpNet),
    /// Whoever has such labels.
    Labels(LabelSelector),
    /// Pods with such labels.
    Workloads(LabelSelector),
}

/// The one term of a selector that means no groups and no services.
pub(in crate::policy) fn own_term(selector: &Selector) -> Option<Term> {
    match selector {
        Selector::Address(prefix) => Some(Term::Address(prefix.trunc())),
        Selector::Peer(peer) => match peer {
            Peer::Entity(entity) => Some(Term::Entity(*entity)),
            Peer::Cidr { cidr, .. } => Some(Term::Prefix(*cidr)),
            Peer::Endpoints(selector) | Peer::Nodes(selector) => {
                Some(Term::Labels(selector.clone()))
            }
            Peer::CidrGroup { .. } | Peer::Services(_) => None,
        },
    }
}

/// The selectors of the rules of a policy that select the host: each once,
/// sorted. Whom the entity `all` selects is not looked up: it is everyone.
pub(in crate::policy) fn selectors_of(policy: &Policy, host_labels: &LabelSet) -> Vec<Selector> {
    let named = peers_in_use(policy, host_labels);
    let looked_up = named.filter(|peer| **peer != EVERYONE);
    let mut selectors: Vec<Selector> = looked_up.cloned().map(Selector::Peer).collect();
    // The peers of an item are sorted: runs, which a stable sort merges.
    selectors.sort();
    selectors.dedup();
    selectors
}

/// Whether a rule of a policy that selects the host names the entity `all`.
pub(in crate::policy) fn names_everyone(policy: &Policy, host_labels: &LabelSet) -> bool {
    peers_in_use(policy, host_labels).any(|peer| *peer == EVERYONE)
}

/// The entity `all`.
pub(in crate::policy) const EVERYONE: Peer = Peer::Entity(Entity::All);

fn peers_in_use<'a>(policy: &'a Policy, host_labels: &LabelSet) -> impl Iterator<Item = &'a Peer> {
    let rules = policy.rules.iter();
    let rules = rules.filter(|rule| selects_host(rule, host_labels));
    let items = rules.flat_map(|rule| &rule.items);
    items.flat_map(|item| match &item.peers {
        Peers::Any => &[][..],
        Peers::Select(peers) => peers,
    })
}

/// Labels of an object, source `k8s`.
pub(in crate::policy) fn object_labels(labels: &BTreeMap<String, String>) -> LabelSet {
    labels
        .iter()
        .map(|(key, value)| Label::new("k8s", key, value))
        .collect()
}

/// EndpointSlices by their services.
pub(in crate::policy) type Slices = imbl::OrdSet<(ResourceKey, ResourceKey)>;

/// What one group or service adds to the selectors that mean it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::policy) struct Contribution {
    pub(in crate::policy) labels: LabelSet,
    /// Sorted, without duplicates.
    pub(in crate::policy) terms: Vec<Term>,
}

impl Contribution {
    /// That of the group or service with a key; None if there is none.
    pub(in crate::policy) fn of(
        key: &ResourceKey,
        objects: &Objects,
        slices: &Slices,
    ) -> Option<Self> {
        match &objects.get(key)?.object {
            Object::CidrGroup(group) => Some(Self {
                labels: object_labels(&group.labels),
                terms: group.cidrs.iter().copied().map(Term::Prefix).collect(),
            }),
            Object::Service(service) if service.selector.is_empty() => {
                let of_service = slices
                    .range(
                        (
                            key.clone(),
                            first_of(ResourceKind::CiliumClusterwideNetworkPolicy),
                        )..,
                    )
                    .take_while(|(service, _)| service == key)
                    .filter_map(|(_, slice)| objects.get(slice));
                let mut terms = BTreeSet::new();
                for stored in of_service {
                    if let Object::EndpointSlice(slice) = &stored.object {
                        let addresses = slice.addresses.iter();
                        terms.extend(addresses.map(|address| Term::Prefix(IpNet::from(*address))));
                    }
                }
                Some(Self {
                    labels: object_labels(&service.labels),
                    terms: terms.into_iter().collect(),
                })
            }
            Object::Service(service) => Some(Self {
                labels: object_labels(&service.labels),
                terms: vec![Term::Workloads(pods_of(key, service))],
            }),
            Object::Node(_)
            | Object::Namespace(_)
            | Object::Pod(_)
            | Object::EndpointSlice(_)
            | Object::Identity(_)
            | Object::Endpoint(_) => None,
        }
    }
}

/// The key before all objects of a kind.
pub(in crate::policy) fn first_of(kind: ResourceKind) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: None,
        name: String::new(),
    }
}

/// The objects of a kind, by key.
pub(in crate::policy) fn of_kind(
    objects: &Objects,
    kind: ResourceKind,
) -> impl Iterator<Item = (&ResourceKey, &Object)> {
    objects
        .range(first_of(kind)..)
        .take_while(move |(key, _)| key.kind == kind)
        .map(|(key, stored)| (key, &stored.object))
}

/// The pods behind a service with a selector: those of its namespace.
pub(in crate::policy) fn pods_of(key: &ResourceKey, service: &ServiceObject) -> LabelSelector {
    let is = |name: &str, value: &str| Requirement {
        source: Some("k8s".to_owned()),
        key: name.to_owned(),
        operator: Operator::In,
        values: vec![value.to_owned()],
    };
    let mut requirements: Vec<_> = service
        .selector
        .iter()
        .map(|(name, value)| is(name, value))
        .collect();
    requirements.push(is(NAMESPACE_KEY, key.namespace.as_deref().unwrap_or("")));
    requirements.sort();
    LabelSelector { requirements }
}
