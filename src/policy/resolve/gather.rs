//! The items that decide for one endpoint and direction, in their order.

use std::collections::HashMap;

use super::Subject;
use super::ports::{PortName, PortSet, PortSets, failsafe_ports};
use crate::events::ResourceKey;
use crate::policy::language::{Item, Peers, Rule};
use crate::policy::repository::selects_host;
use crate::policy::{
    Direction, EnforcementMode, FailsafeEntry, PolicySnapshot, RuleNumber, Section, Selector,
    SelectorId, StoredPolicy,
};

/// One item; its place in the list is its rank: the first that matches decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ranked {
    pub(super) allows: bool,
    /// Of a policy in audit: it can only make a verdict be reported.
    pub(super) audited: bool,
    pub(super) number: RuleNumber,
    /// Number of its peers among [`Gathered::peers`].
    pub(super) peers: u32,
    /// Number of its ports among [`Gathered::ports`].
    pub(super) ports: u32,
}

/// The peers of items.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum PeerSet {
    Everyone,
    /// Whom any of these selects; they rise.
    Selected(Vec<SelectorId>),
}

/// Everything that one direction's table is made of, but the identities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Gathered {
    pub(super) enforced: bool,
    /// Not enforced, yet policies in audit look at it.
    pub(super) watched: bool,
    /// What no item decides is allowed: by the enforced policies alone, by all.
    pub(super) open: [bool; 2],
    pub(super) enforcing: Vec<ResourceKey>,
    pub(super) auditing: Vec<ResourceKey>,
    pub(super) items: Vec<Ranked>,
    pub(super) peers: Vec<PeerSet>,
    pub(super) ports: Vec<PortSet>,
    /// Names of ports whose meaning is the peer's.
    pub(super) names: Vec<PortName>,
}

impl Gathered {
    /// Whether the direction has a table that is asked.
    pub(super) fn decides(&self) -> bool {
        self.enforced || self.watched
    }
}

/// The rules of a snapshot that select the subject and have items for the
/// direction, with their policy and their place in it.
fn selecting(
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
) -> impl Iterator<Item = (&ResourceKey, &StoredPolicy, usize, &Rule)> {
    let labels = match subject {
        Subject::Host(_) => &snapshot.host_labels,
    };
    snapshot
        .policies
        .iter()
        .filter(|(_, stored)| stored.selects_host)
        .flat_map(|(key, stored)| {
            let rules = stored.policy.rules.iter().enumerate();
            rules.map(move |(place, rule)| (key, stored.as_ref(), place, rule))
        })
        .filter(move |(.., rule)| rule.has_items(direction) && selects_host(rule, labels))
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
    let mut watched = false;
    for (key, stored, _, rule) in selecting(snapshot, subject, direction) {
        let (decides, naming) = if stored.policy.audit {
            (&mut watched, &mut gathered.auditing)
        } else {
            (&mut gathered.enforced, &mut gathered.enforcing)
        };
        *decides = true;
        let denies = rule.default_deny[direction as usize].unwrap_or(true);
        if denies && naming.last() != Some(key) {
            naming.push(key.clone());
        }
    }
    gathered.enforced |= always;
    gathered.watched = watched && !gathered.enforced;
    if gathered.decides() {
        let open = gathered.enforcing.is_empty() && !always;
        gathered.open = [open, open && gathered.auditing.is_empty()];
        add_items(&mut gathered, snapshot, subject, direction);
    }
    gathered
}

/// Failsafe entries stand before all rules, denies before allows.
fn add_items(
    gathered: &mut Gathered,
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
) {
    let mut interner = Interner::new(snapshot, direction);
    let mut denies = Vec::new();
    let mut allows = Vec::new();
    gathered.items = failsafe_items(snapshot, direction, &mut interner);
    for (_, stored, place, rule) in selecting(snapshot, subject, direction) {
        let numbers = stored.numbers.get(place).map_or(&[][..], Vec::as_slice);
        for (item, number) in rule.items.iter().zip(numbers) {
            if item.section.direction() != Some(direction) {
                continue;
            }
            let deny = item.section.is_deny();
            let ranked = interner.ranked(item, *number, stored.policy.audit);
            if deny {
                denies.push(ranked);
            } else {
                allows.push(ranked);
            }
        }
    }
    gathered.items.extend(denies);
    gathered.items.extend(allows);
    gathered.peers = interner.peer_sets;
    (gathered.ports, gathered.names) = interner.ports.done();
}

/// The failsafe entries of a direction.
fn failsafe_items(
    snapshot: &PolicySnapshot,
    direction: Direction,
    interner: &mut Interner<'_>,
) -> Vec<Ranked> {
    let entries = &snapshot.options.failsafe;
    let numbers = failsafe_numbers(snapshot);
    let of_direction = entries
        .iter()
        .zip(numbers)
        .filter(|(entry, _)| entry.direction == direction.number());
    of_direction
        .map(|(entry, number)| Ranked {
            allows: true,
            audited: false,
            number,
            peers: interner.failsafe_peers(entry),
            ports: interner.ports.number(&failsafe_ports(entry)),
        })
        .collect()
}

/// The numbers of the failsafe entries, by place in the list. They are among
/// the first in the catalogue, since the list is there before any policy.
fn failsafe_numbers(snapshot: &PolicySnapshot) -> Vec<RuleNumber> {
    let mut numbers = vec![RuleNumber::default(); snapshot.options.failsafe.len()];
    let mut missing = numbers.len();
    for (number, entry) in snapshot.rules.iter() {
        if missing == 0 {
            break;
        }
        if entry.rule.section == Section::Failsafe
            && let Some(place) = numbers.get_mut(entry.rule.index)
        {
            *place = *number;
            missing -= 1;
        }
    }
    numbers
}

/// Numbers distinct peers and ports, so that equal ones cost once.
struct Interner<'a> {
    snapshot: &'a PolicySnapshot,
    peer_numbers: HashMap<PeerSet, u32>,
    peer_sets: Vec<PeerSet>,
    ports: PortSets<'a>,
}

impl<'a> Interner<'a> {
    fn new(snapshot: &'a PolicySnapshot, direction: Direction) -> Self {
        Self {
            snapshot,
            peer_numbers: HashMap::new(),
            peer_sets: Vec::new(),
            ports: PortSets::new(match direction {
                // A named port of an ingress rule is one of this host.
                Direction::Ingress => Some(&snapshot.options.named_ports),
                Direction::Egress => None,
            }),
        }
    }

    fn ranked(&mut self, item: &Item, number: RuleNumber, audited: bool) -> Ranked {
        Ranked {
            allows: !item.section.is_deny(),
            audited,
            number,
            peers: self.peers(&item.peers),
            ports: self.ports.number(&item.ports),
        }
    }

    fn peers(&mut self, peers: &Peers) -> u32 {
        let set = match peers {
            Peers::Any => PeerSet::Everyone,
            Peers::Select(peers) => {
                let selectors = peers.iter().cloned().map(Selector::Peer);
                PeerSet::Selected(self.ids(selectors))
            }
        };
        self.peer_set(set)
    }

    fn failsafe_peers(&mut self, entry: &FailsafeEntry) -> u32 {
        let set = match entry.peer {
            None => PeerSet::Everyone,
            // A failsafe prefix is about addresses, whoever they belong to.
            Some(peer) => {
                PeerSet::Selected(self.ids(std::iter::once(Selector::Address(peer.trunc()))))
            }
        };
        self.peer_set(set)
    }

    fn ids(&self, selectors: impl Iterator<Item = Selector>) -> Vec<SelectorId> {
        let known = &self.snapshot.selections.ids;
        let mut ids: Vec<SelectorId> = selectors
            .filter_map(|selector| {
                let id = known.get(&selector).copied();
                debug_assert!(id.is_some(), "{selector:?} is in use, and has no number");
                id
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn peer_set(&mut self, set: PeerSet) -> u32 {
        let next = number(self.peer_sets.len());
        *self.peer_numbers.entry(set).or_insert_with_key(|set| {
            self.peer_sets.push(set.clone());
            next
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a snapshot holds fewer than RULES_MAX items"
)]
pub(super) fn number(len: usize) -> u32 {
    len as u32
}
