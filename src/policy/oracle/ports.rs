//! Does an item speak of this packet?

use super::book::Book;
use super::who::{Side, Who};
use crate::policy::language::{L4Match, NamedPort, PortProtocol, Ports};
use crate::policy::{Direction, FailsafeEntry, Packet};

/// What the ports of an item say about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PortsMatch {
    Yes,
    No,
    /// A fragment, of which the ports are not known.
    Maybe,
}

/// Whether the ports of an item hold a packet from or to `who`.
pub(super) fn ports_match(
    book: &Book<'_>,
    ports: &Ports,
    direction: Direction,
    who: &Who,
    packet: Packet,
) -> PortsMatch {
    let Ports::Some(matches) = ports else {
        return PortsMatch::Yes;
    };
    for l4 in matches {
        let speaks = match (l4, packet) {
            // A protocol without ports is all that a fragment is told apart by.
            (L4Match::Protocol(_), Packet::Fragment) => false,
            (L4Match::Named { protocol, name }, Packet::Fragment) => {
                !named(book, direction, who, *protocol, name).is_empty()
            }
            (_, Packet::Fragment) => true,
            _ => false,
        };
        if speaks {
            return PortsMatch::Maybe;
        }
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
        (L4Match::Named { protocol, name }, Packet::Port { proto, port }) => {
            protocol.number() == proto
                && named(book, direction, who, *protocol, name).contains(&port)
        }
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

/// The ports behind a name: of this host for what comes in, of the peer's pods
/// for what goes out.
pub(super) fn named(
    book: &Book<'_>,
    direction: Direction,
    who: &Who,
    protocol: PortProtocol,
    name: &str,
) -> Vec<u16> {
    let known: Vec<&NamedPort> = match direction {
        Direction::Ingress => book.snapshot.options.named_ports.iter().collect(),
        Direction::Egress => book.named_ports(who).to_vec(),
    };
    known
        .into_iter()
        .filter(|port| port.protocol == protocol && port.name == name)
        .map(|port| port.port)
        .collect()
}

/// Whether a failsafe entry lets a packet pass.
pub(super) fn failsafe_matches(
    entry: &FailsafeEntry,
    direction: Direction,
    who: &Who,
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
    let peer = match entry.peer {
        None => true,
        Some(prefix) => who.side != Side::Host && prefix.contains(&who.address),
    };
    entry.direction == direction.number() && l4 && peer
}
