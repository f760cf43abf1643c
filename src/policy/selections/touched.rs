//! What a change has touched and what is not settled yet.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::expansion::Term;
use crate::identity::{IdentityIndex, LabelSet};

/// Collected while a change is applied, worked off at its end. There may be a
/// hundred thousand of each: lists are sorted once, when they are taken.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Touched {
    /// How many users prefixes have gained or lost; a prefix may be there twice.
    pub(in crate::policy) prefixes: Vec<(IpNet, i64)>,
    /// Addresses whose owner may be another.
    pub(in crate::policy) addresses: BTreeSet<IpAddr>,
    /// Numbers that others may have given to other labels.
    pub(in crate::policy) claims: BTreeSet<u32>,
    /// What selectors have begun or ceased to select, but for prefixes.
    pub(in crate::policy) terms: BTreeSet<Term>,
    /// Prefixes that selectors have begun or ceased to select.
    pub(in crate::policy) selected: Vec<IpNet>,
    /// Prefixes that groups in use have gained or lost.
    pub(in crate::policy) groups: Vec<(String, IpNet, bool)>,
    /// Prefixes within which identities may have other labels.
    pub(in crate::policy) relabelled: Vec<IpNet>,
    /// Identities that other selectors may select.
    pub(in crate::policy) identities: Vec<IdentityIndex>,
    /// Labels of pods whose named ports may be others.
    pub(in crate::policy) ports: BTreeSet<Arc<LabelSet>>,
}

impl Touched {
    /// One user of a prefix more.
    pub(in crate::policy) fn acquire(&mut self, prefix: IpNet) {
        self.prefixes.push((prefix, 1));
    }
    /// One user of a prefix less.
    pub(in crate::policy) fn release(&mut self, prefix: IpNet) {
        self.prefixes.push((prefix, -1));
    }
    /// How many users each prefix has gained or lost, by prefix.
    pub(in crate::policy) fn take_prefixes(&mut self) -> Vec<(IpNet, i64)> {
        let mut counts = std::mem::take(&mut self.prefixes);
        counts.sort_unstable();
        counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        counts
    }
}

/// What a list holds, each once, sorted; the list is empty then.
pub(in crate::policy) fn taken<T: Ord>(list: &mut Vec<T>) -> Vec<T> {
    let mut taken = std::mem::take(list);
    taken.sort_unstable();
    taken.dedup();
    taken
}
