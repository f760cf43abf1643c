//! Which labels an identity must have at least for a label selector to match:
//! so that neither is compared with all of the other.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::expansion::{NAMESPACE_KEY, Term};
use super::matching::CLUSTER_KEY;
use crate::identity::{CIDR_GROUP_KEY, IdentityIndex, IdentityKey, IdentityTable, Reserved};
use crate::policy::language::{Entity, LabelSelector, Operator, Requirement};

/// One label that must be there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Anchor {
    Key(String),
    Value(String, String),
}

/// Any of these must be there; None: it may match without any label.
pub(super) fn anchors(selector: &LabelSelector) -> Option<Vec<Anchor>> {
    // The labels of prefixes are made when asked for: they are no index.
    if is_about_prefixes(selector) {
        return None;
    }
    let of = |operator: Operator| {
        let mut found = selector
            .requirements
            .iter()
            .filter(move |requirement| requirement.operator == operator);
        // What all pods or all of a namespace have tells little.
        let common = |requirement: &&Requirement| {
            requirement.key == NAMESPACE_KEY || requirement.key == CLUSTER_KEY
        };
        let first = found.clone().find(|requirement| !common(requirement));
        first.or_else(|| found.next())
    };
    if let Some(requirement) = of(Operator::In) {
        let values = requirement.values.iter();
        let anchor = |value: &String| Anchor::Value(requirement.key.clone(), value.clone());
        return Some(values.map(anchor).collect());
    }
    of(Operator::Exists).map(|requirement| vec![Anchor::Key(requirement.key.clone())])
}

impl Term {
    /// Whether it is found by a label that must be there.
    pub(super) fn is_anchored(&self) -> bool {
        match self {
            Self::Labels(selector) | Self::Workloads(selector) => anchors(selector).is_some(),
            Self::Entity(_) | Self::Prefix(_) | Self::Address(_) => false,
        }
    }
}

/// Whether a selector asks for labels that the listed prefixes and the groups
/// around an identity give.
pub(super) fn is_about_prefixes(selector: &LabelSelector) -> bool {
    selector.requirements.iter().any(|requirement| {
        let of_source = match requirement.source.as_deref() {
            None | Some("cidr" | "cidrgroup") => true,
            Some(_) => false,
        };
        of_source
            && (requirement.key.parse::<IpNet>().is_ok()
                || requirement.key.starts_with(CIDR_GROUP_KEY))
    })
}

/// The identities that a term may select: all that must be asked when it comes
/// or goes.
pub(super) fn scope(term: &Term, table: &IdentityTable, into: &mut BTreeSet<IdentityIndex>) {
    match term {
        Term::Prefix(prefix) | Term::Address(prefix) => {
            into.extend(table.within(*prefix));
            into.extend(table.placed_within(*prefix));
        }
        Term::Entity(Entity::None) => {}
        Term::Entity(Entity::World) => {
            into.extend(reserved());
            into.extend(cidrs(table));
            into.extend(table.with_key(Reserved::World.name()));
        }
        Term::Entity(Entity::RemoteNode) => with_reserved(Reserved::RemoteNode, table, into),
        Term::Entity(Entity::KubeApiserver) => {
            with_reserved(Reserved::KubeApiserver, table, into);
        }
        Term::Entity(
            Entity::Host | Entity::Health | Entity::Init | Entity::Ingress | Entity::Unmanaged,
        ) => {
            for name in [
                Reserved::Host,
                Reserved::Health,
                Reserved::Init,
                Reserved::Ingress,
                Reserved::Unmanaged,
            ] {
                with_reserved(name, table, into);
            }
        }
        Term::Entity(
            Entity::All
            | Entity::WorldIpv4
            | Entity::WorldIpv6
            | Entity::Cluster
            | Entity::ClusterMesh,
        ) => into.extend(table.live().map(|identity| identity.index)),
        Term::Labels(selector) | Term::Workloads(selector) => match anchors(selector) {
            None => into.extend(table.live().map(|identity| identity.index)),
            Some(anchors) => {
                for anchor in anchors {
                    with_anchor(&anchor, table, into);
                }
            }
        },
    }
}

fn with_reserved(reserved: Reserved, table: &IdentityTable, into: &mut BTreeSet<IdentityIndex>) {
    let anchor = Anchor::Value(reserved.name().to_owned(), String::new());
    with_anchor(&anchor, table, into);
}

fn with_anchor(anchor: &Anchor, table: &IdentityTable, into: &mut BTreeSet<IdentityIndex>) {
    into.extend(reserved());
    let key = match anchor {
        Anchor::Key(key) => {
            into.extend(table.with_key(key));
            key
        }
        Anchor::Value(key, value) => {
            into.extend(table.with_label(key, value));
            key
        }
    };
    if key == Reserved::World.name() {
        into.extend(cidrs(table));
    }
    if key == Reserved::KubeApiserver.name() {
        let addresses = table.apiservers().map(IpNet::from);
        into.extend(addresses.filter_map(|prefix| table.index_of(&IdentityKey::Cidr(prefix))));
    }
}

fn reserved() -> impl Iterator<Item = IdentityIndex> {
    (0..)
        .zip(Reserved::ALL)
        .map(|(number, _)| IdentityIndex(number))
}

fn cidrs(table: &IdentityTable) -> impl Iterator<Item = IdentityIndex> {
    Entity::WorldIpv4
        .prefix()
        .into_iter()
        .chain(Entity::WorldIpv6.prefix())
        .flat_map(|all| table.within(all))
}
