//! Ports of items, as ranges of keys.

use std::collections::HashMap;
use std::ops::Range;

use palisade_abi::table::{class, key};

use super::items::number;
use crate::policy::FailsafeEntry;
use crate::policy::language::{L4Match, NamedPort, PortProtocol, Ports};
use crate::policy::row::KEYS;

/// Ports of items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PortSet {
    /// Sorted, neither touching nor overlapping.
    pub(super) ranges: Vec<Range<u32>>,
    /// Ports whose number is the peer's: numbers of names.
    pub(super) names: Vec<u32>,
    /// Whether it is every protocol.
    pub(super) all: bool,
    /// Whether a fragment without ports may be meant; by a name whose meaning
    /// is the peer's, only where it has one.
    pub(super) may_be_fragment: bool,
}

/// The name of a port of a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PortName {
    pub(super) protocol: PortProtocol,
    pub(super) name: String,
}

/// The key of a port.
pub(super) fn position(protocol: PortProtocol, port: u16) -> u32 {
    key(protocol as u32, port)
}

/// Numbers distinct ports and names.
#[derive(Debug)]
pub(super) struct PortSets {
    /// What names mean, where that is the same for all peers.
    named: Option<Vec<NamedPort>>,
    numbers: HashMap<Ports, u32>,
    sets: Vec<PortSet>,
    name_numbers: HashMap<PortName, u32>,
}

impl PortSets {
    pub(super) fn new(named: Option<Vec<NamedPort>>) -> Self {
        Self {
            named,
            numbers: HashMap::new(),
            sets: Vec::new(),
            name_numbers: HashMap::new(),
        }
    }

    /// The number of these ports.
    pub(super) fn number(&mut self, ports: &Ports) -> u32 {
        if let Some(number) = self.numbers.get(ports) {
            return *number;
        }
        let next = number(self.sets.len());
        self.numbers.insert(ports.clone(), next);
        let set = self.port_set(ports);
        self.sets.push(set);
        next
    }

    /// The ports with a number.
    pub(super) fn get(&self, number: u32) -> &PortSet {
        &self.sets[number as usize]
    }

    /// The number of a name, if an item has ever used it.
    pub(super) fn name_number(&self, name: &PortName) -> Option<u32> {
        self.name_numbers.get(name).copied()
    }

    fn port_set(&mut self, ports: &Ports) -> PortSet {
        let Ports::Some(matches) = ports else {
            return PortSet {
                ranges: std::iter::once(0..KEYS).collect(),
                names: Vec::new(),
                all: true,
                may_be_fragment: true,
            };
        };
        let mut ranges = Vec::with_capacity(matches.len());
        let mut names = Vec::new();
        let mut may_be_fragment = false;
        for l4 in matches {
            let known = ranges.len();
            match l4 {
                L4Match::Ports {
                    protocol,
                    first,
                    last,
                } => ranges.push(position(*protocol, *first)..position(*protocol, *last) + 1),
                L4Match::Named { protocol, name } => match &self.named {
                    Some(named) => ranges.extend(
                        named
                            .iter()
                            .filter(|port| port.protocol == *protocol && port.name == *name)
                            .map(|port| one(position(*protocol, port.port))),
                    ),
                    None => names.push(self.name(*protocol, name)),
                },
                L4Match::Protocol(number) => {
                    ranges.push(other(class::OTHER_PROTOCOL, *number));
                }
                L4Match::Icmp(kind) => ranges.push(other(class::OTHER_ICMP, *kind)),
                L4Match::Icmpv6(kind) => ranges.push(other(class::OTHER_ICMPV6, *kind)),
            }
            let by_protocol = matches!(l4, L4Match::Protocol(_));
            may_be_fragment |= ranges.len() > known && !by_protocol;
        }
        names.sort_unstable();
        names.dedup();
        PortSet {
            ranges: joined(ranges),
            names,
            all: false,
            may_be_fragment,
        }
    }

    fn name(&mut self, protocol: PortProtocol, name: &str) -> u32 {
        let name = PortName {
            protocol,
            name: name.to_owned(),
        };
        let next = number(self.name_numbers.len());
        *self.name_numbers.entry(name).or_insert(next)
    }
}

/// Sorts ranges and joins those that touch or overlap.
fn joined(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

fn one(position: u32) -> Range<u32> {
    position..position + 1
}

fn other(base: u32, value: u8) -> Range<u32> {
    one(key(class::OTHER, 0) + base + u32::from(value))
}

/// The ports of a failsafe entry; for ICMP its port is the type, 0 every type.
pub(super) fn failsafe_ports(entry: &FailsafeEntry) -> Ports {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let protocol = PortProtocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == entry.proto);
    if let Some(protocol) = protocol {
        let (first, last) = match entry.port {
            0 => (0, u16::MAX),
            port => (port, port),
        };
        return Ports::Some(vec![L4Match::Ports {
            protocol,
            first,
            last,
        }]);
    }
    let icmp: fn(u8) -> L4Match = match entry.proto {
        ICMP => L4Match::Icmp,
        ICMPV6 => L4Match::Icmpv6,
        other => return Ports::Some(vec![L4Match::Protocol(other)]),
    };
    Ports::Some(match entry.port {
        0 => (0..=u8::MAX).map(icmp).collect(),
        port => u8::try_from(port).map(icmp).into_iter().collect(),
    })
}

const _: () = assert!(PortProtocol::Tcp as u32 == class::TCP);
const _: () = assert!(PortProtocol::Udp as u32 == class::UDP);
const _: () = assert!(PortProtocol::Sctp as u32 == class::SCTP);
const _: () = assert!(class::OTHER == 3);
