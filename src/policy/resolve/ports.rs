//! Ports of items, on one line of keys: TCP, UDP, SCTP, OTHER.

use std::collections::HashMap;
use std::ops::Range;

use palisade_abi::table::column;

use super::classes::joined;
use super::gather::number;
use crate::policy::FailsafeEntry;
use crate::policy::language::{L4Match, NamedPort, PortProtocol, Ports};

/// Keys of all column classes on the line, without the key of fragments.
pub(super) const KEYS: usize = 3 * PORT_KEYS + column::OTHER_FRAGMENT as usize;
/// Keys of a class with ports.
pub(super) const PORT_KEYS: usize = 65_536;
/// Where class OTHER begins on the line.
const OTHER: usize = 3 * PORT_KEYS;

/// Ports of items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PortSet {
    /// Sorted, neither touching nor overlapping.
    pub(super) ranges: Vec<Range<usize>>,
    /// Ports whose number is the peer's: places in the list of names.
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

/// The key of a port on the line.
pub(super) fn position(protocol: PortProtocol, port: u16) -> usize {
    protocol as usize * PORT_KEYS + usize::from(port)
}

/// Numbers distinct ports and names.
pub(super) struct PortSets<'a> {
    /// What names mean, where that is the same for all peers.
    named: Option<&'a [NamedPort]>,
    numbers: HashMap<Ports, u32>,
    sets: Vec<PortSet>,
    name_numbers: HashMap<PortName, u32>,
    names: Vec<PortName>,
}

impl<'a> PortSets<'a> {
    pub(super) fn new(named: Option<&'a [NamedPort]>) -> Self {
        Self {
            named,
            numbers: HashMap::new(),
            sets: Vec::new(),
            name_numbers: HashMap::new(),
            names: Vec::new(),
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

    /// The sets and the names, by number.
    pub(super) fn done(self) -> (Vec<PortSet>, Vec<PortName>) {
        (self.sets, self.names)
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
                L4Match::Named { protocol, name } => match self.named {
                    Some(named) => ranges.extend(
                        named
                            .iter()
                            .filter(|port| port.protocol == *protocol && port.name == *name)
                            .map(|port| one(position(*protocol, port.port))),
                    ),
                    None => names.push(self.name(*protocol, name)),
                },
                L4Match::Protocol(number) => {
                    ranges.push(other(column::OTHER_PROTOCOL, *number));
                }
                L4Match::Icmp(kind) => ranges.push(other(column::OTHER_ICMP, *kind)),
                L4Match::Icmpv6(kind) => ranges.push(other(column::OTHER_ICMPV6, *kind)),
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
        let next = number(self.names.len());
        *self.name_numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }
}

fn one(position: usize) -> Range<usize> {
    position..position + 1
}

fn other(base: u32, value: u8) -> Range<usize> {
    one(OTHER + base as usize + usize::from(value))
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

const _: () = assert!(PortProtocol::Tcp as u32 == column::TCP);
const _: () = assert!(PortProtocol::Udp as u32 == column::UDP);
const _: () = assert!(PortProtocol::Sctp as u32 == column::SCTP);
const _: () = assert!(column::OTHER == 3);
