//! The selections from nothing: plain, and what the incremental ones must equal.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::expansion::{Expansion, Objects, Term};
use super::matching::Candidate;
use super::{Selections, Selector, SelectorId};
use crate::identity::{IdentityTable, ancestors};
use crate::policy::PolicyOptions;

impl Selections {
    /// Asks each selector about each identity. Only CIDR selectors are put in
    /// order first: there may be as many of them as identities.
    #[must_use]
    pub(in crate::policy) fn from_scratch(
        selectors: &BTreeSet<Selector>,
        identities: &IdentityTable,
        objects: &Objects,
        options: &PolicyOptions,
    ) -> Self {
        let ids: OrdMap<Selector, SelectorId> = selectors
            .iter()
            .cloned()
            .zip((0..).map(SelectorId))
            .collect();
        let mut by_prefix: HashMap<IpNet, Vec<(&Selector, SelectorId)>> = HashMap::new();
        let mut others = Vec::new();
        let mut expansions = HashMap::new();
        for (selector, id) in &ids {
            let expansion = Expansion::of(selector, objects);
            for term in &expansion.terms {
                match term {
                    Term::Prefix(prefix) | Term::Address(prefix) => {
                        by_prefix.entry(*prefix).or_default().push((selector, *id));
                    }
                    Term::Entity(_) | Term::Labels(_) | Term::Workloads(_) => {
                        others.push((selector, *id));
                    }
                }
            }
            expansions.insert(*id, expansion);
        }
        let mut by_identity = OrdMap::new();
        for identity in identities.live() {
            let prefix = identity.key.prefix();
            let asked: BTreeSet<SelectorId> = prefix
                .into_iter()
                .flat_map(ancestors)
                .filter_map(|prefix| by_prefix.get(&prefix))
                .flatten()
                .chain(&others)
                .map(|(_, id)| *id)
                .collect();
            // Labels of prefixes are long; few are asked for them.
            let labels = if others.is_empty() {
                Arc::default()
            } else {
                identities.labels(identity)
            };
            let candidate = Candidate {
                identity,
                labels: &labels,
            };
            let selecting = asked
                .into_iter()
                .filter(|id| expansions[id].selects(&candidate, options));
            by_identity.insert(identity.index, selecting.collect());
        }
        Self {
            ids,
            by_identity,
            named_ports: OrdMap::new(),
        }
    }
}

impl Expansion {
    /// Whether an identity is meant.
    fn selects(&self, candidate: &Candidate<'_>, options: &PolicyOptions) -> bool {
        let excepted = candidate
            .identity
            .key
            .prefix()
            .is_some_and(|prefix| self.except.iter().any(|except| except.contains(&prefix)));
        !excepted
            && self
                .terms
                .iter()
                .any(|term| term.selects(candidate, options))
    }
}
