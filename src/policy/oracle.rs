//! The plain reading of rules and packet: every item of every rule is asked,
//! one after another.
//!
//! Slow and obvious. It answers `palisade policy explain`, and the tests hold
//! the tables against it; so it shares no code with them beyond the rules.

use std::net::IpAddr;

use super::language::{Entity, Item, L4Match, Peer, Peers, Ports, RuleSubject};
use super::{
    Direction, EnforcementMode, FailsafeEntry, Packet, PolicySnapshot, RuleRef, Section, Subject,
};
use crate::events::ResourceKey;
use crate::identity::{IdentityNumber, IpcacheEntry, Reserved, longest_match};

/// What the rules say about a packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    pub outcome: Outcome,
    /// The item that decided.
    pub rule: Option<RuleRef>,
    pub enforced: bool,
    /// The policies that make the direction default-deny.
    pub enforcing: Vec<ResourceKey>,
    /// Each item of the direction that did not match, and why.
    pub passed_over: Vec<(RuleRef, &'static str)>,
}

/// The end of a judgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// The direction is not enforced.
    #[default]
    NotEnforced,
    /// A rule allows.
    Allowed,
    /// No rule denies, and none makes the direction default-deny.
    AllowedByDefault,
    /// A deny rule matches.
    Denied,
    /// No rule allows.
    NotAllowed,
    /// A fragment without ports that the ports of some rule decide about.
    FragmentUnknown,
}

/// The sides on which an address can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    RemoteNode,
    World,
    Unknown,
}

fn side(entry: Option<IpcacheEntry>) -> Side {
    match entry.map(|entry| entry.identity) {
        None => Side::Unknown,
        Some(number) if number == Reserved::Host.number() => Side::Host,
        Some(number)
            if number == Reserved::RemoteNode.number() || number >= IdentityNumber::NODE_FIRST =>
        {
            Side::RemoteNode
        }
        Some(_) => Side::World,
    }
}

/// Judges one packet from or to `address`.
#[must_use]
pub fn judge(
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
    address: IpAddr,
    packet: Packet,
) -> Judgement {
    let mut judgement = Judgement::default();
    if snapshot.options.enforcement == EnforcementMode::Never {
        return judgement;
    }
    let entry = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, address);
    let side = side(entry.map(|(_, entry)| entry));
    let Asked {
        matching,
        uncertain,
    } = ask(
        snapshot,
        subject,
        direction,
        (address, side),
        packet,
        &mut judgement,
    );
    judgement.enforced |= snapshot.options.enforcement == EnforcementMode::Always;
    if !judgement.enforced {
        judgement.passed_over.clear();
        return judgement;
    }
    let open =
        judgement.enforcing.is_empty() && snapshot.options.enforcement != EnforcementMode::Always;
    let failsafe = snapshot
        .options
        .failsafe
        .iter()
        .position(|entry| failsafe_matches(entry, direction, address, side, packet));
    let first = |deny: bool| {
        matching
            .iter()
            .filter(|(_, is_deny)| *is_deny == deny)
            .map(|(rule, _)| rule)
            .min()
            .cloned()
    };
    (judgement.outcome, judgement.rule) = if let Some(index) = failsafe {
        let rule = RuleRef {
            resource: None,
            section: Section::Failsafe,
            index,
        };
        (Outcome::Allowed, Some(rule))
    } else if let Some(rule) = first(true) {
        (Outcome::Denied, Some(rule))
    } else if let Some(rule) = uncertain.into_iter().min() {
        (Outcome::FragmentUnknown, Some(rule))
    } else if let Some(rule) = first(false) {
        (Outcome::Allowed, Some(rule))
    } else if open {
        (Outcome::AllowedByDefault, None)
    } else if packet == Packet::Fragment {
        (Outcome::FragmentUnknown, None)
    } else {
        (Outcome::NotAllowed, None)
    };
    judgement
}

/// The items that match.
#[derive(Default)]
struct Asked {
    /// With whether it denies.
    matching: Vec<(RuleRef, bool)>,
    /// Denies that may be meant for a fragment.
    uncertain: Vec<RuleRef>,
}

/// Asks every item of the direction.
fn ask(
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
    (address, side): (IpAddr, Side),
    packet: Packet,
    judgement: &mut Judgement,
) -> Asked {
    let mut asked = Asked::default();
    for (rule, item) in items(snapshot, subject, direction, judgement) {
        if !peers_match(&item.peers, address, side) {
            judgement.passed_over.push((rule, "its peers do not match"));
            continue;
        }
        match ports_match(&item.ports, packet) {
            PortsMatch::Yes => asked.matching.push((rule, item.section.is_deny())),
            PortsMatch::No => judgement.passed_over.push((rule, "its ports do not match")),
            PortsMatch::Maybe => {
                if item.section.is_deny() {
                    asked.uncertain.push(rule);
                } else {
                    let why = "its ports are not known of a fragment";
                    judgement.passed_over.push((rule, why));
                }
            }
        }
    }
    asked
}

/// The items of the direction in the rules that select the subject; notes who
/// enforces.
fn items<'a>(
    snapshot: &'a PolicySnapshot,
    subject: Subject,
    direction: Direction,
    judgement: &mut Judgement,
) -> Vec<(RuleRef, &'a Item)> {
    let labels = match subject {
        Subject::Host(_) => &snapshot.host_labels,
    };
    let mut found = Vec::new();
    for (key, stored) in snapshot.policies.iter() {
        for rule in &stored.policy.rules {
            let selects = match &rule.subject {
                RuleSubject::Node(selector) => selector.matches(labels),
                RuleSubject::Endpoint(_) => false,
            };
            let of_direction = rule
                .items
                .iter()
                .filter(|item| item.section.direction() == Some(direction));
            if !selects || of_direction.clone().count() == 0 {
                continue;
            }
            judgement.enforced = true;
            let denies_by_default = rule.default_deny[direction as usize] != Some(false);
            if denies_by_default && !judgement.enforcing.contains(key) {
                judgement.enforcing.push(key.clone());
            }
            found.extend(of_direction.map(|item| {
                let rule = RuleRef {
                    resource: Some(key.clone()),
                    section: item.section,
                    index: item.index,
                };
                (rule, item)
            }));
        }
    }
    found
}

fn peers_match(peers: &Peers, address: IpAddr, side: Side) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Select(peers) => peers.iter().any(|peer| match peer {
            Peer::Entity(entity) => entity_matches(*entity, address, side),
            Peer::Cidr { cidr, except } => {
                side == Side::World
                    && cidr.contains(&address)
                    && !except.iter().any(|prefix| prefix.contains(&address))
            }
            Peer::CidrGroup { .. } | Peer::Endpoints(_) | Peer::Nodes(_) | Peer::Services(_) => {
                false
            }
        }),
    }
}

fn entity_matches(entity: Entity, address: IpAddr, side: Side) -> bool {
    match entity {
        Entity::All => true,
        Entity::World => side == Side::World,
        Entity::WorldIpv4 => side == Side::World && address.is_ipv4(),
        Entity::WorldIpv6 => side == Side::World && address.is_ipv6(),
        Entity::Cluster | Entity::ClusterMesh => {
            matches!(side, Side::Host | Side::RemoteNode)
        }
        Entity::Host => side == Side::Host,
        Entity::RemoteNode => side == Side::RemoteNode,
        // No address has these yet.
        Entity::KubeApiserver
        | Entity::Health
        | Entity::Init
        | Entity::Ingress
        | Entity::Unmanaged
        | Entity::None => false,
    }
}

enum PortsMatch {
    Yes,
    No,
    /// A fragment, of which the ports are not known.
    Maybe,
}

fn ports_match(ports: &Ports, packet: Packet) -> PortsMatch {
    let Ports::Some(matches) = ports else {
        return PortsMatch::Yes;
    };
    let has_ports = |l4: &L4Match| !matches!(l4, L4Match::Protocol(_));
    if packet == Packet::Fragment && matches.iter().any(has_ports) {
        return PortsMatch::Maybe;
    }
    let yes = matches.iter().any(|l4| match (l4, packet) {
        (
            L4Match::Ports {
                protocol,
                first,
                last,
            },
            Packet::Port { proto, port },
        ) => protocol.number() == proto && (*first..=*last).contains(&port),
        (L4Match::Protocol(number), Packet::Other { proto }) => *number == proto,
        (L4Match::Icmp(kind), Packet::Icmp { icmp_type })
        | (L4Match::Icmpv6(kind), Packet::Icmpv6 { icmp_type }) => *kind == icmp_type,
        (
            L4Match::Ports { .. }
            | L4Match::Named { .. }
            | L4Match::Protocol(_)
            | L4Match::Icmp(_)
            | L4Match::Icmpv6(_),
            _,
        ) => false,
    });
    if yes { PortsMatch::Yes } else { PortsMatch::No }
}

fn failsafe_matches(
    entry: &FailsafeEntry,
    direction: Direction,
    address: IpAddr,
    side: Side,
    packet: Packet,
) -> bool {
    let any_port = entry.port == 0;
    let l4 = match packet {
        Packet::Port { proto, port } => entry.proto == proto && (any_port || entry.port == port),
        Packet::Icmp { icmp_type } => {
            entry.proto == 1 && (any_port || entry.port == u16::from(icmp_type))
        }
        Packet::Icmpv6 { icmp_type } => {
            entry.proto == 58 && (any_port || entry.port == u16::from(icmp_type))
        }
        // ICMP in IPv6, or ICMPv6 in IPv4, is neither.
        Packet::Other { proto } => entry.proto == proto && !matches!(proto, 1 | 58),
        Packet::Fragment => false,
    };
    entry.direction == direction.number()
        && l4
        && entry
            .peer
            .is_none_or(|peer| side != Side::Host && peer.contains(&address))
}
