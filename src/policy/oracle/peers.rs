//! Does an item speak of this peer?

use std::net::IpAddr;

use super::book::Book;
use super::labels::matches;
use super::who::{Side, Who};
use crate::events::ResourceKey;
use crate::policy::language::{Entity, Peer, Peers};
use crate::policy::objects::ServiceObject;

/// Whether the peers of an item hold a peer.
pub(super) fn peers_match(book: &Book<'_>, peers: &Peers, who: &Who) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Select(peers) => peers.iter().any(|peer| peer_matches(book, peer, who)),
    }
}

fn peer_matches(book: &Book<'_>, peer: &Peer, who: &Who) -> bool {
    let address = who.address;
    match peer {
        Peer::Entity(entity) => entity_matches(book, *entity, who),
        Peer::Cidr { cidr, except } => {
            cidrs_match(book, who)
                && cidr.contains(&address)
                && !except.iter().any(|prefix| prefix.contains(&address))
        }
        Peer::CidrGroup { groups, except } => {
            let groups = book.groups_of(groups);
            let mut prefixes = groups.iter().flat_map(|(_, group)| &group.cidrs);
            cidrs_match(book, who)
                && prefixes.any(|prefix| prefix.contains(&address))
                && !except.iter().any(|prefix| prefix.contains(&address))
        }
        Peer::Endpoints(selector) => matches(selector, &who.labels),
        Peer::Nodes(selector) => {
            who.labels.has_reserved("remote-node") && matches(selector, &who.labels)
        }
        Peer::Services(reference) => book
            .services_of(reference)
            .into_iter()
            .any(|(key, service)| service_matches(book, key, service, who)),
    }
}

/// Whether rules for prefixes speak of such a peer at all.
pub(super) fn cidrs_match(book: &Book<'_>, who: &Who) -> bool {
    match who.side {
        Side::World => true,
        Side::RemoteNode => book.snapshot.options.cidr_match_nodes,
        Side::Host | Side::Workload => false,
    }
}

fn service_matches(book: &Book<'_>, key: &ResourceKey, service: &ServiceObject, who: &Who) -> bool {
    if service.selector.is_empty() {
        let behind: Vec<IpAddr> = book.slice_addresses(key);
        return cidrs_match(book, who) && behind.contains(&who.address);
    }
    let has = |key: &str, value: &str| {
        let mut labels = who.labels.iter();
        labels.any(|label| label.source == "k8s" && label.key == key && label.value == value)
    };
    let namespace = key.namespace.as_deref().unwrap_or("default");
    let mut wanted = service.selector.iter();
    who.side == Side::Workload
        && has("io.kubernetes.pod.namespace", namespace)
        && wanted.all(|(key, value)| has(key, value))
}

fn entity_matches(book: &Book<'_>, entity: Entity, who: &Who) -> bool {
    let is = |name: &str| who.labels.has_reserved(name);
    let cluster = who
        .labels
        .iter()
        .find(|label| label.source == "k8s" && label.key == "io.cilium.k8s.policy.cluster");
    let of_cluster = [
        "host",
        "remote-node",
        "init",
        "ingress",
        "health",
        "unmanaged",
        "kube-apiserver",
    ];
    let world = is("world") || is("world-ipv4") || is("world-ipv6");
    match entity {
        Entity::All => true,
        Entity::World => world,
        Entity::WorldIpv4 => world && who.address.is_ipv4(),
        Entity::WorldIpv6 => world && who.address.is_ipv6(),
        Entity::Cluster => {
            let ours = &book.snapshot.options.cluster_name;
            of_cluster.into_iter().any(is) || cluster.is_some_and(|label| label.value == *ours)
        }
        Entity::ClusterMesh => of_cluster.into_iter().any(is) || cluster.is_some(),
        Entity::Host => is("host"),
        Entity::RemoteNode => is("remote-node"),
        Entity::KubeApiserver => is("kube-apiserver"),
        Entity::Health => is("health"),
        Entity::Init => is("init"),
        Entity::Ingress => is("ingress"),
        Entity::Unmanaged => is("unmanaged"),
        Entity::None => false,
    }
}
