//! The items that decide for one endpoint and direction, followed by policy.
//!
//! Each has a number of its own, which nobody else gets as long as these items
//! are kept; so a set of numbers means the same for ever. What decides first is
//! said by its order, and only by that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;

use super::hashing::NumberMap;
use super::ports::{PortSet, PortSets, failsafe_ports};
use super::sets::{Set, Sets};
use crate::events::ResourceKey;
use crate::identity::LabelSet;
use crate::policy::language::{Item, Peers};
use crate::policy::repository::selects_host;
use crate::policy::{
    Direction, EnforcementMode, PolicySnapshot, RuleNumber, Section, Selections, Selector,
    SelectorId, StoredPolicy,
};

/// Number of "no item".
pub(super) const NOBODY: u32 = u32::MAX;
/// Items that come before all are numbered anew, besides twice as many as there are.
const SPARE_MIN: usize = 4_096;
/// Bits of an order: which list, which policy, which place.
const PLACE_BITS: u32 = 20;
const POLICY_BITS: u32 = 41;

/// One item.
#[derive(Debug)]
pub(super) struct Ranked {
    pub(super) allows: bool,
    /// Of a policy in audit: it can only make a verdict be reported.
    pub(super) audited: bool,
    pub(super) number: RuleNumber,
    /// Number of its ports.
    pub(super) ports: u32,
    /// The least of those that match decides.
    order: u64,
    /// Whether it stands in everyone's rows, and not in those of identities.
    is_apart: bool,
    peers: PeerSet,
}

/// The peers of an item.
#[derive(Clone, PartialEq, Eq, Debug)]
enum PeerSet {
    Everyone,
    /// Whom any of these selects; they rise.
    Selected(Vec<SelectorId>),
}

impl PeerSet {
    fn selectors(&self) -> &[SelectorId] {
        match self {
            Self::Everyone => &[],
            Self::Selected(selectors) => selectors,
        }
    }
}

/// What one policy has here.
#[derive(Debug, Default)]
struct OfPolicy {
    label: u64,
    /// Item by section and place.
    items: BTreeMap<(Section, usize), u32>,
    /// Rules that decide, of an enforced policy and of one in audit.
    deciding: [usize; 2],
    denies: bool,
}

/// What a direction is as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stance {
    pub(super) enforced: bool,
    /// Not enforced, yet policies in audit look at it.
    pub(super) watched: bool,
    /// What no item decides is allowed: by the enforced policies alone, by all.
    pub(super) open: [bool; 2],
    /// Whether policies in audit may see it differently.
    pub(super) audits: bool,
}

impl Stance {
    /// Whether the direction has a table that is asked.
    pub(super) fn decides(self) -> bool {
        self.enforced || self.watched
    }
}

/// What a change of policies has touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The items of each of these before.
    pub(super) selectors: NumberMap<SelectorId, Set>,
    /// Items for everyone are others.
    pub(super) everyone: bool,
    /// Those among them that every row holds.
    pub(super) always: bool,
}

/// All items of a direction.
#[derive(Debug)]
pub(super) struct Items {
    direction: Direction,
    mode: EnforcementMode,
    host_labels: Arc<LabelSet>,
    /// By number; those that are gone keep theirs.
    ranked: Vec<Ranked>,
    capacity: usize,
    live: usize,
    policies: BTreeMap<ResourceKey, OfPolicy>,
    pub(super) ports: PortSets,
    pub(super) sets: Sets,
    of_selector: NumberMap<SelectorId, Set>,
    /// Those for everyone: all; those that deny and stand apart; those that do not
    /// stand apart.
    pub(super) everyone: Set,
    pub(super) denied: Set,
    pub(super) always: Set,
    /// Items by the names of ports of peers that they use.
    of_name: HashMap<u32, HashSet<u32>>,
    deciding: [usize; 2],
    audited: usize,
    pub(super) enforcing: OrdSet<ResourceKey>,
    pub(super) auditing: OrdSet<ResourceKey>,
}

impl Items {
    /// Those of a snapshot.
    pub(super) fn new(snapshot: &PolicySnapshot, direction: Direction) -> Self {
        let options = &snapshot.options;
        let mode = options.enforcement;
        let asked = mode != EnforcementMode::Never;
        let selecting = snapshot.policies.iter();
        let selecting = selecting.filter(|(_, stored)| asked && stored.selects_host);
        let count = |stored: &StoredPolicy| stored.numbers.iter().map(Vec::len).sum::<usize>();
        let most: usize = selecting.clone().map(|(_, stored)| count(stored)).sum();
        let capacity = 2 * (most + options.failsafe.len()) + SPARE_MIN;
        let mut items = Self {
            direction,
            mode,
            host_labels: Arc::clone(&snapshot.host_labels),
            ranked: Vec::new(),
            capacity,
            live: 0,
            policies: BTreeMap::new(),
            ports: PortSets::new(match direction {
                // A named port of an ingress rule is one of this host.
                Direction::Ingress => Some(options.named_ports.clone()),
                Direction::Egress => None,
            }),
            sets: Sets::new(capacity),
            of_selector: NumberMap::default(),
            everyone: Set::EMPTY,
            denied: Set::EMPTY,
            always: Set::EMPTY,
            of_name: HashMap::new(),
            deciding: [0; 2],
            audited: 0,
            enforcing: OrdSet::new(),
            auditing: OrdSet::new(),
        };
        if asked {
            let mut touched = Touched::default();
            items.add_failsafe(snapshot, &mut touched);
            let step = (1 << POLICY_BITS) / (snapshot.policies.len() as u64 + 1);
            for ((key, stored), place) in selecting.zip(1..) {
                let of_policy = OfPolicy {
                    label: place * step,
                    ..OfPolicy::default()
                };
                items.policies.insert(key.clone(), of_policy);
                items.put(key, Some(stored), &snapshot.selections, &mut touched);
            }
        }
        items
    }

    /// What the direction is.
    pub(super) fn stance(&self) -> Stance {
        let always = self.mode == EnforcementMode::Always;
        let [enforced, watched] = self.deciding.map(|rules| rules > 0);
        let enforced = enforced || always;
        let open = self.enforcing.is_empty() && !always;
        Stance {
            enforced,
            watched: watched && !enforced,
            open: [open, open && self.auditing.is_empty()],
            audits: self.audited > 0 || !self.auditing.is_empty(),
        }
    }

    /// Whether an item may find no number.
    pub(super) fn has_room_for(&self, stored: &StoredPolicy) -> bool {
        let more: usize = stored.numbers.iter().map(Vec::len).sum();
        self.ranked.len() + more <= self.capacity
    }

    /// An item by its number; None for [`NOBODY`].
    pub(super) fn get(&self, item: u32) -> Option<&Ranked> {
        self.ranked.get(item as usize)
    }

    /// The ports of an item.
    pub(super) fn ports_of(&self, item: &Ranked) -> &PortSet {
        self.ports.get(item.ports)
    }

    /// What is less decides first.
    pub(super) fn order(&self, item: u32) -> u64 {
        self.get(item).map_or(u64::MAX, |item| item.order)
    }

    /// The one of two items that decides.
    pub(super) fn first(&self, one: u32, other: u32) -> u32 {
        if self.order(other) < self.order(one) {
            other
        } else {
            one
        }
    }

    /// The items that hold whom these select, but for those for everyone.
    pub(super) fn of_signature(&mut self, signature: &[SelectorId]) -> Set {
        let Self {
            of_selector, sets, ..
        } = self;
        let found = signature
            .iter()
            .filter_map(|selector| of_selector.get(selector));
        found.fold(Set::EMPTY, |items, more| sets.union(items, *more))
    }

    /// The items of a selector.
    pub(super) fn of_selector(&self, selector: SelectorId) -> Set {
        self.of_selector
            .get(&selector)
            .copied()
            .unwrap_or(Set::EMPTY)
    }

    /// The items that use a name of a port.
    pub(super) fn of_name(&self, name: u32) -> impl Iterator<Item = u32> {
        self.of_name.get(&name).into_iter().flatten().copied()
    }

    /// Whether an item uses a name whose meaning is the peer's.
    pub(super) fn uses_names(&self) -> bool {
        !self.of_name.is_empty()
    }

    /// Whether an item holds identities with these items of their own.
    pub(super) fn holds(&self, items: Set, item: u32) -> bool {
        self.sets.contains(items, item) || self.sets.contains(self.always, item)
    }

    /// Makes the items of a policy those of `new`.
    pub(super) fn put(
        &mut self,
        key: &ResourceKey,
        new: Option<&StoredPolicy>,
        selections: &Selections,
        touched: &mut Touched,
    ) {
        if self.mode == EnforcementMode::Never {
            return;
        }
        let new = new.filter(|stored| stored.selects_host);
        let mut old = self.policies.remove(key).unwrap_or_default();
        self.count(key, &old, false);
        let Some(stored) = new else {
            for item in old.items.into_values() {
                self.remove(item, touched);
            }
            return;
        };
        let mut next = OfPolicy {
            label: old.label,
            ..OfPolicy::default()
        };
        if next.label == 0 {
            next.label = self.label(key);
        }
        for (rule, numbers) in stored.policy.rules.iter().zip(&stored.numbers) {
            if !rule.has_items(self.direction) || !selects_host(rule, &self.host_labels) {
                continue;
            }
            next.deciding[usize::from(stored.policy.audit)] += 1;
            next.denies |= rule.default_deny[self.direction as usize].unwrap_or(true);
            for (item, number) in rule.items.iter().zip(numbers) {
                if item.section.direction() == Some(self.direction) {
                    let place = (item.section, item.index);
                    let known = old.items.remove(&place);
                    let ranked = self.ranked(item, *number, stored.policy.audit, selections);
                    let ranked = ranked.at(item, next.label);
                    next.items
                        .insert(place, self.replace(known, ranked, touched));
                }
            }
        }
        for item in old.items.into_values() {
            self.remove(item, touched);
        }
        self.count(key, &next, true);
        self.policies.insert(key.clone(), next);
    }

    fn count(&mut self, key: &ResourceKey, of_policy: &OfPolicy, is_more: bool) {
        for (all, own) in self.deciding.iter_mut().zip(of_policy.deciding) {
            *all = if is_more { *all + own } else { *all - own };
        }
        if !of_policy.denies {
            return;
        }
        let naming = match of_policy.deciding {
            [0, _] => &mut self.auditing,
            [_, _] => &mut self.enforcing,
        };
        if is_more {
            naming.insert(key.clone());
        } else {
            naming.remove(key);
        }
    }

    /// An item of a policy; its order is not known yet.
    fn ranked(
        &mut self,
        item: &Item,
        number: RuleNumber,
        audited: bool,
        selections: &Selections,
    ) -> Ranked {
        let peers = match &item.peers {
            Peers::Select(peers) if !item.peers.are_everyone() => {
                let found = peers.iter().map(|peer| selections.ids.of_peer(peer));
                PeerSet::Selected(ids(found))
            }
            Peers::Any | Peers::Select(_) => PeerSet::Everyone,
        };
        Ranked {
            allows: !item.section.is_deny(),
            audited,
            number,
            ports: self.ports.number(&item.ports),
            order: 0,
            is_apart: item.is_for_everyone(),
            peers,
        }
    }

    /// Failsafe entries stand before all rules.
    fn add_failsafe(&mut self, snapshot: &PolicySnapshot, touched: &mut Touched) {
        let entries = &snapshot.options.failsafe;
        let numbers = failsafe_numbers(snapshot);
        for (place, (entry, number)) in (0..).zip(entries.iter().zip(numbers)) {
            if entry.direction != self.direction.number() {
                continue;
            }
            let peers = match entry.peer {
                None => PeerSet::Everyone,
                // A failsafe prefix is about addresses, whoever they belong to.
                Some(peer) => {
                    let selector = Selector::Address(peer.trunc());
                    let found = std::iter::once(snapshot.selections.ids.get(&selector));
                    PeerSet::Selected(ids(found))
                }
            };
            let ranked = Ranked {
                allows: true,
                audited: false,
                number,
                ports: self.ports.number(&failsafe_ports(entry)),
                order: place,
                is_apart: false,
                peers,
            };
            self.add(ranked, touched);
        }
    }

    /// The number of an item that is like the known one, or takes its place.
    fn replace(&mut self, known: Option<u32>, new: Ranked, touched: &mut Touched) -> u32 {
        let Some(item) = known else {
            return self.add(new, touched);
        };
        let old = &mut self.ranked[item as usize];
        if !old.decides_like(&new) {
            self.remove(item, touched);
            return self.add(new, touched);
        }
        let was = std::mem::replace(&mut old.peers, new.peers.clone());
        if was != new.peers {
            self.hold(item, &was, &new.peers, touched);
        }
        item
    }

    fn add(&mut self, ranked: Ranked, touched: &mut Touched) -> u32 {
        let item = number(self.ranked.len());
        for name in &self.ports.get(ranked.ports).names {
            self.of_name.entry(*name).or_default().insert(item);
        }
        self.live += 1;
        self.audited += usize::from(ranked.audited);
        let peers = ranked.peers.clone();
        self.ranked.push(ranked);
        self.hold(item, &PeerSet::Selected(Vec::new()), &peers, touched);
        item
    }

    fn remove(&mut self, item: u32, touched: &mut Touched) {
        let ranked = &mut self.ranked[item as usize];
        let nobody = PeerSet::Selected(Vec::new());
        let peers = std::mem::replace(&mut ranked.peers, nobody.clone());
        self.audited -= usize::from(ranked.audited);
        self.live -= 1;
        let ports = ranked.ports;
        self.hold(item, &peers, &nobody, touched);
        for name in &self.ports.get(ports).names {
            if let Some(items) = self.of_name.get_mut(name) {
                items.remove(&item);
                if items.is_empty() {
                    self.of_name.remove(name);
                }
            }
        }
    }

    /// An item holds other peers than before.
    fn hold(&mut self, item: u32, old: &PeerSet, new: &PeerSet, touched: &mut Touched) {
        if (*old == PeerSet::Everyone) != (*new == PeerSet::Everyone) {
            let ranked = &self.ranked[item as usize];
            self.everyone = self.sets.toggled(self.everyone, item);
            touched.everyone = true;
            if !ranked.is_apart {
                self.always = self.sets.toggled(self.always, item);
                touched.always = true;
            } else if !ranked.allows {
                self.denied = self.sets.toggled(self.denied, item);
            }
        }
        let (old, new) = (old.selectors(), new.selectors());
        let gone = old.iter().filter(|id| new.binary_search(id).is_err());
        let come = new.iter().filter(|id| old.binary_search(id).is_err());
        // Most have had no items so far: the same set becomes the same again.
        let mut last = None;
        for selector in gone.chain(come) {
            let items = self.of_selector.entry(*selector).or_insert(Set::EMPTY);
            touched.selectors.entry(*selector).or_insert(*items);
            let toggled = match last {
                Some((before, after)) if before == *items => after,
                _ => self.sets.toggled(*items, item),
            };
            last = Some((*items, toggled));
            *items = toggled;
            if *items == Set::EMPTY {
                self.of_selector.remove(selector);
            }
        }
    }

    /// A label for a new policy, between those of its neighbours.
    fn label(&mut self, key: &ResourceKey) -> u64 {
        let before = (Bound::Unbounded, Bound::Excluded(key));
        let before = self.policies.range::<ResourceKey, _>(before).next_back();
        let low = before.map_or(0, |(_, policy)| policy.label);
        let after = (Bound::Excluded(key), Bound::Unbounded);
        let after = self.policies.range::<ResourceKey, _>(after).next();
        let high = after.map_or(1 << POLICY_BITS, |(_, policy)| policy.label);
        if high - low > 1 {
            return low + (high - low) / 2;
        }
        self.spread();
        self.label(key)
    }

    /// Spreads the labels evenly: a pass over all items, when so many policies
    /// came between two others that there is no room left.
    fn spread(&mut self) {
        let step = (1 << POLICY_BITS) / (self.policies.len() as u64 + 1);
        for (policy, place) in self.policies.values_mut().zip(1..) {
            policy.label = place * step;
            for ((_, place), item) in &policy.items {
                let ranked = &mut self.ranked[*item as usize];
                ranked.order = order(ranked.list(), *place, policy.label);
            }
        }
    }
}

impl Ranked {
    fn at(self, item: &Item, label: u64) -> Self {
        Self {
            order: order(self.list(), item.index, label),
            ..self
        }
    }

    /// Denies stand before allows, and of each what selects peers before what is
    /// for everyone.
    fn list(&self) -> u64 {
        1 + 2 * u64::from(self.allows) + u64::from(self.is_apart)
    }

    /// Whether nothing of everyone's stands before it.
    pub(super) fn decides_alone(&self) -> bool {
        !self.allows || self.order < order(1, 0, 0)
    }

    /// Whether it says the same, whomever it holds.
    fn decides_like(&self, other: &Self) -> bool {
        let of = |ranked: &Self| {
            let Self {
                allows,
                audited,
                is_apart,
                ..
            } = *ranked;
            (allows, audited, is_apart, ranked.number, ranked.ports)
        };
        of(self) == of(other)
    }
}

/// Within a list, policies stand by their keys, items as they are written.
fn order(list: u64, place: usize, label: u64) -> u64 {
    list << (POLICY_BITS + PLACE_BITS) | label << PLACE_BITS | place as u64
}

/// The numbers of selectors in use, each once, rising.
fn ids(found: impl Iterator<Item = Option<SelectorId>>) -> Vec<SelectorId> {
    let mut ids: Vec<SelectorId> = found
        .filter_map(|id| {
            debug_assert!(id.is_some(), "a selector is in use, and has no number");
            id
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
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

#[expect(
    clippy::cast_possible_truncation,
    reason = "a snapshot holds fewer than RULES_MAX items"
)]
pub(super) fn number(len: usize) -> u32 {
    len as u32
}

/// Lists: failsafe, and four of rules.
const _: () = assert!(PLACE_BITS + POLICY_BITS <= 61);
const _: () = assert!(crate::limits::MANIFEST_DOCUMENT_VALUES_MAX < 1 << PLACE_BITS);
