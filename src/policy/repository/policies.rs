//! Policies: the selectors and rule numbers that they need on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StoredPolicy;
use super::effects::Effects;
use super::numbers::RuleNumbers;
use super::state::{DoesNotFit, State};
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{IdentityIndex, IdentityTable, Label, LabelSet, Reserved};
use crate::policy::language::{Item, Peer, Peers, Policy, Rule};
use crate::policy::objects::Object;
use crate::policy::selections::{Things, Touched, tells_nodes_apart};
use crate::policy::{RuleNumber, RuleRef};

impl State {
    /// What a policy in force needs with these labels of the host.
    fn effects_of(&self, key: &ResourceKey, host_labels: &LabelSet) -> Effects {
        self.policies
            .get(key)
            .map_or_else(Effects::default, |stored| {
                Effects::of_policy(&stored.resource, &stored.policy, host_labels)
            })
    }

    /// Puts a policy in force, or takes it out.
    pub(super) fn put_policy(
        &mut self,
        key: &ResourceKey,
        new: Option<StoredPolicy>,
        touched: &mut Touched,
    ) -> Result<(), DoesNotFit> {
        let old = self.effects_of(key, &self.host_labels);
        let effects = new.as_ref().map_or_else(Effects::default, |stored| {
            Effects::of_policy(&stored.resource, &stored.policy, &self.host_labels)
        });
        self.replace(&old, &effects, touched)?;
        match new {
            None => {
                self.policies.remove(key);
            }
            Some(mut stored) => {
                stored.selects_host = effects.selects_host;
                stored.numbers = self.numbers_of(key, &stored.policy);
                self.policies.insert(key.clone(), Arc::new(stored));
            }
        }
        Ok(())
    }

    /// Whether a policy, or none, in the place of what is there fits for sure:
    /// it changes nobody's identity but those of prefixes that it lists itself,
    /// and there is room for all of these and for its items.
    pub(super) fn surely_fits(&self, key: &ResourceKey, new: Option<&StoredPolicy>) -> bool {
        let old = self.policies.get(key);
        if old.is_some_and(|old| peers_of(&old.policy).any(tells_nodes_apart)) {
            return false;
        }
        let Some(new) = new else {
            return true;
        };
        let mut prefixes = 0;
        for peer in peers_of(&new.policy) {
            match peer {
                Peer::Entity(_) => {}
                Peer::Cidr { except, .. } => prefixes += 1 + except.len(),
                Peer::Endpoints(_) if !tells_nodes_apart(peer) => {}
                Peer::Endpoints(_)
                | Peer::CidrGroup { .. }
                | Peer::Nodes(_)
                | Peer::Services(_) => return false,
            }
        }
        let items: usize = new.policy.rules.iter().map(|rule| rule.items.len()).sum();
        self.numbers.len() + items <= RuleNumbers::MAX
            && self.identities.len() + prefixes <= IdentityTable::MAX
    }

    /// Replaces the effects of one policy. What both need keeps its numbers.
    fn replace(
        &mut self,
        old: &Effects,
        new: &Effects,
        touched: &mut Touched,
    ) -> Result<(), DoesNotFit> {
        let gone = old
            .rules
            .keys()
            .filter(|rule| !new.rules.contains_key(rule));
        self.numbers.release(gone);
        let come = new.rules.keys().filter(|rule| !self.numbers.contains(rule));
        let needed = self.numbers.len() + come.count();
        if needed > RuleNumbers::MAX {
            return Err(DoesNotFit {
                what: "rule items",
                needed,
                max: RuleNumbers::MAX,
            });
        }
        self.numbers.acquire(&new.rules);
        let things = Things {
            objects: &self.objects,
            slices: &self.slices,
        };
        // First what comes: what others give back meanwhile keeps its numbers.
        for selector in only_in(&new.selectors, &old.selectors) {
            self.selectors.acquire(selector, things, touched);
        }
        for selector in only_in(&old.selectors, &new.selectors) {
            self.selectors.release(selector, things, touched);
        }
        Ok(())
    }

    /// The numbers of a policy's items, by rule and item.
    fn numbers_of(&self, key: &ResourceKey, policy: &Policy) -> Vec<Vec<RuleNumber>> {
        let number = |item: &Item| {
            self.numbers.of(&RuleRef {
                resource: Some(key.clone()),
                section: item.section,
                index: item.index,
            })
        };
        let of_rule = |rule: &Rule| rule.items.iter().map(number).collect();
        policy.rules.iter().map(of_rule).collect()
    }

    /// `reserved:host`, then CiliumNode, Node and configuration: the later wins.
    fn labels_of_host(&self) -> LabelSet {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for kind in [ResourceKind::CiliumNode, ResourceKind::Node] {
            let key = ResourceKey {
                kind,
                namespace: None,
                name: self.options.node_name.clone(),
            };
            if let Some(Object::Node(node)) = self.objects.get(&key).map(|stored| &stored.object) {
                for (key, value) in &node.labels {
                    labels.insert(key, value);
                }
            }
        }
        for (key, value) in &*self.node_labels {
            labels.insert(key, value);
        }
        let host = Label::reserved(Reserved::Host.name());
        let serves = self.host_serves_api();
        let apiserver = serves.then(|| Label::reserved(Reserved::KubeApiserver.name()));
        let of_node = labels
            .into_iter()
            .map(|(key, value)| Label::new("k8s", key, value));
        std::iter::once(host)
            .chain(apiserver)
            .chain(of_node)
            .collect()
    }

    /// Asks all policies again whether they select this host, if its labels
    /// have changed. That walks over all of them: it is rare, and each must be
    /// asked.
    pub(super) fn refresh_host_labels(&mut self, touched: &mut Touched) -> Result<(), DoesNotFit> {
        let labels = Arc::new(self.labels_of_host());
        if labels == self.host_labels {
            return Ok(());
        }
        let keys: Vec<ResourceKey> = self.policies.keys().cloned().collect();
        for key in keys {
            let old = self.effects_of(&key, &self.host_labels);
            let new = self.effects_of(&key, &labels);
            if old == new {
                continue;
            }
            self.replace(&old, &new, touched)?;
            if let Some(stored) = self.policies.get(&key) {
                let mut stored = StoredPolicy::clone(stored);
                stored.selects_host = new.selects_host;
                stored.numbers = self.numbers_of(&key, &stored.policy);
                self.policies.insert(key, Arc::new(stored));
            }
        }
        self.identities.set_host_labels(Arc::clone(&labels));
        touched
            .identities
            .push(IdentityIndex(Reserved::Host.number().0));
        self.host_labels = labels;
        Ok(())
    }

    /// Gives back rule numbers of a record that nobody needs any more.
    pub(super) fn drop_unused_numbers(&mut self) {
        let failsafe = Effects::of_failsafe(&self.options.failsafe).rules;
        let mut keep: BTreeSet<RuleRef> = failsafe.into_keys().collect();
        for key in self.policies.keys() {
            keep.extend(self.effects_of(key, &self.host_labels).rules.into_keys());
        }
        self.numbers.retain(&keep);
    }
}

fn peers_of(policy: &Policy) -> impl Iterator<Item = &Peer> {
    let items = policy.rules.iter().flat_map(|rule| &rule.items);
    items.flat_map(|item| match &item.peers {
        Peers::Any => &[][..],
        Peers::Select(peers) => peers,
    })
}

/// What one sorted list has and the other has not.
fn only_in<'a, T: Ord>(list: &'a [T], other: &'a [T]) -> impl Iterator<Item = &'a T> {
    let mut other = other.iter().peekable();
    list.iter().filter(move |item| {
        while other.next_if(|other| other < item).is_some() {}
        other.peek() != Some(item)
    })
}
