//! The ipcache by its differences: what each slot means is kept as the map that
//! was asked for, so that the next one costs what changed.
//!
//! Invariant: where a slot's meaning is known, the trie answers as that map
//! does. It is forgotten before the first write and known again after the last
//! one was read back. Whoever does not know it goes over the whole trie.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::Ipv6Net;

use super::ipcache::{self, Plan, Prefix, Shadow, View, value, view, wanted};
use super::maps::Map;
use crate::datapath::{DatapathError, IpcacheEntry};

type Want<P> = OrdMap<P, IpcacheEntry>;

/// Where more than one of so many prefixes changed, and more than a few, a pass
/// over all of them costs less than asking for the covers of each.
const ONE_OF: usize = 64;
const A_FEW: usize = 32;

/// The IPv6 trie and what it means.
#[derive(Debug)]
pub(crate) struct Views<P: Prefix> {
    pub(crate) shadow: Shadow<P>,
    known: [Option<Want<P>>; 2],
}

impl<P: Prefix> Views<P> {
    /// As it was read from the kernel.
    pub(crate) fn new(shadow: Shadow<P>) -> Self {
        Self {
            shadow,
            known: [None, None],
        }
    }

    /// Refuses entries that the maps cannot hold; those that a slot is known
    /// to have were looked at.
    pub(crate) fn check(&self, slot: usize, want: &Want<P>) -> Result<(), DatapathError> {
        match &self.known[slot] {
            Some(known) => ipcache::check(changed_entries(known, want)),
            None => ipcache::check(want.iter()),
        }
    }

    /// What makes `slot`'s view equal to `want` and leaves the other slot's alone.
    pub(crate) fn plan(&self, slot: usize, want: &Want<P>) -> Plan<P> {
        let (Some(this), Some(other)) = (&self.known[slot], &self.known[1 - slot]) else {
            return self.shadow.plan(slot, want);
        };
        // A prefix that all three know alike is in the trie, and right.
        let Some(mut changed) = few(this, want) else {
            return self.shadow.plan(slot, want);
        };
        let Some(more) = few(other, want) else {
            return self.shadow.plan(slot, want);
        };
        changed.extend(more);
        changed.sort_unstable();
        changed.dedup();
        self.plan_of(slot, want, other, &changed)
    }

    fn plan_of(&self, slot: usize, want: &Want<P>, other: &Want<P>, changed: &[P]) -> Plan<P> {
        let mut plan = Plan {
            puts: Vec::new(),
            removes: Vec::new(),
            peak: self.shadow.0.len(),
        };
        for prefix in changed {
            let held = self.shadow.0.get(prefix);
            let entry = want.get(prefix);
            let covers = (cover(want, prefix), cover(other, prefix));
            let this = entry.map_or(covers.0, wanted);
            let other = held.map_or(covers.1, |held| view(held, 1 - slot));
            if entry.is_none() && (this, other) == covers {
                if held.is_some() {
                    plan.removes.push(*prefix);
                }
                continue;
            }
            let value = value(slot, this, other);
            if held != Some(&value) {
                plan.puts.push((*prefix, value));
                plan.peak += usize::from(held.is_none());
            }
        }
        plan
    }

    fn know(&mut self, slot: usize, want: &Want<P>) {
        self.known[slot] = Some(want.clone());
    }

    /// Whether every address has in `slot` the identity that `want` gives it.
    pub(crate) fn holds(&self, slot: usize, want: &Want<P>) -> bool {
        match &self.known[slot] {
            Some(known) => same_answers(known, want),
            None => self.shadow.holds(slot, want),
        }
    }

    /// Whether both slots see every address alike.
    pub(crate) fn slots_agree(&self) -> bool {
        match &self.known {
            [Some(one), Some(other)] => same_answers(one, other),
            [_, _] => self.shadow.slots_agree(),
        }
    }
}

impl Views<Ipv6Net> {
    /// Writes the plan for `want`; the number of writes.
    pub(crate) fn apply(
        &mut self,
        slot: usize,
        plan: Plan<Ipv6Net>,
        want: &Want<Ipv6Net>,
        map: &Map,
    ) -> Result<usize, DatapathError> {
        self.known[slot] = None;
        let writes = plan.apply(map, &mut self.shadow)?;
        self.know(slot, want);
        Ok(writes)
    }
}

/// What a map has that another one had not, or not so.
pub(super) fn changed_entries<'a, P: Prefix>(
    before: &'a Want<P>,
    after: &'a Want<P>,
) -> impl Iterator<Item = (&'a P, &'a IpcacheEntry)> {
    before.diff(after).filter_map(|item| match item {
        DiffItem::Add(prefix, entry) => Some((prefix, entry)),
        DiffItem::Update { new, .. } => Some(new),
        DiffItem::Remove(..) => None,
    })
}

/// The prefixes that two maps do not know alike; None if they are many.
fn few<P: Prefix>(one: &Want<P>, other: &Want<P>) -> Option<Vec<P>> {
    let max = A_FEW.max(one.len().max(other.len()) / ONE_OF);
    changed_prefixes(one, other, max)
}

/// The prefixes that two maps do not know alike; None if they are more than `max`.
pub(super) fn changed_prefixes<P: Prefix>(
    one: &Want<P>,
    other: &Want<P>,
    max: usize,
) -> Option<Vec<P>> {
    let changed: Vec<P> = one.diff(other).map(prefix).take(max + 1).collect();
    (changed.len() <= max).then_some(changed)
}

fn prefix<P: Prefix>(item: DiffItem<'_, '_, P, IpcacheEntry>) -> P {
    match item {
        DiffItem::Add(prefix, _) | DiffItem::Remove(prefix, _) => *prefix,
        DiffItem::Update { new, .. } => *new.0,
    }
}

/// Whether both maps answer alike for each prefix that they do not know alike.
pub(super) fn same_answers<P: Prefix>(one: &Want<P>, other: &Want<P>) -> bool {
    one.diff(other).map(prefix).all(|prefix| {
        let answer = |map: &Want<P>| map.get(&prefix).map_or_else(|| cover(map, &prefix), wanted);
        answer(one) == answer(other)
    })
}

/// What the innermost prefix around `prefix` carries.
fn cover<P: Prefix>(map: &Want<P>, prefix: &P) -> View {
    let mut around = *prefix;
    while let Some(wider) = around.wider() {
        if let Some(entry) = map.get(&wider) {
            return wanted(entry);
        }
        around = wider;
    }
    View::default()
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
