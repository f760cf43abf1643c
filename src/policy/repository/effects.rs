//! What one policy needs on this node: selectors, and numbers for its items.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::events::Resource;
use crate::identity::LabelSet;
use crate::policy::language::{Policy, Rule, RuleSubject};
use crate::policy::selections::{Selector, selectors_of};
use crate::policy::{FailsafeEntry, RuleEntry, RuleRef};

/// What one policy needs on this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Effects {
    /// Each once, sorted.
    pub(super) selectors: Vec<Selector>,
    pub(super) rules: BTreeMap<RuleRef, Arc<RuleEntry>>,
    pub(super) selects_host: bool,
}

/// Whether a rule selects the host endpoint with these labels.
pub(in crate::policy) fn selects_host(rule: &Rule, host_labels: &LabelSet) -> bool {
    match &rule.subject {
        RuleSubject::Node(selector) => selector.matches(host_labels),
        RuleSubject::Endpoint(_) => false,
    }
}

impl Effects {
    /// Those of a policy. Policies for other nodes need nothing here.
    pub(super) fn of_policy(resource: &Resource, policy: &Policy, host_labels: &LabelSet) -> Self {
        let Resource { key, origin, .. } = resource;
        let mut effects = Self {
            selectors: selectors_of(policy, host_labels),
            ..Self::default()
        };
        for rule in &policy.rules {
            if !selects_host(rule, host_labels) {
                continue;
            }
            effects.selects_host = true;
            for item in &rule.items {
                let reference = RuleRef {
                    resource: Some(key.clone()),
                    section: item.section,
                    index: item.index,
                };
                let entry = RuleEntry {
                    rule: reference.clone(),
                    log: rule.log.clone(),
                    file: origin.file.clone(),
                    line: origin.item_lines.get(&item.path).copied(),
                };
                effects.rules.insert(reference, Arc::new(entry));
            }
        }
        effects
    }

    /// Those of the failsafe list.
    pub(super) fn of_failsafe(entries: &[FailsafeEntry]) -> Self {
        Self {
            rules: (0..entries.len())
                .map(|index| {
                    let entry = RuleEntry::failsafe(index);
                    (entry.rule.clone(), Arc::new(entry))
                })
                .collect(),
            ..Self::default()
        }
    }
}
