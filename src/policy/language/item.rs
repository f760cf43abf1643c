//! One item of a section: peers, ports, and everything that is refused.

use serde_json::{Map, Value};

use super::cidr::{check_except, read_cidr};
use super::ports::{read_icmps, read_to_ports};
use super::types::{Entity, Item, Peer, Peers, Ports};
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;
use crate::policy::{Direction, Section};

/// The peer fields of one direction, and what becomes of each.
const PEERS: [(&str, &str, Support); 9] = [
    ("fromEntities", "toEntities", Support::Entities),
    ("fromCIDR", "toCIDR", Support::Cidr),
    ("fromCIDRSet", "toCIDRSet", Support::CidrSet),
    ("fromEndpoints", "toEndpoints", Support::NotYet),
    ("fromNodes", "toNodes", Support::NotYet),
    ("fromGroups", "toGroups", Support::Never),
    ("", "toServices", Support::NotYet),
    ("", "toFQDNs", Support::Never),
    ("fromRequires", "toRequires", Support::Never),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Support {
    Entities,
    Cidr,
    CidrSet,
    /// An item with it is refused until a later release.
    NotYet,
    /// An item with it cannot be enforced on a host.
    Never,
}

fn name(peer: &(&'static str, &'static str, Support), direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => peer.0,
        Direction::Egress => peer.1,
    }
}

/// What the rule around an item says about it.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub(super) section: Section,
    pub(super) direction: Direction,
    /// The rule is for workload endpoints: its items are checked, but what is
    /// not supported yet is no error.
    pub(super) held: bool,
}

/// Reads one item; `index` is its number over the whole policy.
pub(super) fn read_item(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
    around: Around,
    index: usize,
) -> Option<Item> {
    let object = checker.object(at, value)?;
    let mut known: Vec<&str> = PEERS
        .iter()
        .map(|peer| name(peer, around.direction))
        .filter(|name| !name.is_empty())
        .collect();
    known.extend(["toPorts", "icmps", "authentication"]);
    checker.known_fields(at, object, &known);
    refuse_authentication(checker, at, object, around);
    let peers = read_peers(checker, at, object, around);
    let ports = read_ports(checker, at, object, around);
    let (peers, ports) = match (peers, ports) {
        // Neither peers nor ports: the item matches nothing.
        (None, None) => (Peers::Select(Vec::new()), Ports::All),
        (peers, ports) => (peers.unwrap_or(Peers::Any), ports.unwrap_or(Ports::All)),
    };
    Some(Item {
        section: around.section,
        index,
        path: at.path(),
        peers,
        ports,
    })
}

fn refuse_authentication(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around,
) {
    let Some(value) = field(object, "authentication") else {
        return;
    };
    if around.section.is_deny() {
        let reason = "authentication is not allowed in a deny section";
        checker.error(&at.key("authentication"), Fault::new(value, reason));
    } else if !around.held {
        let reason = "mutual authentication cannot be enforced on a host";
        checker.error(&at.key("authentication"), Fault::new(value, reason));
    }
}

/// None: no peer field is written (null is the same as not written).
fn read_peers(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around,
) -> Option<Peers> {
    let mut written = false;
    let mut used: Vec<&str> = Vec::new();
    let mut peers = Vec::new();
    for peer in &PEERS {
        let name = name(peer, around.direction);
        if object.get(name).is_some_and(Value::is_null) {
            let reason = "null is the same as absent: it does not restrict the peers";
            checker.warn(
                &at.key(name),
                Fault::missing(reason).suggest("write [] to select nobody"),
            );
        }
        let Some(value) = field(object, name) else {
            continue;
        };
        let at = at.key(name);
        let Some(list) = checker.list(&at, value) else {
            written = true;
            continue;
        };
        // An empty `fromRequires` requires nothing and selects nothing.
        written |= !name.ends_with("Requires");
        if list.is_empty() {
            continue;
        }
        if !name.ends_with("Requires") {
            used.push(name);
        }
        match peer.2 {
            Support::Entities => read_entities(checker, &at, list, &mut peers),
            Support::Cidr => read_cidrs(checker, &at, list, &mut peers),
            Support::CidrSet => read_cidr_sets(checker, &at, list, around, &mut peers),
            Support::NotYet | Support::Never => {
                refuse_peer(checker, &at, value, name, peer.2, around);
            }
        }
    }
    if let [first, second, ..] = used[..] {
        let reason = format!("combining {first} and {second} in one item is not allowed");
        checker.error(at, Fault::missing(reason).suggest("write two items"));
    }
    peers.sort();
    peers.dedup();
    written.then_some(Peers::Select(peers))
}

fn refuse_peer(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
    name: &str,
    support: Support,
    around: Around,
) {
    let reason = if around.section.is_deny() && name == "toFQDNs" {
        "toFQDNs is not allowed in a deny section".to_owned()
    } else if around.held {
        return;
    } else if support == Support::NotYet {
        format!("{name} is not supported yet")
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

fn read_entities(checker: &mut Checker, at: &At<'_>, list: &[Value], peers: &mut Vec<Peer>) {
    for (index, value) in list.iter().enumerate() {
        let at = at.index(index);
        let Some(text) = checker.string(&at, value) else {
            continue;
        };
        let Some(entity) = Entity::ALL.into_iter().find(|known| known.as_str() == text) else {
            let names = Entity::ALL.map(Entity::as_str);
            let suggestion = match nearest(text, names) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("one of {}", names.join(", ")),
            };
            checker.error(
                &at,
                Fault::new(value, "unsupported entity").suggest(suggestion),
            );
            continue;
        };
        if matches!(entity, Entity::WorldIpv4 | Entity::WorldIpv6) {
            let reason = "works here; the Kubernetes API refuses it";
            checker.warn(&at, Fault::new(value, reason));
        }
        peers.push(Peer::Entity(entity));
    }
}

fn read_cidrs(checker: &mut Checker, at: &At<'_>, list: &[Value], peers: &mut Vec<Peer>) {
    for (index, value) in list.iter().enumerate() {
        if let Some(cidr) = read_cidr(checker, &at.index(index), value) {
            peers.push(Peer::Cidr {
                cidr,
                except: Vec::new(),
            });
        }
    }
}

fn read_cidr_sets(
    checker: &mut Checker,
    at: &At<'_>,
    list: &[Value],
    around: Around,
    peers: &mut Vec<Peer>,
) {
    for (index, value) in list.iter().enumerate() {
        let at = at.index(index);
        if let Some(object) = checker.object(&at, value) {
            peers.extend(read_cidr_set(checker, &at, object, around));
        }
    }
}

fn read_cidr_set(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around,
) -> Option<Peer> {
    const KINDS: [&str; 3] = ["cidr", "cidrGroupRef", "cidrGroupSelector"];
    checker.known_fields(at, object, &[KINDS[0], KINDS[1], KINDS[2], "except"]);
    // An empty string counts as not written, as in Cilium.
    let written = |name: &str| field(object, name).filter(|value| value.as_str() != Some(""));
    let used: Vec<&str> = KINDS
        .into_iter()
        .filter(|name| written(name).is_some())
        .collect();
    if used.len() != 1 {
        let reason = "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be written";
        checker.error(at, Fault::missing(reason));
    }
    for name in &KINDS[1..] {
        if let Some(value) = written(name).filter(|_| !around.held) {
            let fault = Fault::new(value, format!("{name} is not supported yet"));
            checker.error(&at.key(name), fault.suggest("use cidr"));
        }
    }
    let cidr = written("cidr").and_then(|value| read_cidr(checker, &at.key("cidr"), value));
    let mut except = Vec::new();
    let at_except = at.key("except");
    if let Some(list) = field(object, "except").and_then(|list| checker.list(&at_except, list)) {
        for (index, value) in list.iter().enumerate() {
            let at = at_except.index(index);
            let Some(prefix) = read_cidr(checker, &at, value) else {
                continue;
            };
            if let Some(cidr) = cidr {
                check_except(checker, &at, value, cidr, prefix);
            }
            except.push(prefix);
        }
    }
    except.sort();
    except.dedup();
    cidr.map(|cidr| Peer::Cidr { cidr, except })
}

/// None: neither `toPorts` nor `icmps` is written, or both are empty.
fn read_ports(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around,
) -> Option<Ports> {
    let at_ports = at.key("toPorts");
    let at_icmps = at.key("icmps");
    let to_ports = field(object, "toPorts")
        .and_then(|value| checker.list(&at_ports, value))
        .filter(|list| !list.is_empty());
    let icmps = field(object, "icmps")
        .and_then(|value| checker.list(&at_icmps, value))
        .filter(|list| !list.is_empty());
    if to_ports.is_some() && icmps.is_some() {
        let reason = "toPorts and icmps in one item are not allowed";
        checker.error(at, Fault::missing(reason).suggest("write two items"));
    }
    let mut matches = Vec::new();
    if let Some(list) = to_ports {
        matches.extend(read_to_ports(
            checker,
            &at_ports,
            list,
            around.section,
            around.held,
        ));
    }
    if let Some(list) = icmps {
        matches.extend(read_icmps(checker, &at_icmps, list));
    }
    (to_ports.is_some() || icmps.is_some()).then_some(Ports::Some(matches))
}
