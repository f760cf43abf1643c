//! Protocols and ports that neither side tells apart, and their names.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use palisade_abi::proto;

use crate::policy::explain::LINK_CONTROL_STARTS;
use crate::policy::language::{L4Match, Ports};
use crate::policy::oracle::Book;
use crate::policy::{Direction, Packet};

/// Packets of which each is judged as any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PacketClass {
    pub(super) protocol: Protocol,
    /// Ports, types or protocol numbers.
    pub(super) values: RangeInclusive16,
}

/// An inclusive range that can be ordered.
pub(super) type RangeInclusive16 = (u16, u16);

/// A line of values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Protocol {
    /// TCP, UDP, SCTP.
    WithPorts(u8),
    Icmp,
    Icmpv6,
    /// Every other protocol, by number.
    Other,
    Fragment,
}

impl Protocol {
    /// All of them, in the order in which they are told.
    const ALL: [Self; 7] = [
        Self::WithPorts(proto::TCP),
        Self::WithPorts(proto::UDP),
        Self::WithPorts(proto::SCTP),
        Self::Icmp,
        Self::Icmpv6,
        Self::Other,
        Self::Fragment,
    ];

    fn values(self) -> RangeInclusive<u16> {
        match self {
            Self::WithPorts(_) => 0..=u16::MAX,
            Self::Icmp | Self::Icmpv6 | Self::Other => 0..=255,
            Self::Fragment => 0..=0,
        }
    }

    /// Whether a peer of a family can send it.
    fn belongs_to(self, ipv6: bool) -> bool {
        match self {
            Self::Icmp => !ipv6,
            Self::Icmpv6 => ipv6,
            Self::WithPorts(_) | Self::Other | Self::Fragment => true,
        }
    }
}

/// Every class that both sides together tell apart in a direction.
pub(super) fn classes(books: &[Book<'_>; 2], direction: Direction) -> Vec<PacketClass> {
    let mut starts: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for protocol in Protocol::ALL {
        starts.insert((protocol, *protocol.values().start()));
    }
    // What stands on other lines is not on that of the other protocols.
    for number in [
        proto::TCP,
        proto::UDP,
        proto::SCTP,
        proto::ICMP,
        proto::ICMPV6,
    ] {
        cut(
            &mut starts,
            Protocol::Other,
            u16::from(number),
            u16::from(number),
        );
    }
    for book in books {
        for ports in book.ports_in_use(direction) {
            let Ports::Some(matches) = ports else {
                continue;
            };
            for l4 in matches {
                cut_at(&mut starts, l4);
            }
        }
        for named in book.all_named_ports(direction) {
            let protocol = Protocol::WithPorts(named.protocol.number());
            cut(&mut starts, protocol, named.port, named.port);
        }
        for (number, value) in book.failsafe_packets(direction) {
            match number {
                proto::TCP | proto::UDP | proto::SCTP => {
                    cut(&mut starts, Protocol::WithPorts(number), value, value);
                }
                proto::ICMP => cut(&mut starts, Protocol::Icmp, value, value),
                proto::ICMPV6 => cut(&mut starts, Protocol::Icmpv6, value, value),
                other => {
                    let other = u16::from(other);
                    cut(&mut starts, Protocol::Other, other, other);
                }
            }
        }
    }
    // What always passes, and what never does, is told apart too.
    for start in LINK_CONTROL_STARTS {
        starts.insert((Protocol::Icmpv6, u16::from(start)));
    }
    let starts: Vec<(Protocol, u16)> = starts.into_iter().collect();
    let ends = starts.iter().skip(1).map(Some).chain([None]);
    let classes = starts.iter().zip(ends).map(|((protocol, first), next)| {
        let last = match next {
            Some((same, start)) if same == protocol => start - 1,
            _ => *protocol.values().end(),
        };
        PacketClass {
            protocol: *protocol,
            values: (*first, last),
        }
    });
    classes.filter(|class| !class.stands_elsewhere()).collect()
}

fn cut_at(starts: &mut BTreeSet<(Protocol, u16)>, l4: &L4Match) {
    match l4 {
        L4Match::Ports {
            protocol,
            first,
            last,
        } => cut(
            starts,
            Protocol::WithPorts(protocol.number()),
            *first,
            *last,
        ),
        L4Match::Protocol(number) => {
            cut(
                starts,
                Protocol::Other,
                u16::from(*number),
                u16::from(*number),
            );
        }
        L4Match::Icmp(kind) => cut(starts, Protocol::Icmp, u16::from(*kind), u16::from(*kind)),
        L4Match::Icmpv6(kind) => {
            cut(starts, Protocol::Icmpv6, u16::from(*kind), u16::from(*kind));
        }
        // By number, with all named ports.
        L4Match::Named { .. } => {}
    }
}

/// Makes a range begin and end with a class.
fn cut(starts: &mut BTreeSet<(Protocol, u16)>, protocol: Protocol, first: u16, last: u16) {
    starts.insert((protocol, first));
    if last < *protocol.values().end() {
        starts.insert((protocol, last + 1));
    }
}

impl PacketClass {
    fn stands_elsewhere(&self) -> bool {
        let numbers = [
            proto::TCP,
            proto::UDP,
            proto::SCTP,
            proto::ICMP,
            proto::ICMPV6,
        ];
        self.protocol == Protocol::Other
            && numbers
                .into_iter()
                .any(|number| u16::from(number) == self.values.0)
    }

    /// One packet of the class; None where the family has none.
    pub(super) fn packet(&self, ipv6: bool) -> Option<Packet> {
        if !self.protocol.belongs_to(ipv6) {
            return None;
        }
        let small = u8::try_from(self.values.0).unwrap_or(u8::MAX);
        Some(match self.protocol {
            Protocol::WithPorts(proto) => Packet::Port {
                proto,
                port: self.values.0,
            },
            Protocol::Icmp => Packet::Icmp { icmp_type: small },
            Protocol::Icmpv6 => Packet::Icmpv6 { icmp_type: small },
            Protocol::Other => Packet::Other { proto: small },
            Protocol::Fragment => Packet::Fragment,
        })
    }
}

/// The names of classes: ranges joined, whole protocols by their name alone.
/// `whole`: all classes that the peers can send.
pub(super) fn names(classes: &[&PacketClass], whole: &[&PacketClass]) -> Vec<String> {
    if classes.len() == whole.len() {
        return vec!["any".to_owned()];
    }
    let mut names = Vec::new();
    for protocol in Protocol::ALL {
        let of = |list: &[&PacketClass]| -> Vec<RangeInclusive16> {
            let mut ranges: Vec<RangeInclusive16> = Vec::new();
            for class in list.iter().filter(|class| class.protocol == protocol) {
                match ranges.last_mut() {
                    Some(last) if last.1.checked_add(1) == Some(class.values.0) => {
                        last.1 = class.values.1;
                    }
                    _ => ranges.push(class.values),
                }
            }
            ranges
        };
        let ranges = of(classes);
        if ranges == of(whole) && !ranges.is_empty() {
            names.push(whole_name(protocol));
            continue;
        }
        names.extend(ranges.into_iter().map(|range| name(protocol, range)));
    }
    names
}

fn whole_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::WithPorts(proto::TCP) => "tcp",
        Protocol::WithPorts(proto::UDP) => "udp",
        Protocol::WithPorts(_) => "sctp",
        Protocol::Icmp => "icmp",
        Protocol::Icmpv6 => "icmpv6",
        Protocol::Other => "other protocols",
        Protocol::Fragment => "fragments without ports",
    }
    .to_owned()
}

fn name(protocol: Protocol, (first, last): RangeInclusive16) -> String {
    let protocol = match protocol {
        Protocol::Other => "protocol".to_owned(),
        Protocol::WithPorts(_) | Protocol::Icmp | Protocol::Icmpv6 | Protocol::Fragment => {
            whole_name(protocol)
        }
    };
    if first == last {
        format!("{protocol}/{first}")
    } else {
        format!("{protocol}/{first}-{last}")
    }
}
