//! The peers of an item, by the field that names them.

use serde_json::{Map, Value};

use super::cidr::{read_cidr, read_cidr_set};
use super::item::Around;
use super::names_of_hosts::{check_group, check_name};
use super::selector::{LabelSelector, Matched, Operator, Requirement, read_selector};
use super::services::read_service;
use super::types::{Entity, Peer, Peers};
use crate::policy::Direction;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;

/// The peer fields by direction, and what each says.
const FIELDS: [(&str, &str, Kind); 9] = [
    ("fromEntities", "toEntities", Kind::Entities),
    ("fromCIDR", "toCIDR", Kind::Cidr),
    ("fromCIDRSet", "toCIDRSet", Kind::CidrSet),
    ("fromEndpoints", "toEndpoints", Kind::Endpoints),
    ("fromNodes", "toNodes", Kind::Nodes),
    ("fromGroups", "toGroups", Kind::Groups),
    ("", "toServices", Kind::Services),
    ("", "toFQDNs", Kind::Names),
    ("fromRequires", "toRequires", Kind::Requires),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entities,
    Cidr,
    CidrSet,
    Endpoints,
    Nodes,
    Services,
    /// Of a cloud.
    Groups,
    /// DNS names.
    Names,
    /// Restricts the other peers; Cilium has removed it.
    Requires,
}

impl Kind {
    /// Whether a rule for the host may not have it.
    fn beyond_a_host(self) -> bool {
        matches!(self, Self::Groups | Self::Names | Self::Requires)
    }
}

/// The peer fields of a direction.
pub(super) fn field_names(direction: Direction) -> impl Iterator<Item = &'static str> {
    fields(direction).map(|(name, _)| name)
}

fn fields(direction: Direction) -> impl Iterator<Item = (&'static str, Kind)> {
    FIELDS
        .iter()
        .map(move |(from, to, kind)| match direction {
            Direction::Ingress => (*from, *kind),
            Direction::Egress => (*to, *kind),
        })
        .filter(|(name, _)| !name.is_empty())
}

/// None: no peer field is written (null is the same as not written).
pub(super) fn read_peers(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around<'_>,
) -> Option<Peers> {
    let mut written = false;
    let mut used: Vec<&str> = Vec::new();
    let mut peers = Vec::new();
    for (name, kind) in fields(around.direction) {
        let at = at.key(name);
        if object.get(name).is_some_and(Value::is_null) {
            let reason = "null is the same as absent: it does not restrict the peers";
            checker.warn(
                &at,
                Fault::missing(reason).suggest("write [] to select nobody"),
            );
        }
        let Some(value) = field(object, name) else {
            continue;
        };
        if kind == Kind::Names && around.section.is_deny() {
            refuse(checker, &at, value, name, around);
            written = true;
            continue;
        }
        let Some(list) = checker.list(&at, value) else {
            written = true;
            continue;
        };
        // An empty `fromRequires` requires nothing and selects nothing.
        written |= kind != Kind::Requires;
        if list.is_empty() {
            if kind != Kind::Requires {
                checker.warn(&at, Fault::missing("an empty list selects nobody"));
            }
            continue;
        }
        if kind != Kind::Requires {
            used.push(name);
        }
        if kind == Kind::Requires || (kind.beyond_a_host() && !around.held) {
            refuse(checker, &at, value, name, around);
            continue;
        }
        read_list(checker, &at, list, kind, around, &mut peers);
    }
    if let [first, second, ..] = used[..] {
        let reason = format!("combining {first} and {second} in one item is not allowed");
        checker.error(at, Fault::missing(reason).suggest("write two items"));
    }
    peers.sort();
    peers.dedup();
    written.then_some(Peers::Select(peers))
}

fn refuse(checker: &mut Checker, at: &At<'_>, value: &Value, name: &str, around: Around<'_>) {
    let reason = if around.section.is_deny() && name == "toFQDNs" {
        "toFQDNs is not allowed in a deny section".to_owned()
    } else if around.held {
        format!("{name} is no longer part of Cilium")
    } else {
        format!("{name} cannot be enforced on a host")
    };
    let (entities, cidr) = match around.direction {
        Direction::Ingress => ("fromEntities", "fromCIDR"),
        Direction::Egress => ("toEntities", "toCIDR"),
    };
    checker.error(
        at,
        Fault::new(value, reason).suggest(format!("use {entities} or {cidr}")),
    );
}

fn read_list(
    checker: &mut Checker,
    at: &At<'_>,
    list: &[Value],
    kind: Kind,
    around: Around<'_>,
    peers: &mut Vec<Peer>,
) {
    for (index, value) in list.iter().enumerate() {
        let at = at.index(index);
        match kind {
            Kind::Entities => peers.extend(read_entity(checker, &at, value).map(Peer::Entity)),
            Kind::Cidr => peers.extend(read_cidr(checker, &at, value).map(|cidr| Peer::Cidr {
                cidr,
                except: Vec::new(),
            })),
            Kind::CidrSet => {
                if let Some(object) = checker.object(&at, value) {
                    peers.extend(read_cidr_set(checker, &at, object));
                }
            }
            Kind::Endpoints => {
                if let Some(mut selector) = read_selector(checker, &at, value, Matched::Pods) {
                    around.scope.bind(&mut selector);
                    peers.push(Peer::Endpoints(selector));
                }
            }
            Kind::Nodes => {
                if let Some(selector) = read_selector(checker, &at, value, Matched::OtherNodes) {
                    peers.push(Peer::Nodes(of_remote_nodes(selector)));
                }
            }
            Kind::Services => {
                if let Some(object) = checker.object(&at, value) {
                    read_service(checker, &at, object, peers);
                }
            }
            Kind::Groups => check_group(checker, &at, value),
            Kind::Names => check_name(checker, &at, value),
            Kind::Requires => {}
        }
    }
}

/// Nodes are asked for among the other nodes only.
fn of_remote_nodes(mut selector: LabelSelector) -> LabelSelector {
    let remote = Requirement {
        source: Some("reserved".to_owned()),
        key: "remote-node".to_owned(),
        operator: Operator::Exists,
        values: Vec::new(),
    };
    if !selector.requirements.contains(&remote) {
        selector.requirements.push(remote);
        selector.requirements.sort();
    }
    selector
}

fn read_entity(checker: &mut Checker, at: &At<'_>, value: &Value) -> Option<Entity> {
    let text = checker.string(at, value)?;
    let Some(entity) = Entity::ALL.into_iter().find(|known| known.as_str() == text) else {
        let names = Entity::ALL.map(Entity::as_str);
        let suggestion = match nearest(text, names) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("one of {}", names.join(", ")),
        };
        let fault = Fault::new(value, "unsupported entity").suggest(suggestion);
        checker.error(at, fault);
        return None;
    };
    match entity {
        Entity::WorldIpv4 | Entity::WorldIpv6 => {
            let reason = "works here; the Kubernetes API refuses it";
            checker.warn(at, Fault::new(value, reason));
        }
        Entity::None => checker.warn(at, Fault::new(value, "selects nobody")),
        Entity::All
        | Entity::World
        | Entity::Cluster
        | Entity::ClusterMesh
        | Entity::Host
        | Entity::RemoteNode
        | Entity::KubeApiserver
        | Entity::Health
        | Entity::Init
        | Entity::Ingress
        | Entity::Unmanaged => {}
    }
    Some(entity)
}
