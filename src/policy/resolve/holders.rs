//! Who is selected by whom: the other way round than [`Selections`] says it.

use std::collections::{HashMap, HashSet};

use imbl::ordmap::DiffItem;

use crate::identity::IdentityIndex;
use crate::policy::{Selections, SelectorId};

/// The identities of each selector.
#[derive(Debug, Default)]
pub(super) struct Holders(HashMap<SelectorId, HashSet<IdentityIndex>>);

impl Holders {
    /// Those of all selections.
    pub(super) fn new(selections: &Selections) -> Self {
        let mut holders = Self::default();
        for (index, signature) in &selections.by_identity {
            holders.change(*index, &[], signature);
        }
        holders
    }

    /// Whom a selector selects.
    pub(super) fn of(&self, selector: SelectorId) -> impl Iterator<Item = IdentityIndex> {
        self.0.get(&selector).into_iter().flatten().copied()
    }

    /// Follows from one to the next; the identities of which something changed
    /// that decides about their row.
    pub(super) fn follow(&mut self, old: &Selections, new: &Selections) -> Vec<IdentityIndex> {
        let mut changed = Vec::new();
        for item in old.by_identity.diff(&new.by_identity) {
            let (index, was, is) = match item {
                DiffItem::Add(index, is) => (index, &[][..], &**is),
                DiffItem::Remove(index, was) => (index, &**was, &[][..]),
                DiffItem::Update { old, new } => (new.0, &**old.1, &**new.1),
            };
            self.change(*index, was, is);
            changed.push(*index);
        }
        for item in old.named_ports.diff(&new.named_ports) {
            changed.push(match item {
                DiffItem::Add(index, _) | DiffItem::Remove(index, _) => *index,
                DiffItem::Update { new, .. } => *new.0,
            });
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// An identity has another signature. Both rise.
    fn change(&mut self, index: IdentityIndex, was: &[SelectorId], is: &[SelectorId]) {
        for selector in was.iter().filter(|id| is.binary_search(id).is_err()) {
            if let Some(held) = self.0.get_mut(selector) {
                held.remove(&index);
                if held.is_empty() {
                    self.0.remove(selector);
                }
            }
        }
        for selector in is.iter().filter(|id| was.binary_search(id).is_err()) {
            self.0.entry(*selector).or_default().insert(index);
        }
    }
}
