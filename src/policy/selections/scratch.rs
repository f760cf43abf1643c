//! The selections from nothing: plain, and what the incremental ones must equal.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::expansion::{Expansion, Objects, Term};
use super::matching::Candidate;
use super::{Selections, Selector, SelectorId};
use crate::events::ResourceKey;
use crate::identity::{IdentityKind, IdentityTable, LabelSet};
use crate::policy::language::Peers;
use crate::policy::repository::selects_host;
use crate::policy::{PolicyOptions, StoredPolicy};

/// The selectors of all rules that select the host, and of the failsafe list.
pub(in crate::policy) fn selectors_in_use(
    policies: &OrdMap<ResourceKey, Arc<StoredPolicy>>,
    host_labels: &LabelSet,
    options: &PolicyOptions,
) -> BTreeSet<Selector> {
    let of_failsafe = options.failsafe.iter().filter_map(|entry| entry.peer);
    let mut selectors: BTreeSet<_> = of_failsafe
        .map(|prefix| Selector::Address(prefix.trunc()))
        .collect();
    let rules = policies.values().flat_map(|stored| &stored.policy.rules);
    for rule in rules.filter(|rule| selects_host(rule, host_labels)) {
        for item in &rule.items {
            if let Peers::Select(peers) = &item.peers {
                selectors.extend(peers.iter().cloned().map(Selector::Peer));
            }
        }
    }
    selectors
}

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
            let around = match identity.kind {
                IdentityKind::Reserved(_) => Vec::new(),
                IdentityKind::Cidr(prefix) | IdentityKind::RemoteNode(prefix) => ancestors(prefix),
            };
            let asked: BTreeSet<SelectorId> = around
                .iter()
                .filter_map(|prefix| by_prefix.get(prefix))
                .flatten()
                .chain(&others)
                .map(|(_, id)| *id)
                .collect();
            // Labels of prefixes are long; few are asked for them.
            let labels = if others.is_empty() {
                Arc::default()
            } else {
                identities.labels(*identity)
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

/// All prefixes that hold `prefix`, itself too.
fn ancestors(prefix: IpNet) -> Vec<IpNet> {
    (0..=prefix.prefix_len())
        .filter_map(|length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()))
        .collect()
}
