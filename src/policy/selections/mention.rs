//! Which groups, services and nodes a selector talks about.

use super::Selector;
use super::expansion::{Contribution, Objects, Slices, of_kind};
use crate::events::{ResourceKey, ResourceKind};
use crate::policy::language::{CidrGroups, Peer, ServiceBy};

/// The objects that selectors talk about.
#[derive(Clone, Copy)]
pub(in crate::policy) struct Things<'a> {
    pub(in crate::policy) objects: &'a Objects,
    pub(in crate::policy) slices: &'a Slices,
}

/// Which groups or services a selector may mean.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mention {
    /// That one.
    Named(ResourceKey),
    /// Any of a kind.
    Any(ResourceKind),
}

pub(super) fn mention(selector: &Selector) -> Option<Mention> {
    match selector {
        Selector::Peer(Peer::CidrGroup { groups, .. }) => Some(match groups {
            CidrGroups::Named(name) => Mention::Named(ResourceKey {
                kind: ResourceKind::CiliumCIDRGroup,
                namespace: None,
                name: name.clone(),
            }),
            CidrGroups::Labelled(_) => Mention::Any(ResourceKind::CiliumCIDRGroup),
        }),
        Selector::Peer(Peer::Services(reference)) => {
            Some(match (&reference.namespace, &reference.by) {
                (Some(namespace), ServiceBy::Name(name)) => Mention::Named(ResourceKey {
                    kind: ResourceKind::Service,
                    namespace: Some(namespace.clone()),
                    name: name.clone(),
                }),
                (None, ServiceBy::Name(_)) | (_, ServiceBy::Labels(_)) => {
                    Mention::Any(ResourceKind::Service)
                }
            })
        }
        Selector::Peer(_) | Selector::Address(_) => None,
    }
}

/// The groups or services that a selector means now.
pub(super) fn meant(
    selector: &Selector,
    mention: &Mention,
    things: Things<'_>,
) -> Vec<ResourceKey> {
    match mention {
        Mention::Named(key) => vec![key.clone()],
        Mention::Any(kind) => of_kind(things.objects, *kind)
            .filter(|(key, _)| {
                let contribution = Contribution::of(key, things.objects, things.slices);
                contribution.is_some_and(|thing| means(selector, key, &thing))
            })
            .map(|(key, _)| key.clone())
            .collect(),
    }
}

/// Whether a selector means a group or service.
pub(super) fn means(selector: &Selector, key: &ResourceKey, thing: &Contribution) -> bool {
    match selector {
        Selector::Peer(Peer::CidrGroup { groups, .. }) => match groups {
            CidrGroups::Named(name) => *name == key.name,
            CidrGroups::Labelled(labels) => labels.matches(&thing.labels),
        },
        Selector::Peer(Peer::Services(reference)) => {
            let in_namespace =
                reference.namespace.is_none() || reference.namespace == key.namespace;
            in_namespace
                && match &reference.by {
                    ServiceBy::Name(name) => *name == key.name,
                    ServiceBy::Labels(labels) => labels.matches(&thing.labels),
                }
        }
        Selector::Peer(_) | Selector::Address(_) => false,
    }
}

pub(super) fn is_about_nodes(selector: &Selector) -> bool {
    match selector {
        Selector::Peer(peer) => tells_nodes_apart(peer),
        Selector::Address(_) => false,
    }
}

/// Whether a peer asks for labels of nodes.
pub(in crate::policy) fn tells_nodes_apart(peer: &Peer) -> bool {
    match peer {
        Peer::Nodes(_) => true,
        Peer::Endpoints(labels) => labels
            .requirements
            .iter()
            .any(|requirement| requirement.source.as_deref() == Some("node")),
        Peer::Entity(_) | Peer::Cidr { .. } | Peer::CidrGroup { .. } | Peer::Services(_) => false,
    }
}
