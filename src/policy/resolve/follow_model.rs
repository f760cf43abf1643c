//! The plain reading that resolvers are held against: every item is asked, one
//! after another.

use std::collections::BTreeSet;

use palisade_abi::table::{Cell, action, class};

use super::{PEERS, World, failsafe_number, item_number};
use crate::policy::language::{Item, L4Match, NamedPort, Peer, Peers, PortProtocol, Ports, Rule};
use crate::policy::{Direction, EnforcementMode, RuleNumber};

/// What a packet is asked by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    Port(PortProtocol, u16),
    Protocol(u8),
    Icmp(u8),
    Fragment,
}

impl Probe {
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Fragment, Self::Protocol(47), Self::Protocol(4)];
        for port in 0..7 {
            all.extend(PortProtocol::ALL.map(|protocol| Self::Port(protocol, port)));
        }
        all.extend((0..3).map(Self::Icmp));
        all
    }

    pub(super) fn class_and_key(self) -> (u32, u16) {
        let other = |base: u32, value: u8| {
            let base = u16::try_from(base).expect("small");
            (class::OTHER, base + u16::from(value))
        };
        match self {
            Self::Port(protocol, port) => (protocol as u32, port),
            Self::Protocol(number) => other(class::OTHER_PROTOCOL, number),
            Self::Icmp(kind) => other(class::OTHER_ICMP, kind),
            Self::Fragment => other(class::OTHER_FRAGMENT, 0),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    Maybe,
    No,
}

/// The plain reading: every item is asked, one after another.
pub(super) struct Model<'a> {
    pub(super) world: &'a World,
    pub(super) direction: Direction,
    pub(super) selectors: BTreeSet<u32>,
    pub(super) named: &'a [NamedPort],
    pub(super) probe: Probe,
}

impl Model<'_> {
    fn items(&self, audited: bool) -> impl Iterator<Item = (RuleNumber, &Item)> {
        let policies = self.world.policies.iter();
        policies
            .filter(move |(_, policy)| audited || !policy.audit)
            .flat_map(|(number, policy)| {
                let items = policy.rules.iter().flat_map(|rule| &rule.items);
                items.map(|item| (item_number(*number, item), item))
            })
            .filter(|(_, item)| item.section.direction() == Some(self.direction))
    }

    fn matches(&self, item: &Item) -> Match {
        let peers = match &item.peers {
            Peers::Any => true,
            Peers::Select(list) => list.iter().any(|peer| {
                let known = PEERS.iter().zip(0..);
                let mut known = known.filter(|(entity, _)| *peer == Peer::Entity(**entity));
                known.any(|(_, id)| self.selectors.contains(&id))
            }),
        };
        if !peers {
            return Match::No;
        }
        let Ports::Some(list) = &item.ports else {
            return Match::Yes;
        };
        // A name that means nothing is about no packet.
        let by_port = list.iter().any(|l4| match l4 {
            L4Match::Named { protocol, name } => {
                let is = |has: &NamedPort| has.name == *name && has.protocol == *protocol;
                self.meanings().iter().any(is)
            }
            L4Match::Protocol(_) => false,
            L4Match::Ports { .. } | L4Match::Icmp(_) | L4Match::Icmpv6(_) => true,
        });
        match self.probe {
            Probe::Fragment if by_port => Match::Maybe,
            _ if list.iter().any(|l4| self.hits(l4)) => Match::Yes,
            _ => Match::No,
        }
    }

    fn hits(&self, l4: &L4Match) -> bool {
        match (l4, self.probe) {
            (
                L4Match::Ports {
                    protocol,
                    first,
                    last,
                },
                Probe::Port(of, port),
            ) => *protocol == of && (*first..=*last).contains(&port),
            (L4Match::Named { protocol, name }, Probe::Port(of, port)) => {
                let is =
                    |has: &NamedPort| has.name == *name && has.protocol == of && has.port == port;
                *protocol == of && self.meanings().iter().any(is)
            }
            (L4Match::Protocol(number), Probe::Protocol(of)) => *number == of,
            (L4Match::Icmp(kind), Probe::Icmp(of)) => *kind == of,
            _ => false,
        }
    }

    fn meanings(&self) -> &[NamedPort] {
        match self.direction {
            Direction::Ingress => &self.world.options.named_ports,
            Direction::Egress => self.named,
        }
    }

    fn failsafe(&self) -> Option<RuleNumber> {
        let hit = match (self.direction, self.probe) {
            (Direction::Ingress, Probe::Port(PortProtocol::Tcp, 2)) => self.selectors.contains(&5),
            (Direction::Ingress, Probe::Port(PortProtocol::Udp, 1)) => {
                return Some(failsafe_number(1));
            }
            _ => false,
        };
        hit.then(|| failsafe_number(0))
    }

    /// Action and rule by the enforced policies, or by all of them.
    fn verdict(&self, audited: bool) -> (u32, u32) {
        if let Some(number) = self.failsafe() {
            return (action::ALLOW, number.0);
        }
        let first = |deny: bool, how: Match| {
            let items = self.items(audited);
            let matching = items
                .filter(|(_, item)| item.section.is_deny() == deny && self.matches(item) == how);
            let first = matching.min_by_key(|(_, item)| item.is_for_everyone());
            first.map(|(number, _)| number.0)
        };
        let closed = self.world.options.enforcement == EnforcementMode::Always
            || self.world.policies.values().any(|policy| {
                let counts = |rule: &&Rule| {
                    rule.has_items(self.direction)
                        && rule.default_deny[self.direction as usize] != Some(false)
                };
                (audited || !policy.audit) && policy.rules.iter().filter(counts).count() > 0
            });
        if let Some(rule) = first(true, Match::Yes) {
            (action::DENY, rule)
        } else if let Some(rule) = first(true, Match::Maybe) {
            (action::FRAGMENT, rule)
        } else if let Some(rule) = first(false, Match::Yes) {
            (action::ALLOW, rule)
        } else if !closed {
            (action::ALLOW, 0)
        } else if matches!(self.probe, Probe::Fragment) {
            (action::FRAGMENT, 0)
        } else {
            (action::NO_MATCH, 0)
        }
    }

    pub(super) fn cell(&self, enforced: bool) -> Cell {
        let (verdict, rule) = match enforced {
            true => self.verdict(false),
            false => (action::ALLOW, 0),
        };
        if verdict != action::ALLOW {
            return Cell::new(verdict, self.world.audit, rule);
        }
        match self.verdict(true) {
            (action::ALLOW, _) => Cell::new(verdict, false, rule),
            (would_be, rule) => Cell::new(would_be, true, rule),
        }
    }
}
