//! Allow items that one deny item takes everything from.
//!
//! Only what one item does to another is told; what several denies do together
//! is not looked for.

use super::Advice;
use crate::events::ResourceKey;
use crate::limits::ADVICE_PAIRS_MAX;
use crate::policy::PolicyOptions;
use crate::policy::language::{
    Entity, FieldError, Item, L4Match, LabelSelector, Peer, Peers, Policy, Ports, RuleSubject,
};

struct Candidate<'a> {
    resource: &'a ResourceKey,
    audit: bool,
    subject: &'a LabelSelector,
    item: &'a Item,
}

pub(super) fn find(policies: &[(&ResourceKey, &Policy)], options: &PolicyOptions) -> Vec<Advice> {
    let (denies, allows): (Vec<_>, Vec<_>) =
        candidates(policies).partition(|candidate| candidate.item.section.is_deny());
    let mut advice = Vec::new();
    let mut pairs = 0;
    for allow in &allows {
        pairs += denies.len();
        if pairs > ADVICE_PAIRS_MAX {
            break;
        }
        if let Some(deny) = denies.iter().find(|deny| shadows(deny, allow, options)) {
            advice.push(Advice {
                resource: allow.resource.clone(),
                warning: FieldError {
                    path: allow.item.path.clone(),
                    reason: format!(
                        "allows nothing: {} {} denies all of it",
                        deny.resource, deny.item.path
                    ),
                    ..FieldError::default()
                },
            });
        }
    }
    advice
}

/// Items of rules for hosts that match something.
fn candidates<'a>(
    policies: &'a [(&'a ResourceKey, &'a Policy)],
) -> impl Iterator<Item = Candidate<'a>> {
    policies.iter().flat_map(|(resource, policy)| {
        policy.rules.iter().flat_map(move |rule| {
            let subject = match &rule.subject {
                RuleSubject::Node(subject) => Some(subject),
                RuleSubject::Endpoint(_) => None,
            };
            let items = rule.items.iter().filter(|item| {
                item.peers != Peers::Select(Vec::new()) && item.ports != Ports::Some(Vec::new())
            });
            items.filter_map(move |item| {
                Some(Candidate {
                    resource,
                    audit: policy.audit,
                    subject: subject?,
                    item,
                })
            })
        })
    })
}

fn shadows(deny: &Candidate<'_>, allow: &Candidate<'_>, options: &PolicyOptions) -> bool {
    deny.item.section.direction() == allow.item.section.direction()
        && (!deny.audit || allow.audit)
        && wider(deny.subject, allow.subject)
        && peers_cover(&deny.item.peers, &allow.item.peers, options)
        && ports_cover(&deny.item.ports, &allow.item.ports)
}

/// Whether all that `narrow` requires includes all that `wide` requires.
fn wider(wide: &LabelSelector, narrow: &LabelSelector) -> bool {
    let mut requirements = wide.requirements.iter();
    requirements.all(|requirement| narrow.requirements.contains(requirement))
}

fn peers_cover(deny: &Peers, allow: &Peers, options: &PolicyOptions) -> bool {
    match (deny, allow) {
        (Peers::Any, _) => true,
        (Peers::Select(deny), Peers::Any) => deny.contains(&Peer::Entity(Entity::All)),
        (Peers::Select(deny), Peers::Select(allow)) => allow
            .iter()
            .all(|allow| deny.iter().any(|deny| peer_covers(deny, allow, options))),
    }
}

fn peer_covers(deny: &Peer, allow: &Peer, options: &PolicyOptions) -> bool {
    match (deny, allow) {
        _ if deny == allow => true,
        (Peer::Entity(Entity::All), _) => true,
        // With this mode prefixes match nodes, which are not the world.
        (Peer::Entity(Entity::World), Peer::Cidr { .. } | Peer::CidrGroup { .. }) => {
            !options.cidr_match_nodes
        }
        (Peer::Entity(entity), Peer::Cidr { cidr, .. }) => {
            let prefix = entity.prefix();
            !options.cidr_match_nodes && prefix.is_some_and(|prefix| prefix.contains(cidr))
        }
        (Peer::Entity(Entity::World), Peer::Entity(entity)) => entity.prefix().is_some(),
        (
            Peer::Entity(Entity::Cluster | Entity::ClusterMesh | Entity::RemoteNode),
            Peer::Nodes(_),
        ) => true,
        (Peer::Entity(Entity::Cluster | Entity::ClusterMesh), Peer::Entity(entity)) => {
            let mesh = *deny == Peer::Entity(Entity::ClusterMesh);
            in_cluster(*entity) || (mesh && *entity == Entity::Cluster)
        }
        (
            Peer::Cidr { cidr, except },
            Peer::Cidr {
                cidr: within,
                except: without,
            },
        ) => {
            let harmless = |hole: &ipnet::IpNet| {
                let apart = !within.contains(hole) && !hole.contains(within);
                apart || without.iter().any(|prefix| prefix.contains(hole))
            };
            cidr.contains(within) && except.iter().all(harmless)
        }
        (Peer::Endpoints(deny), Peer::Endpoints(allow))
        | (Peer::Nodes(deny), Peer::Nodes(allow)) => wider(deny, allow),
        _ => false,
    }
}

/// Whether all whom the entity selects are of the cluster.
fn in_cluster(entity: Entity) -> bool {
    match entity {
        Entity::Host
        | Entity::RemoteNode
        | Entity::KubeApiserver
        | Entity::Health
        | Entity::Init
        | Entity::Ingress
        | Entity::Unmanaged => true,
        Entity::All
        | Entity::World
        | Entity::WorldIpv4
        | Entity::WorldIpv6
        | Entity::Cluster
        | Entity::ClusterMesh
        | Entity::None => false,
    }
}

fn ports_cover(deny: &Ports, allow: &Ports) -> bool {
    match (deny, allow) {
        (Ports::All, _) => true,
        (Ports::Some(_), Ports::All) => false,
        (Ports::Some(deny), Ports::Some(allow)) => allow
            .iter()
            .all(|allow| deny.iter().any(|deny| match_covers(deny, allow))),
    }
}

fn match_covers(deny: &L4Match, allow: &L4Match) -> bool {
    let L4Match::Ports {
        protocol,
        first,
        last,
    } = deny
    else {
        return deny == allow;
    };
    match allow {
        L4Match::Ports {
            protocol: other,
            first: from,
            last: to,
        } => protocol == other && first <= from && to <= last,
        L4Match::Named {
            protocol: other, ..
        } => protocol == other && *first == 0 && *last == u16::MAX,
        L4Match::Protocol(_) | L4Match::Icmp(_) | L4Match::Icmpv6(_) => false,
    }
}
