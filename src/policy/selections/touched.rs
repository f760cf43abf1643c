//! What a change has touched and what is not settled yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::expansion::Term;
use crate::identity::{IdentityIndex, LabelSet};

/// Collected while a change is applied, worked off at its end.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Touched {
    /// How many users each prefix has gained or lost.
    pub(in crate::policy) prefixes: BTreeMap<IpNet, i64>,
    /// Addresses whose owner may be another.
    pub(in crate::policy) addresses: BTreeSet<IpAddr>,
    /// Numbers that others may have given to other labels.
    pub(in crate::policy) claims: BTreeSet<u32>,
    /// What selectors have begun or ceased to select.
    pub(in crate::policy) terms: BTreeSet<Term>,
    /// Prefixes that groups in use have gained or lost.
    pub(in crate::policy) groups: Vec<(String, IpNet, bool)>,
    /// Prefixes within which identities may have other labels.
    pub(in crate::policy) relabelled: BTreeSet<IpNet>,
    /// Identities that other selectors may select.
    pub(in crate::policy) identities: BTreeSet<IdentityIndex>,
    /// Labels of pods whose named ports may be others.
    pub(in crate::policy) ports: BTreeSet<Arc<LabelSet>>,
}

impl Touched {
    /// One user of a prefix more.
    pub(in crate::policy) fn acquire(&mut self, prefix: IpNet) {
        *self.prefixes.entry(prefix).or_default() += 1;
    }
    /// One user of a prefix less.
    pub(in crate::policy) fn release(&mut self, prefix: IpNet) {
        *self.prefixes.entry(prefix).or_default() -= 1;
    }
}
