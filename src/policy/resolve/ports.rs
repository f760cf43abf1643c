//! Ports of items, on one line of keys: TCP, UDP, SCTP, OTHER.

use std::collections::HashMap;
use std::ops::Range;

use palisade_abi::table::column;

use super::items::number;
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
    /// Ports whose number is the peer's: numbers of names.
    pub(super) names: Vec<u32>,
    /// Whether it is every protocol.
    pub(super) all: bool,
    /// Whether a fragment without ports may be meant; by a name whose meaning
    /// is the peer's, only where it has one.
    pub(super) may_be_fragment: bool,
}

impl PortSet {
    /// Whether it holds a column, by a key of it.
    fn has(&self, key: usize) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= key);
        let range = self.ranges.get(after);
        self.all || range.is_some_and(|range| range.contains(&key))
    }
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

/// Numbers distinct ports and names, and counts the items that use them.
#[derive(Debug)]
pub(super) struct PortSets {
    /// What names mean, where that is the same for all peers.
    named: Option<Vec<NamedPort>>,
    numbers: HashMap<Ports, u32>,
    sets: Vec<PortSet>,
    users: Vec<u32>,
    /// Ranges that have come into use (true) or gone out of it.
    changes: Vec<(Range<usize>, bool)>,
    name_numbers: HashMap<PortName, u32>,
}

impl PortSets {
    pub(super) fn new(named: Option<Vec<NamedPort>>) -> Self {
        Self {
            named,
            numbers: HashMap::new(),
            sets: Vec::new(),
            users: Vec::new(),
            changes: Vec::new(),
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
        self.users.push(0);
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

    /// One item more uses these ports, or one less.
    pub(super) fn count(&mut self, number: u32, is_more: bool) {
        let users = &mut self.users[number as usize];
        *users = if is_more { *users + 1 } else { *users - 1 };
        let set = &self.sets[number as usize];
        // All ports tell none apart.
        if *users == u32::from(is_more) && !set.all {
            let ranges = set.ranges.iter().cloned();
            self.changes.extend(ranges.map(|range| (range, is_more)));
        }
    }

    /// The numbers of ports in use that hold one column of such a pair and not
    /// the other, where a column is given by a key.
    pub(super) fn that_tell(&self, columns: &[(usize, usize)]) -> Vec<u32> {
        let used = (0..).zip(self.sets.iter().zip(&self.users));
        let used = used.filter(|(_, (_, users))| **users > 0);
        let tells = |set: &PortSet| {
            columns
                .iter()
                .any(|pair| set.has(pair.0) != set.has(pair.1))
        };
        let telling = used.filter(|(_, (set, _))| tells(set));
        telling.map(|(number, _)| number).collect()
    }

    /// Ranges that have come into use or gone out of it since this was asked last.
    pub(super) fn take_changes(&mut self) -> Vec<(Range<usize>, bool)> {
        std::mem::take(&mut self.changes)
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
        let next = number(self.name_numbers.len());
        *self.name_numbers.entry(name).or_insert(next)
    }
}

/// Sorts ranges and joins those that touch or overlap.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => joined.push(range),
        }
    }
    joined
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
