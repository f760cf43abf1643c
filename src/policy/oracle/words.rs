//! What stood in a rule's way, for people.

use super::book::Book;
use super::labels::failing;
use super::peers::cidrs_match;
use super::ports::named;
use super::who::{Side, Who};
use crate::identity::LabelSet;
use crate::policy::language::{
    CidrGroups, Item, L4Match, LabelSelector, Operator, Peer, Peers, PortProtocol, Ports,
    Requirement, RuleSubject,
};
use crate::policy::{Direction, Packet};

/// Parts of a list that are told; the others are counted.
const TOLD_MAX: usize = 4;

/// Why a rule does not select this host.
pub(super) fn subject(subject: &RuleSubject, host: &LabelSet) -> String {
    match subject {
        RuleSubject::Endpoint(_) => "endpointSelector never selects the host".to_owned(),
        RuleSubject::Node(selector) => match failing(selector, host) {
            Some(wanted) => format!(
                "nodeSelector {}, this node has {}",
                requirement(wanted),
                has(wanted, host)
            ),
            None => "the nodeSelector selects this node".to_owned(),
        },
    }
}

/// Why the peers of an item do not hold a peer.
pub(super) fn peers(book: &Book<'_>, item: &Item, who: &Who) -> String {
    let Peers::Select(peers) = &item.peers else {
        return "every peer matches".to_owned();
    };
    if peers.is_empty() && item.ports == Ports::All {
        return "the item names neither peers nor ports: it selects nobody".to_owned();
    }
    if peers.is_empty() {
        return "the list of peers is empty: it selects nobody".to_owned();
    }
    list(peers.iter().map(|one| peer(book, one, who)), peers.len())
}

fn peer(book: &Book<'_>, peer: &Peer, who: &Who) -> String {
    let address = who.address;
    match peer {
        Peer::Entity(entity) => {
            format!("{address} is {}, not entity {}", is(who), entity.as_str())
        }
        Peer::Cidr { cidr, except } => {
            let inside = cidr.contains(&address);
            let excepted = except.iter().find(|prefix| prefix.contains(&address));
            match excepted {
                _ if !inside => format!("{address} is not in {cidr}"),
                Some(prefix) => format!("{address} is in {prefix}, which is excepted from {cidr}"),
                None => no_cidr(who),
            }
        }
        Peer::CidrGroup { groups, .. } => {
            let found = book.groups_of(groups);
            let mut prefixes = found.iter().flat_map(|(_, group)| &group.cidrs);
            let inside = prefixes.any(|prefix| prefix.contains(&address));
            match groups {
                CidrGroups::Named(name) if found.is_empty() => {
                    format!("there is no CiliumCIDRGroup {name}")
                }
                CidrGroups::Labelled(labels) if found.is_empty() => {
                    format!("no CiliumCIDRGroup has {}", selector(labels))
                }
                _ if inside && !cidrs_match(book, who) => no_cidr(who),
                _ if inside => format!("{address} is excepted from {peer}"),
                _ => format!("{address} is not in {peer}"),
            }
        }
        Peer::Endpoints(selector) | Peer::Nodes(selector) => match failing(selector, &who.labels) {
            Some(wanted) => format!(
                "{address} is {}: {} is wanted, it has {}",
                is(who),
                requirement(wanted),
                has(wanted, &who.labels)
            ),
            None => format!("{address} is {}, not another node", is(who)),
        },
        Peer::Services(reference) if book.services_of(reference).is_empty() => {
            format!("there is no {peer}")
        }
        Peer::Services(_) => format!("{address} is {}, and not behind {peer}", is(who)),
    }
}

fn no_cidr(who: &Who) -> String {
    let kind = match who.side {
        Side::Host => "this host",
        Side::RemoteNode => "nodes",
        Side::Workload => "pods",
        Side::World => "this",
    };
    format!(
        "{} is {}, CIDR rules do not match {kind}",
        who.address,
        is(who)
    )
}

/// `reserved:remote-node (a node)`
fn is(who: &Who) -> String {
    let (label, kind) = match who.side {
        Side::Host => ("reserved:host", "this host"),
        Side::RemoteNode => ("reserved:remote-node", "a node"),
        Side::World => ("reserved:world", "outside of the cluster"),
        Side::Workload => {
            let mut labels = who.labels.to_strings();
            labels.retain(|label| !label.starts_with("k8s:io."));
            let count = labels.len();
            return format!("{} (a pod)", list(labels.into_iter(), count));
        }
    };
    format!("{label} ({kind})")
}

/// Why the ports of an item do not hold a packet.
pub(super) fn ports(
    book: &Book<'_>,
    ports: &Ports,
    direction: Direction,
    who: &Who,
    packet: Packet,
) -> String {
    let Ports::Some(matches) = ports else {
        return "every protocol matches".to_owned();
    };
    let asked = packet_words(packet);
    if matches.is_empty() {
        return format!("{asked}, the rule has no port at all");
    }
    let one = |l4: &L4Match| match l4 {
        L4Match::Named { protocol, name } => {
            let known = named(book, direction, who, *protocol, name);
            let numbers = known.iter().map(ToString::to_string);
            let meaning = match (known.is_empty(), direction) {
                (false, _) => numbers.collect::<Vec<_>>().join(", "),
                (true, Direction::Ingress) => "no named port of this host".to_owned(),
                (true, Direction::Egress) => "no named port of this peer".to_owned(),
            };
            format!("{} {name} ({meaning})", protocol_words(*protocol))
        }
        L4Match::Ports { .. } | L4Match::Protocol(_) | L4Match::Icmp(_) | L4Match::Icmpv6(_) => {
            l4_words(l4)
        }
    };
    let rule = list(matches.iter().map(one), matches.len());
    format!("{asked}, the rule has {rule}")
}

fn packet_words(packet: Packet) -> String {
    match packet {
        Packet::Port { proto: 6, port } => format!("TCP {port}"),
        Packet::Port { proto: 17, port } => format!("UDP {port}"),
        Packet::Port { proto: 132, port } => format!("SCTP {port}"),
        Packet::Port { proto, port } => format!("protocol {proto} port {port}"),
        Packet::Icmp { icmp_type } => format!("ICMP type {icmp_type}"),
        Packet::Icmpv6 { icmp_type } => format!("ICMPv6 type {icmp_type}"),
        Packet::Other { proto } => format!("protocol {proto}"),
        Packet::Fragment => "a fragment without ports".to_owned(),
    }
}

fn l4_words(l4: &L4Match) -> String {
    match l4 {
        L4Match::Ports {
            protocol,
            first,
            last,
        } => {
            let protocol = protocol_words(*protocol);
            match (first, last) {
                (0, &u16::MAX) => format!("every {protocol} port"),
                _ if first == last => format!("{protocol} {first}"),
                _ => format!("{protocol} {first}-{last}"),
            }
        }
        L4Match::Named { protocol, name } => format!("{} {name}", protocol_words(*protocol)),
        L4Match::Protocol(number) => format!("protocol {number}"),
        L4Match::Icmp(kind) => format!("ICMP type {kind}"),
        L4Match::Icmpv6(kind) => format!("ICMPv6 type {kind}"),
    }
}

fn protocol_words(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
    }
}

fn selector(selector: &LabelSelector) -> String {
    let all: Vec<String> = selector.requirements.iter().map(requirement).collect();
    all.join(", ")
}

/// `role=db`, `!role`, `k8s:role in (a, b)`.
fn requirement(wanted: &Requirement) -> String {
    let key = match &wanted.source {
        None => wanted.key.clone(),
        Some(source) => format!("{source}:{}", wanted.key),
    };
    let values = wanted.values.join(", ");
    match wanted.operator {
        Operator::In if wanted.values.len() == 1 => format!("{key}={values}"),
        Operator::In => format!("{key} in ({values})"),
        Operator::NotIn => format!("{key} not in ({values})"),
        Operator::Exists => format!("label {key}"),
        Operator::DoesNotExist => format!("no label {key}"),
    }
}

/// What labels say about a wanted key.
fn has(wanted: &Requirement, labels: &LabelSet) -> String {
    let found = labels.iter().filter(|label| label.key == wanted.key);
    let found: Vec<String> = found
        .map(|label| {
            let mut text = label.key.clone();
            if wanted
                .source
                .as_deref()
                .is_some_and(|source| source != "k8s")
            {
                text = format!("{}:{text}", label.source);
            }
            if !label.value.is_empty() {
                text = format!("{text}={}", label.value);
            }
            text
        })
        .collect();
    if found.is_empty() {
        return format!("no label {}", wanted.key);
    }
    found.join(", ")
}

/// The first of many, and how many more there are.
fn list(parts: impl Iterator<Item = String>, count: usize) -> String {
    let told: Vec<String> = parts.take(TOLD_MAX).collect();
    let rest = count - told.len();
    let told = told.join("; ");
    if rest == 0 {
        told
    } else {
        format!("{told}; and {rest} more")
    }
}
