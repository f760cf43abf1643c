//! Whether one term selects one identity.

use ipnet::IpNet;

use super::expansion::{Expansion, Term};
use crate::identity::{IdentityKind, Label, LabelSet, LiveIdentity, Reserved};
use crate::policy::PolicyOptions;
use crate::policy::language::Entity;

/// Key of the label that says to which cluster a pod belongs.
pub(in crate::policy) const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";

/// An identity, as selectors see it.
pub(in crate::policy) struct Candidate<'a> {
    pub(in crate::policy) identity: &'a LiveIdentity,
    pub(in crate::policy) labels: &'a LabelSet,
}

impl Candidate<'_> {
    /// The prefix that all addresses of the identity are in, if it is about one.
    fn prefix(&self) -> Option<IpNet> {
        match self.identity.kind {
            IdentityKind::Reserved(_) => None,
            IdentityKind::Cidr(prefix) | IdentityKind::RemoteNode(prefix) => Some(prefix),
        }
    }
}

impl Expansion {
    /// Whether an identity is meant.
    pub(in crate::policy) fn selects(
        &self,
        candidate: &Candidate<'_>,
        options: &PolicyOptions,
    ) -> bool {
        let excepted = candidate
            .prefix()
            .is_some_and(|prefix| self.except.iter().any(|except| except.contains(&prefix)));
        !excepted
            && self
                .terms
                .iter()
                .any(|term| term.selects(candidate, options))
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
                .prefix()
                .is_some_and(|prefix| around.contains(&prefix))
        };
        match self {
            Self::Entity(entity) => is_entity(*entity, candidate.labels, &options.cluster_name),
            Self::Prefix(around) => {
                let by_cidr = match candidate.identity.kind {
                    IdentityKind::Cidr(_) => true,
                    IdentityKind::RemoteNode(_) => options.cidr_match_nodes,
                    IdentityKind::Reserved(_) => false,
                };
                by_cidr && within(around)
            }
            Self::Address(around) => within(around),
            Self::Labels(selector) => selector.matches(candidate.labels),
            Self::Workloads(_) => false,
        }
    }
}

/// Entities are questions about labels.
fn is_entity(entity: Entity, labels: &LabelSet, cluster_name: &str) -> bool {
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
        Entity::WorldIpv4 => has(Reserved::WorldIpv4),
        Entity::WorldIpv6 => has(Reserved::WorldIpv6),
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
