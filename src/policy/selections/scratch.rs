//! The selections from nothing: plain, and what the incremental ones must equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::expansion::{Objects, Term, object_labels, of_kind, pods_of};
use super::matching::Candidate;
use super::{Selections, Selector, SelectorId};
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{DenseMap, IdentityTable, ancestors};
use crate::policy::PolicyOptions;
use crate::policy::language::{CidrGroups, Peer, ServiceBy, ServiceReference};
use crate::policy::objects::{EndpointSliceObject, Object, ServiceObject};

impl Selections {
    /// Asks each selector about each identity. Only CIDR selectors are put in
    /// order first: there may be as many of them as identities.
    #[must_use]
    pub(in crate::policy) fn from_scratch(
        selectors: &BTreeSet<Selector>,
        identities: &IdentityTable,
        objects: &Objects,
        options: &PolicyOptions,
    ) -> Self {
        let ids: BTreeMap<Selector, SelectorId> = selectors
            .iter()
            .cloned()
            .zip((0..).map(SelectorId))
            .collect();
        let mut by_prefix: HashMap<IpNet, Vec<(&Selector, SelectorId)>> = HashMap::new();
        let mut others = Vec::new();
        let mut expansions = HashMap::new();
        for (selector, id) in &ids {
            let expansion = Expansion::of(selector, objects);
            for term in &expansion.terms {
                match term {
                    Term::Prefix(prefix) | Term::Address(prefix) => {
                        by_prefix.entry(*prefix).or_default().push((selector, *id));
                    }
                    Term::Entity(_) | Term::Labels(_) | Term::Workloads(_) => {
                        others.push((selector, *id));
                    }
                }
            }
            expansions.insert(*id, expansion);
        }
        let mut by_identity = DenseMap::default();
        for identity in identities.live() {
            let prefix = identity.key.prefix();
            let asked: BTreeSet<SelectorId> = prefix
                .into_iter()
                .flat_map(ancestors)
                .filter_map(|prefix| by_prefix.get(&prefix))
                .flatten()
                .chain(&others)
                .map(|(_, id)| *id)
                .collect();
            // Labels of prefixes are long; few are asked for them.
            let labels = if others.is_empty() {
                Arc::default()
            } else {
                identities.labels(identity)
            };
            let candidate = Candidate {
                identity,
                labels: &labels,
            };
            let selecting = asked
                .into_iter()
                .filter(|id| expansions[id].selects(&candidate, options));
            by_identity.insert(identity.index, selecting.collect());
        }
        Self {
            ids: ids.into_iter().collect(),
            by_identity,
            named_ports: OrdMap::new(),
        }
    }
}

/// Any of the terms, but nothing within `except`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Expansion {
    terms: BTreeSet<Term>,
    except: Vec<IpNet>,
}

impl Expansion {
    /// What the selector means among these objects.
    fn of(selector: &Selector, objects: &Objects) -> Self {
        let mut except = Vec::new();
        let terms = match selector {
            Selector::Address(prefix) => BTreeSet::from([Term::Address(prefix.trunc())]),
            Selector::Peer(peer) => match peer {
                Peer::Entity(entity) => BTreeSet::from([Term::Entity(*entity)]),
                Peer::Cidr { cidr, except: not } => {
                    except.clone_from(not);
                    BTreeSet::from([Term::Prefix(*cidr)])
                }
                Peer::CidrGroup {
                    groups,
                    except: not,
                } => {
                    except.clone_from(not);
                    prefixes_of_groups(groups, objects)
                }
                Peer::Endpoints(selector) | Peer::Nodes(selector) => {
                    BTreeSet::from([Term::Labels(selector.clone())])
                }
                Peer::Services(reference) => terms_of_services(reference, objects),
            },
        };
        Self { terms, except }
    }
}

impl Expansion {
    /// Whether an identity is meant.
    fn selects(&self, candidate: &Candidate<'_>, options: &PolicyOptions) -> bool {
        let excepted = candidate
            .identity
            .key
            .prefix()
            .is_some_and(|prefix| self.except.iter().any(|except| except.contains(&prefix)));
        !excepted
            && self
                .terms
                .iter()
                .any(|term| term.selects(candidate, options))
    }
}

fn prefixes_of_groups(groups: &CidrGroups, objects: &Objects) -> BTreeSet<Term> {
    let mut terms = BTreeSet::new();
    for (key, object) in of_kind(objects, ResourceKind::CiliumCIDRGroup) {
        let Object::CidrGroup(group) = object else {
            continue;
        };
        let meant = match groups {
            CidrGroups::Named(name) => *name == key.name,
            CidrGroups::Labelled(selector) => selector.matches(&object_labels(&group.labels)),
        };
        if meant {
            terms.extend(group.cidrs.iter().copied().map(Term::Prefix));
        }
    }
    terms
}

fn terms_of_services(reference: &ServiceReference, objects: &Objects) -> BTreeSet<Term> {
    let mut terms = BTreeSet::new();
    for (key, object) in of_kind(objects, ResourceKind::Service) {
        let Object::Service(service) = object else {
            continue;
        };
        if !names_service(reference, key, service) {
            continue;
        }
        if !service.selector.is_empty() {
            terms.insert(Term::Workloads(pods_of(key, service)));
            continue;
        }
        for (slice_key, object) in of_kind(objects, ResourceKind::EndpointSlice) {
            if let Object::EndpointSlice(slice) = object
                && is_slice_of(slice_key, slice, key)
            {
                let addresses = slice.addresses.iter();
                terms.extend(addresses.map(|address| Term::Prefix(IpNet::from(*address))));
            }
        }
    }
    terms
}

/// Whether a rule means this service.
fn names_service(reference: &ServiceReference, key: &ResourceKey, service: &ServiceObject) -> bool {
    let in_namespace = reference.namespace.is_none() || reference.namespace == key.namespace;
    in_namespace
        && match &reference.by {
            ServiceBy::Name(name) => *name == key.name,
            ServiceBy::Labels(selector) => selector.matches(&object_labels(&service.labels)),
        }
}

/// Whether an EndpointSlice belongs to a service.
fn is_slice_of(key: &ResourceKey, slice: &EndpointSliceObject, service: &ResourceKey) -> bool {
    key.namespace == service.namespace && slice.service.as_ref() == Some(&service.name)
}
