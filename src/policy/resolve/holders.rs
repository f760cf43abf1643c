//! Who is selected by whom: the other way round than [`Selections`] says it.

use std::collections::BTreeSet;

use imbl::ordmap::DiffItem;

use crate::identity::IdentityIndex;
use crate::policy::{Selections, SelectorId};

/// The identities of each selector. One set of pairs: most selectors select
/// one identity, and there may be a hundred thousand of them.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeSet<(SelectorId, IdentityIndex)>);

impl Holders {
    /// Those of all selections.
    pub(super) fn new(selections: &Selections) -> Self {
        let of_identity = selections.by_identity.iter();
        let pairs =
            of_identity.flat_map(|(index, signature)| signature.iter().map(move |id| (*id, index)));
        Self(pairs.collect())
    }

    /// Whom a selector selects.
    pub(super) fn of(&self, selector: SelectorId) -> impl Iterator<Item = IdentityIndex> {
        let all = (selector, IdentityIndex(0))..=(selector, IdentityIndex(u32::MAX));
        self.0.range(all).map(|(_, index)| *index)
    }

    /// Follows from one to the next; the identities of which something changed
    /// that decides about their row.
    pub(super) fn follow(&mut self, old: &Selections, new: &Selections) -> Vec<IdentityIndex> {
        let mut changed = Vec::new();
        for (index, was, is) in old.by_identity.diff(&new.by_identity) {
            let [was, is] = [was, is].map(|signature| signature.map_or(&[][..], |ids| &**ids));
            self.change(index, was, is);
            changed.push(index);
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
            self.0.remove(&(*selector, index));
        }
        for selector in is.iter().filter(|id| was.binary_search(id).is_err()) {
            self.0.insert((*selector, index));
        }
    }
}
