//! Applies one change: validate, take what it needs, one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::effects::{DoesNotFit, Effects, NodeClaim};
use super::{Affected, Applied, Change, Refusal, Repository, StoredObject, StoredPolicy};
use crate::events::{
    Origin, RegenerationCause, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName,
};
use crate::identity::{IpcacheSource, Label, LabelSet, Reserved};
use crate::policy::language::{FieldError, Item, Policy, Rule, read_policy};
use crate::policy::objects::{NodeObject, Object, read_object};
use crate::policy::{RuleNumber, RuleRef};

/// What the parts of a snapshot looked like before a change.
struct Before {
    host_labels: Arc<LabelSet>,
    ipcache: u64,
    identities: u64,
}

impl Repository {
    /// Applies one change: one revision if anything that matters changed.
    pub fn apply(&mut self, change: &RepositoryChange) -> Applied {
        match change {
            RepositoryChange::Upsert(resource) => match resource.key.kind {
                ResourceKind::CiliumClusterwideNetworkPolicy
                | ResourceKind::CiliumNetworkPolicy => self.upsert_policy(resource),
                ResourceKind::Node | ResourceKind::CiliumNode => self.upsert_node(resource),
                // No source gives these yet.
                ResourceKind::CiliumCIDRGroup
                | ResourceKind::Namespace
                | ResourceKind::Pod
                | ResourceKind::Service
                | ResourceKind::EndpointSlice
                | ResourceKind::CiliumIdentity
                | ResourceKind::CiliumEndpoint => Applied::Unchanged,
            },
            RepositoryChange::Delete { key, source } => self.delete(key, *source),
            RepositoryChange::LocalAddresses(addresses) => self.set_local_addresses(addresses),
            RepositoryChange::NodeLabels(labels) => self.set_node_labels(labels),
        }
    }

    fn upsert_policy(&mut self, resource: &Resource) -> Applied {
        let key = &resource.key;
        let existing = self.policies.get(key).cloned();
        let owner = existing.as_ref().map(|stored| stored.resource.source);
        if let Err(applied) = self.check_owner(resource, owner) {
            return *applied;
        }
        let reading = read_policy(&resource.key, &resource.body);
        let Some(policy) = reading.value else {
            return self.refuse(resource, reading.errors, existing.is_some());
        };
        let old = existing.as_ref().map_or_else(Effects::default, |stored| {
            Effects::of_policy(&stored.resource, &stored.policy, &self.host_labels)
        });
        let new = Effects::of_policy(resource, &policy, &self.host_labels);
        let before = self.before();
        if let Err(excess) = self.ledger.replace(&old, &new) {
            return self.refuse(resource, vec![too_many(&excess)], existing.is_some());
        }
        self.forget_refusal(key, resource.source);
        let same = existing.is_some_and(|stored| stored.policy == policy);
        let stored = StoredPolicy {
            numbers: self.numbers_of(key, &policy),
            resource: Arc::new(resource.clone()),
            policy,
            warnings: reading.warnings.clone(),
            selects_host: new.selects_host,
        };
        self.policies.insert(key.clone(), Arc::new(stored));
        if same {
            return Applied::Unchanged;
        }
        let affected = Affected {
            host: old.selects_host || new.selects_host,
        };
        let cause = RegenerationCause::PolicyAdded;
        self.changed(&before, affected, cause, reading.warnings)
    }

    fn upsert_node(&mut self, resource: &Resource) -> Applied {
        let key = &resource.key;
        let existing = self.node(key).cloned();
        let owner = self.objects.get(key).map(|stored| stored.resource.source);
        if let Err(applied) = self.check_owner(resource, owner) {
            return *applied;
        }
        let reading = read_object(key, &resource.body);
        let Some(Object::Node(node)) = reading.value else {
            return self.refuse(resource, reading.errors, existing.is_some());
        };
        let before = self.before();
        let stored = StoredObject {
            resource: Arc::new(resource.clone()),
            object: Object::Node(node.clone()),
        };
        let previous = self.objects.insert(key.clone(), Arc::new(stored));
        if let Err(excess) = self.settle_host_labels() {
            // More labels selected more rules than fit: as if it had not come.
            match previous {
                Some(previous) => self.objects.insert(key.clone(), previous),
                None => self.objects.remove(key),
            };
            return self.refuse(resource, vec![too_many(&excess)], existing.is_some());
        }
        self.forget_refusal(key, resource.source);
        self.replace_addresses(key, &existing.unwrap_or_default(), &node);
        self.changed_if_visible(&before, reading.warnings)
    }

    fn delete(&mut self, key: &ResourceKey, source: SourceName) -> Applied {
        let owner = if key.kind.is_policy() {
            self.policies.get(key).map(|stored| stored.resource.source)
        } else {
            self.objects.get(key).map(|stored| stored.resource.source)
        };
        self.forget_refusal(key, source);
        // Unknown, or another source's: deleting it here changes nothing.
        if owner != Some(source) {
            return Applied::Unchanged;
        }
        let before = self.before();
        if key.kind.is_policy() {
            let Some(stored) = self.policies.remove(key) else {
                return Applied::Unchanged;
            };
            let old = Effects::of_policy(&stored.resource, &stored.policy, &self.host_labels);
            // Giving back always fits.
            let _ = self.ledger.replace(&old, &Effects::default());
            let affected = Affected {
                host: old.selects_host,
            };
            let cause = RegenerationCause::PolicyDeleted;
            return self.changed(&before, affected, cause, Vec::new());
        }
        let node = self.node(key).cloned().unwrap_or_default();
        let Some(stored) = self.objects.remove(key) else {
            return Applied::Unchanged;
        };
        if let Err(excess) = self.settle_host_labels() {
            // A rule with NotIn selects more without the labels.
            let resource = stored.resource.clone();
            self.objects.insert(key.clone(), stored);
            return self.refuse(&resource, vec![too_many(&excess)], true);
        }
        self.replace_addresses(key, &node, &NodeObject::default());
        self.changed_if_visible(&before, Vec::new())
    }

    fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Applied {
        let mut new = addresses.to_vec();
        new.sort();
        new.dedup();
        let before = self.before();
        let old = std::mem::take(&mut self.local_addresses);
        for address in old.iter().filter(|address| !new.contains(address)) {
            self.ledger.withdraw_node(*address, LOCAL);
        }
        self.restore_addresses(new);
        self.changed_if_visible(&before, Vec::new())
    }

    fn set_node_labels(&mut self, labels: &BTreeMap<String, String>) -> Applied {
        let before = self.before();
        let old = std::mem::replace(&mut self.node_labels, labels.clone());
        if let Err(excess) = self.settle_host_labels() {
            self.node_labels = old;
            let errors = vec![too_many(&excess)];
            let key = ResourceKey {
                kind: ResourceKind::Node,
                namespace: None,
                name: self.options.node_name.clone(),
            };
            return self.refuse_key(key, SourceName::Local, Origin::default(), errors, true);
        }
        self.changed_if_visible(&before, Vec::new())
    }

    /// The numbers of a policy's items, by rule and item.
    fn numbers_of(&self, key: &ResourceKey, policy: &Policy) -> Vec<Vec<RuleNumber>> {
        let number = |item: &Item| {
            self.ledger.numbers.of(&RuleRef {
                resource: Some(key.clone()),
                section: item.section,
                index: item.index,
            })
        };
        let of_rule = |rule: &Rule| rule.items.iter().map(number).collect();
        policy.rules.iter().map(of_rule).collect()
    }

    /// The first source to own a key keeps it.
    fn check_owner(
        &mut self,
        resource: &Resource,
        owner: Option<SourceName>,
    ) -> Result<(), Box<Applied>> {
        let Some(owner) = owner.filter(|owner| *owner != resource.source) else {
            return Ok(());
        };
        let error = FieldError {
            path: "metadata.name".to_owned(),
            value: Some(format!("{:?}", resource.key.name)),
            reason: format!("belongs to the source {}", owner.as_str()),
            suggestion: Some("delete it there first, or use another name".to_owned()),
            ..FieldError::default()
        };
        Err(Box::new(self.refuse(resource, vec![error], true)))
    }

    fn refuse(&mut self, resource: &Resource, errors: Vec<FieldError>, in_force: bool) -> Applied {
        let (key, origin) = (resource.key.clone(), resource.origin.clone());
        self.refuse_key(key, resource.source, origin, errors, in_force)
    }

    fn refuse_key(
        &mut self,
        key: ResourceKey,
        source: SourceName,
        origin: Origin,
        errors: Vec<FieldError>,
        in_force: bool,
    ) -> Applied {
        let refusal = Refusal {
            key: key.clone(),
            source,
            origin,
            errors,
            in_force,
        };
        self.refused.insert((key, source), refusal.clone());
        Applied::Refused(refusal)
    }

    fn forget_refusal(&mut self, key: &ResourceKey, source: SourceName) {
        self.refused.remove(&(key.clone(), source));
    }

    /// `reserved:host`, then CiliumNode, Node and configuration: the later wins.
    pub(super) fn labels_of_host(&self) -> Arc<LabelSet> {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for kind in [ResourceKind::CiliumNode, ResourceKind::Node] {
            let key = ResourceKey {
                kind,
                namespace: None,
                name: self.options.node_name.clone(),
            };
            let node = self.node(&key).map(|node| &node.labels);
            for (key, value) in node.into_iter().flatten() {
                labels.insert(key, value);
            }
        }
        for (key, value) in &self.node_labels {
            labels.insert(key, value);
        }
        let host = Label::reserved(Reserved::Host.name());
        let of_node = labels
            .into_iter()
            .map(|(key, value)| Label::new("k8s", key, value));
        Arc::new(std::iter::once(host).chain(of_node).collect())
    }

    /// Evaluates all selectors again if the host's labels changed. On an error
    /// nothing is changed.
    fn settle_host_labels(&mut self) -> Result<(), DoesNotFit> {
        let labels = self.labels_of_host();
        if labels == self.host_labels {
            return Ok(());
        }
        let mut ledger = self.ledger.clone();
        let mut selected = Vec::new();
        for (key, stored) in &self.policies {
            let old = Effects::of_policy(&stored.resource, &stored.policy, &self.host_labels);
            let new = Effects::of_policy(&stored.resource, &stored.policy, &labels);
            ledger.replace(&old, &new)?;
            if old.rules.keys().ne(new.rules.keys()) {
                selected.push((key.clone(), new.selects_host));
            }
        }
        self.ledger = ledger;
        for (key, selects_host) in selected {
            let Some(mut stored) = self.policies.get(&key).cloned() else {
                continue;
            };
            let numbers = self.numbers_of(&key, &stored.policy);
            let changed = Arc::make_mut(&mut stored);
            changed.selects_host = selects_host;
            changed.numbers = numbers;
            self.policies.insert(key, stored);
        }
        self.host_labels = labels;
        Ok(())
    }

    fn node(&self, key: &ResourceKey) -> Option<&NodeObject> {
        match &self.objects.get(key)?.object {
            Object::Node(node) => Some(node),
            _ => None,
        }
    }

    fn node_owner<'a>(&self, key: &ResourceKey, owner: &'a str) -> NodeClaim<'a> {
        NodeClaim {
            own: key.name == self.options.node_name,
            source: match key.kind {
                ResourceKind::CiliumNode => IpcacheSource::CustomResource,
                _ => IpcacheSource::K8s,
            },
            owner,
        }
    }

    fn replace_addresses(&mut self, key: &ResourceKey, old: &NodeObject, new: &NodeObject) {
        let owner = key.to_string();
        let claim = self.node_owner(key, &owner);
        for address in &old.addresses {
            if !new.addresses.contains(address) {
                self.ledger.withdraw_node(*address, claim);
            }
        }
        for address in &new.addresses {
            self.ledger.claim_node(*address, claim);
        }
    }

    pub(super) fn restore_addresses(&mut self, addresses: Vec<IpAddr>) {
        for address in &addresses {
            self.ledger.claim_node(*address, LOCAL);
        }
        self.local_addresses = addresses;
    }

    pub(super) fn restore_node(&mut self, resource: Resource) {
        let reading = read_object(&resource.key, &resource.body);
        let Some(Object::Node(node)) = reading.value else {
            self.refuse(&resource, reading.errors, false);
            return;
        };
        let key = resource.key.clone();
        self.replace_addresses(&key, &NodeObject::default(), &node);
        let stored = StoredObject {
            resource: Arc::new(resource),
            object: Object::Node(node),
        };
        self.objects.insert(key, Arc::new(stored));
    }

    pub(super) fn restore_policy(&mut self, resource: Resource) {
        let reading = read_policy(&resource.key, &resource.body);
        let Some(policy) = reading.value else {
            self.refuse(&resource, reading.errors, false);
            return;
        };
        let key = resource.key.clone();
        let effects = Effects::of_policy(&resource, &policy, &self.host_labels);
        if let Err(excess) = self.ledger.replace(&Effects::default(), &effects) {
            self.refuse(&resource, vec![too_many(&excess)], false);
            return;
        }
        let stored = StoredPolicy {
            numbers: self.numbers_of(&key, &policy),
            resource: Arc::new(resource),
            policy,
            warnings: reading.warnings,
            selects_host: effects.selects_host,
        };
        self.policies.insert(key, Arc::new(stored));
    }

    /// Gives back numbers and identities of a record that nothing needs.
    pub(super) fn drop_unused(&mut self) {
        let mut rules = Effects::of_failsafe(&self.options.failsafe).rules;
        for stored in self.policies.values() {
            rules.extend(
                Effects::of_policy(&stored.resource, &stored.policy, &self.host_labels).rules,
            );
        }
        self.ledger.numbers.retain(&rules);
        self.ledger.sweep();
    }

    fn before(&self) -> Before {
        Before {
            host_labels: Arc::clone(&self.host_labels),
            ipcache: self.ledger.ipcache.changes(),
            identities: self.ledger.identity_changes,
        }
    }

    /// Ends a change that may have been of no consequence on this node.
    fn changed_if_visible(&mut self, before: &Before, warnings: Vec<FieldError>) -> Applied {
        let labels = before.host_labels != self.host_labels;
        let addresses = before.ipcache != self.ledger.ipcache.changes()
            || before.identities != self.ledger.identity_changes;
        if !labels && !addresses {
            return Applied::Unchanged;
        }
        let cause = if labels {
            RegenerationCause::LabelsChanged
        } else {
            RegenerationCause::IdentitiesChanged
        };
        self.changed(before, Affected { host: true }, cause, warnings)
    }

    fn changed(
        &mut self,
        before: &Before,
        affected: Affected,
        cause: RegenerationCause,
        warnings: Vec<FieldError>,
    ) -> Applied {
        let mut causes = BTreeSet::from([cause]);
        let identities = before.identities != self.ledger.identity_changes;
        if identities || before.host_labels != self.host_labels {
            self.refresh_identities();
        }
        if identities || affected.host {
            self.refresh_selections();
        }
        if identities || before.ipcache != self.ledger.ipcache.changes() {
            causes.insert(RegenerationCause::IdentitiesChanged);
        }
        self.revision = self.revision.next();
        Applied::Changed(Change {
            revision: self.revision,
            affected,
            causes,
            warnings,
        })
    }
}

/// The node itself, by netlink.
const LOCAL: NodeClaim<'static> = NodeClaim {
    own: true,
    source: IpcacheSource::Local,
    owner: "",
};

fn too_many(excess: &DoesNotFit) -> FieldError {
    FieldError {
        reason: format!(
            "{} {} are needed on this node with it, {} fit",
            excess.needed, excess.what, excess.max
        ),
        suggestion: Some("merge rules or prefixes".to_owned()),
        ..FieldError::default()
    }
}
