//! Whether one term selects one identity.

use ipnet::IpNet;

use super::expansion::Term;
use crate::identity::{IdentityKey, Label, LabelSet, LiveIdentity, Reserved};
use crate::policy::PolicyOptions;
use crate::policy::language::Entity;

/// Key of the label that says to which cluster a pod belongs.
pub(in crate::policy) const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";

/// An identity, as selectors see it.
pub(in crate::policy) struct Candidate<'a> {
    pub(in crate::policy) identity: &'a LiveIdentity,
    pub(in crate::policy) labels: &'a LabelSet,
}

/// Whether rules for prefixes speak of such an identity at all.
pub(in crate::policy) fn has_prefixes(identity: &LiveIdentity, options: &PolicyOptions) -> bool {
    match identity.key {
        IdentityKey::Cidr(_) => true,
        IdentityKey::Node { .. } => options.cidr_match_nodes,
        IdentityKey::Reserved(_) | IdentityKey::Workload { .. } => false,
    }
}

impl Term {
    /// Whether an identity is meant.
    pub(in crate::policy) fn selects(
        &self,
        candidate: &Candidate<'_>,
        options: &PolicyOptions,
    ) -> bool {
        let within = |around: &IpNet| {
            candidate
                .identity
                .key
                .prefix()
                .is_some_and(|prefix| around.contains(&prefix))
        };
        match self {
            Self::Entity(entity) => is_entity(*entity, candidate, &options.cluster_name),
            Self::Prefix(around) => has_prefixes(candidate.identity, options) && within(around),
            Self::Address(around) => within(around),
            Self::Labels(selector) => selector.matches(candidate.labels),
            Self::Workloads(selector) => {
                matches!(candidate.identity.key, IdentityKey::Workload { .. })
                    && selector.matches(candidate.labels)
            }
        }
    }
}

/// Entities are questions about labels, but for the two families.
fn is_entity(entity: Entity, candidate: &Candidate<'_>, cluster_name: &str) -> bool {
    let labels = candidate.labels;
    let has = |reserved: Reserved| labels.has_reserved(reserved.name());
    let in_cluster = || {
        const OF_CLUSTER: [Reserved; 7] = [
            Reserved::Host,
            Reserved::RemoteNode,
            Reserved::Init,
            Reserved::Ingress,
            Reserved::Health,
            Reserved::Unmanaged,
            Reserved::KubeApiserver,
        ];
        OF_CLUSTER.into_iter().any(has)
            || labels.contains(&Label::new("k8s", CLUSTER_KEY, cluster_name))
    };
    match entity {
        Entity::All => true,
        Entity::None => false,
        Entity::World => {
            has(Reserved::World) || has(Reserved::WorldIpv4) || has(Reserved::WorldIpv6)
        }
        // Their addresses only, whatever CIDR rules match besides.
        Entity::WorldIpv4 => matches!(candidate.identity.key, IdentityKey::Cidr(IpNet::V4(_))),
        Entity::WorldIpv6 => matches!(candidate.identity.key, IdentityKey::Cidr(IpNet::V6(_))),
        Entity::Cluster => in_cluster(),
        Entity::ClusterMesh => {
            in_cluster()
                || labels
                    .iter()
                    .any(|label| label.source == "k8s" && label.key == CLUSTER_KEY)
        }
        Entity::Host => has(Reserved::Host),
        Entity::RemoteNode => has(Reserved::RemoteNode),
        Entity::KubeApiserver => has(Reserved::KubeApiserver),
        Entity::Health => has(Reserved::Health),
        Entity::Init => has(Reserved::Init),
        Entity::Ingress => has(Reserved::Ingress),
        Entity::Unmanaged => has(Reserved::Unmanaged),
    }
}
