//! The items that decide for one endpoint and direction, in their order.

use std::collections::HashMap;
use std::ops::Range;

use palisade_abi::table::column;

use super::Subject;
use super::classes::joined;
use super::peers::positions;
use crate::events::ResourceKey;
use crate::identity::IdentityTable;
use crate::policy::language::{L4Match, Peers, PortProtocol, Ports, Rule};
use crate::policy::repository::selects_host;
use crate::policy::{
    Direction, EnforcementMode, FailsafeEntry, PolicySnapshot, RuleNumber, RuleRef, Section,
};

/// Keys of all column classes on one line: TCP, UDP, SCTP, OTHER without the
/// fragment key.
pub(super) const KEYS: usize = 3 * PORT_KEYS + column::OTHER_FRAGMENT as usize;
/// Keys of a class with ports.
pub(super) const PORT_KEYS: usize = 65_536;
/// Where class OTHER begins on the line.
const OTHER: usize = 3 * PORT_KEYS;

/// One item; its place in the list is its rank: the first that matches decides.
pub(super) struct Ranked {
    pub(super) allows: bool,
    pub(super) number: RuleNumber,
    /// Number of its peers among [`Gathered::peers`].
    pub(super) peers: u32,
    /// Number of its ports among [`Gathered::ports`].
    pub(super) ports: u32,
}

/// Ports of items, on the line of keys.
pub(super) struct PortSet {
    pub(super) ranges: Vec<Range<usize>>,
    /// Whether it is every protocol.
    pub(super) all: bool,
    /// Whether a fragment without ports may be meant.
    pub(super) may_be_fragment: bool,
}

/// Everything that one direction's table is made of.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) enforced: bool,
    /// What no item decides is allowed: no rule makes the direction default-deny.
    pub(super) open: bool,
    pub(super) enforcing: Vec<ResourceKey>,
    pub(super) items: Vec<Ranked>,
    /// Distinct peers, as positions in the identity table.
    pub(super) peers: Vec<Vec<Range<usize>>>,
    pub(super) ports: Vec<PortSet>,
}

/// The rules of a snapshot that select the subject.
fn selecting(
    snapshot: &PolicySnapshot,
    subject: Subject,
) -> impl Iterator<Item = (&ResourceKey, &Rule)> {
    let labels = match subject {
        Subject::Host(_) => &snapshot.host_labels,
    };
    snapshot
        .policies
        .iter()
        .filter(|(_, stored)| stored.selects_host)
        .flat_map(|(key, stored)| stored.policy.rules.iter().map(move |rule| (key, rule)))
        .filter(|(_, rule)| selects_host(rule, labels))
}

/// Gathers one direction.
pub(super) fn gather(
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
) -> Gathered {
    let mut gathered = Gathered::default();
    if snapshot.options.enforcement == EnforcementMode::Never {
        return gathered;
    }
    let always = snapshot.options.enforcement == EnforcementMode::Always;
    let numbers: HashMap<&RuleRef, RuleNumber> = snapshot
        .rules
        .iter()
        .map(|(number, entry)| (&entry.rule, *number))
        .collect();
    let mut interner = Interner::new(&snapshot.identities);
    let mut denies = Vec::new();
    let mut allows = Vec::new();
    for (key, rule) in selecting(snapshot, subject) {
        if !rule.has_items(direction) {
            continue;
        }
        gathered.enforced = true;
        let denying = rule.default_deny[direction as usize].unwrap_or(true);
        if denying && gathered.enforcing.last() != Some(key) {
            gathered.enforcing.push(key.clone());
        }
        for item in &rule.items {
            if item.section.direction() != Some(direction) {
                continue;
            }
            let reference = RuleRef {
                resource: Some(key.clone()),
                section: item.section,
                index: item.index,
            };
            let deny = item.section.is_deny();
            let ranked = Ranked {
                allows: !deny,
                number: numbers.get(&reference).copied().unwrap_or_default(),
                peers: interner.peers(&item.peers),
                ports: interner.ports(&item.ports),
            };
            if deny {
                denies.push(ranked);
            } else {
                allows.push(ranked);
            }
        }
    }
    gathered.enforced |= always;
    gathered.open = gathered.enforcing.is_empty() && !always;
    gathered.items = failsafe_items(snapshot, direction, &numbers, &mut interner);
    gathered.items.extend(denies);
    gathered.items.extend(allows);
    gathered.peers = interner.peer_sets;
    gathered.ports = interner.port_sets;
    gathered
}

/// The failsafe entries of a direction: before all rules.
fn failsafe_items(
    snapshot: &PolicySnapshot,
    direction: Direction,
    numbers: &HashMap<&RuleRef, RuleNumber>,
    interner: &mut Interner<'_>,
) -> Vec<Ranked> {
    let mut items = Vec::new();
    for (index, entry) in snapshot.options.failsafe.iter().enumerate() {
        if entry.direction != direction.number() {
            continue;
        }
        let reference = RuleRef {
            resource: None,
            section: Section::Failsafe,
            index,
        };
        items.push(Ranked {
            allows: true,
            number: numbers.get(&reference).copied().unwrap_or_default(),
            peers: interner.failsafe_peers(entry),
            ports: interner.ports(&failsafe_ports(entry)),
        });
    }
    items
}

/// The ports of a failsafe entry; for ICMP its port is the type, 0 every type.
fn failsafe_ports(entry: &FailsafeEntry) -> Ports {
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

/// Numbers distinct peers and ports, so that equal ones cost once.
struct Interner<'a> {
    identities: &'a IdentityTable,
    peer_numbers: HashMap<Vec<Range<usize>>, u32>,
    peer_sets: Vec<Vec<Range<usize>>>,
    port_numbers: HashMap<Ports, u32>,
    port_sets: Vec<PortSet>,
}

impl<'a> Interner<'a> {
    fn new(identities: &'a IdentityTable) -> Self {
        Self {
            identities,
            peer_numbers: HashMap::new(),
            peer_sets: Vec::new(),
            port_numbers: HashMap::new(),
            port_sets: Vec::new(),
        }
    }

    fn peers(&mut self, peers: &Peers) -> u32 {
        let ranges = positions(self.identities, peers);
        self.peer_set(ranges)
    }

    fn failsafe_peers(&mut self, entry: &FailsafeEntry) -> u32 {
        let ranges = match entry.peer {
            None => std::iter::once(0..self.identities.len()).collect(),
            // A failsafe prefix is about addresses, whoever they belong to.
            Some(peer) => joined(vec![
                self.identities.within(peer.trunc()),
                self.identities.nodes_within(peer.trunc()),
            ]),
        };
        self.peer_set(ranges)
    }

    fn peer_set(&mut self, ranges: Vec<Range<usize>>) -> u32 {
        let next = number(self.peer_sets.len());
        *self
            .peer_numbers
            .entry(ranges)
            .or_insert_with_key(|ranges| {
                self.peer_sets.push(ranges.clone());
                next
            })
    }

    fn ports(&mut self, ports: &Ports) -> u32 {
        if let Some(number) = self.port_numbers.get(ports) {
            return *number;
        }
        let number = number(self.port_sets.len());
        self.port_numbers.insert(ports.clone(), number);
        self.port_sets.push(port_set(ports));
        number
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a snapshot holds fewer than RULES_MAX items"
)]
fn number(len: usize) -> u32 {
    len as u32
}

fn port_set(ports: &Ports) -> PortSet {
    let Ports::Some(matches) = ports else {
        return PortSet {
            ranges: std::iter::once(0..KEYS).collect(),
            all: true,
            may_be_fragment: true,
        };
    };
    let one = |position: usize| position..position + 1;
    let ranges = matches.iter().map(|l4| match l4 {
        L4Match::Ports {
            protocol,
            first,
            last,
        } => {
            let start = *protocol as usize * PORT_KEYS;
            start + usize::from(*first)..start + usize::from(*last) + 1
        }
        L4Match::Named { .. } => 0..0,
        L4Match::Protocol(number) => {
            one(OTHER + column::OTHER_PROTOCOL as usize + usize::from(*number))
        }
        L4Match::Icmp(kind) => one(OTHER + column::OTHER_ICMP as usize + usize::from(*kind)),
        L4Match::Icmpv6(kind) => one(OTHER + column::OTHER_ICMPV6 as usize + usize::from(*kind)),
    });
    PortSet {
        ranges: joined(ranges.collect()),
        all: false,
        may_be_fragment: matches.iter().any(|l4| !matches!(l4, L4Match::Protocol(_))),
    }
}

const _: () = assert!(PortProtocol::Tcp as u32 == column::TCP);
const _: () = assert!(PortProtocol::Udp as u32 == column::UDP);
const _: () = assert!(PortProtocol::Sctp as u32 == column::SCTP);
const _: () = assert!(column::OTHER == 3);
