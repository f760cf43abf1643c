//! Peers as positions in the identity table.

use std::ops::Range;

use super::classes::{joined, without};
use crate::identity::{IdentityTable, Reserved};
use crate::policy::language::{Entity, Peer, Peers};

/// The identities that peers select, as positions in the identity table.
pub(in crate::policy) fn positions(identities: &IdentityTable, peers: &Peers) -> Vec<Range<usize>> {
    let all = 0..identities.len();
    let Peers::Select(peers) = peers else {
        return joined(vec![all]);
    };
    let mut ranges = Vec::new();
    for peer in peers {
        match peer {
            Peer::Entity(entity) => entity_positions(identities, *entity, &mut ranges),
            Peer::Cidr { cidr, except } => {
                let within = joined(vec![identities.within(*cidr)]);
                let holes = except
                    .iter()
                    .map(|prefix| identities.within(*prefix))
                    .collect();
                ranges.extend(without(&within, &joined(holes)));
            }
            Peer::CidrGroup { .. } | Peer::Endpoints(_) | Peer::Nodes(_) | Peer::Services(_) => {}
        }
    }
    joined(ranges)
}

fn entity_positions(identities: &IdentityTable, entity: Entity, ranges: &mut Vec<Range<usize>>) {
    // Reserved identities stand at the positions of their numbers.
    let mut reserved = |list: &[Reserved]| {
        for reserved in list {
            let position = *reserved as usize;
            ranges.push(position..position + 1);
        }
    };
    match entity {
        Entity::None => {}
        Entity::All => ranges.push(0..identities.len()),
        Entity::World => {
            reserved(&[Reserved::World]);
            ranges.push(identities.cidr_positions());
        }
        Entity::WorldIpv4 | Entity::WorldIpv6 => {
            ranges.extend(entity.prefix().map(|prefix| identities.within(prefix)));
        }
        // One cluster is known: the mesh is the cluster.
        Entity::Cluster | Entity::ClusterMesh => {
            reserved(&[
                Reserved::Host,
                Reserved::Unmanaged,
                Reserved::Health,
                Reserved::Init,
                Reserved::RemoteNode,
                Reserved::KubeApiserver,
                Reserved::Ingress,
            ]);
            ranges.push(identities.node_positions());
        }
        Entity::Host => reserved(&[Reserved::Host]),
        Entity::RemoteNode => {
            reserved(&[Reserved::RemoteNode, Reserved::KubeApiserver]);
            ranges.push(identities.node_positions());
        }
        Entity::KubeApiserver => reserved(&[Reserved::KubeApiserver]),
        Entity::Health => reserved(&[Reserved::Health]),
        Entity::Init => reserved(&[Reserved::Init]),
        Entity::Ingress => reserved(&[Reserved::Ingress]),
        Entity::Unmanaged => reserved(&[Reserved::Unmanaged]),
    }
}
