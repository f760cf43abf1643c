//! What this node needs to know because of its policies, and the changes that
//! wait until it is known. No I/O; owned by the intake.
//!
//! A policy is handed on when everything that it needs on this node was listed to
//! its end, and so is a change of the node's labels that lets other policies select
//! it: what is enforced never judges peers that it could not know yet. Until then
//! the version before stays in force.

use std::collections::BTreeMap;

use super::needs::{Claim, Needs, claims};
use crate::events::{RepositoryChange, Resource, ResourceKey, ResourceKind, Revision, SourceName};
use crate::identity::{Label, LabelSet};
use crate::policy::PolicySnapshot;
use crate::policy::language::read_policy;
use crate::policy::objects::Object;

/// Labels of the node's objects, as the server has them.
type OwnLabels = BTreeMap<ResourceKind, BTreeMap<String, String>>;

/// What is needed, and what waits for it.
#[derive(Debug)]
pub(super) struct Demand {
    /// The name of the node.
    node: String,
    own: OwnLabels,
    labels: LabelSet,
    /// Rules of the cluster's policies that need something.
    claims: BTreeMap<ResourceKey, Vec<Claim>>,
    /// What these need here.
    needs: Needs,
    /// What policies of an earlier life needed, until the cluster's are known.
    restored: Needs,
    /// What policies of other sources need here, by the revision that was looked at.
    others: Needs,
    revision: Option<Revision>,
    waiting: BTreeMap<ResourceKey, (RepositoryChange, Needs)>,
}

impl Demand {
    /// That of a node whose policies are those of the snapshot.
    pub(super) fn new(node: &str, snapshot: &PolicySnapshot) -> Self {
        Self {
            node: node.to_owned(),
            own: OwnLabels::new(),
            labels: LabelSet::clone(&snapshot.host_labels),
            claims: BTreeMap::new(),
            needs: Needs::default(),
            restored: needs_of(snapshot, &snapshot.host_labels, |_| true),
            others: Needs::default(),
            revision: None,
            waiting: BTreeMap::new(),
        }
    }

    /// Everything that is needed, for what is in force and for what waits.
    pub(super) fn needs(&self) -> Needs {
        let waiting = self.waiting.values().map(|(_, needs)| *needs);
        let in_force = self.needs.and(self.others).and(self.restored);
        waiting.fold(in_force, Needs::and)
    }

    /// The cluster's policies are known.
    pub(super) fn settle(&mut self) {
        self.restored = Needs::default();
    }

    /// What waits to be known of, with what it needs.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&ResourceKey, Needs)> {
        self.waiting.iter().map(|(key, (_, needs))| (key, *needs))
    }

    /// Looks at what other sources told since the last time.
    pub(super) fn look(&mut self, snapshot: &PolicySnapshot) {
        if self.revision == Some(snapshot.revision) {
            return;
        }
        self.revision = Some(snapshot.revision);
        let labels = host_labels(snapshot, &self.node, &self.own);
        if labels != self.labels {
            self.labels = labels;
            self.count();
        }
        let is_other = |source: SourceName| source != SourceName::Kubernetes;
        self.others = needs_of(snapshot, &self.labels, is_other);
    }

    /// Takes a change in. Gives it back if what it needs is known, as `is_known`
    /// tells; else it waits.
    pub(super) fn admit(
        &mut self,
        change: RepositoryChange,
        snapshot: &PolicySnapshot,
        is_known: &dyn Fn(Needs) -> bool,
    ) -> Option<RepositoryChange> {
        let Some(key) = change.key().cloned() else {
            return Some(change);
        };
        self.waiting.remove(&key);
        let needs = match &change {
            RepositoryChange::Delete { .. } if key.kind.is_policy() => {
                if self.claims.remove(&key).is_some() {
                    self.count();
                }
                return Some(change);
            }
            RepositoryChange::Upsert(resource) if key.kind.is_policy() => self.claim(resource),
            _ if self.is_own(&key) => {
                let own = self.own_with(&key, &change);
                let labels = host_labels(snapshot, &self.node, &own);
                let is_other = |source: SourceName| source != SourceName::Kubernetes;
                let needs = self.needs_with(&labels, |key| !self.waiting.contains_key(key));
                let needs = needs.and(needs_of(snapshot, &labels, is_other));
                if is_known(needs) {
                    (self.own, self.labels) = (own, labels);
                    self.count();
                    return Some(change);
                }
                needs
            }
            _ => return Some(change),
        };
        if is_known(needs) {
            return Some(change);
        }
        self.waiting.insert(key, (change, needs));
        None
    }

    /// What waited and need not any more.
    pub(super) fn release(
        &mut self,
        snapshot: &PolicySnapshot,
        is_known: &dyn Fn(Needs) -> bool,
    ) -> Vec<RepositoryChange> {
        let waiting = std::mem::take(&mut self.waiting);
        let changes = waiting.into_values();
        changes
            .filter_map(|(change, _)| self.admit(change, snapshot, is_known))
            .collect()
    }

    /// What a version of a policy needs here.
    fn claim(&mut self, resource: &Resource) -> Needs {
        let Some(policy) = read_policy(&resource.key, &resource.body.value()).value else {
            // It will be refused, and the version before stays in force.
            return Needs::default();
        };
        let claims = claims(&policy);
        let needs = on(&claims, &self.labels);
        let before = if claims.is_empty() {
            self.claims.remove(&resource.key)
        } else {
            self.claims.insert(resource.key.clone(), claims)
        };
        if before.is_some() {
            self.count();
        }
        self.needs = self.needs.and(needs);
        needs
    }

    fn count(&mut self) {
        self.needs = self.needs_with(&self.labels, |_| true);
    }

    fn needs_with(&self, labels: &LabelSet, counts: impl Fn(&ResourceKey) -> bool) -> Needs {
        let claims = self.claims.iter().filter(|(key, _)| counts(key));
        claims
            .map(|(_, claims)| on(claims, labels))
            .fold(Needs::default(), Needs::and)
    }

    /// Whether the node's labels come from this object.
    fn is_own(&self, key: &ResourceKey) -> bool {
        matches!(key.kind, ResourceKind::Node | ResourceKind::CiliumNode) && key.name == self.node
    }

    fn own_with(&self, key: &ResourceKey, change: &RepositoryChange) -> OwnLabels {
        let mut own = self.own.clone();
        let labels = match change {
            RepositoryChange::Upsert(resource) => {
                let body = resource.body.value();
                let labels = body["metadata"]["labels"].as_object().cloned();
                let labels = labels.unwrap_or_default().into_iter();
                let labels = labels.filter_map(|(key, value)| Some((key, value.as_str()?.into())));
                labels.collect()
            }
            _ => BTreeMap::new(),
        };
        own.insert(key.kind, labels);
        own
    }
}

fn on(claims: &[Claim], labels: &LabelSet) -> Needs {
    let needs = claims.iter().map(|claim| claim.on(labels));
    needs.fold(Needs::default(), Needs::and)
}

/// What the policies of some sources need on a node with these labels.
fn needs_of(
    snapshot: &PolicySnapshot,
    labels: &LabelSet,
    is_meant: impl Fn(SourceName) -> bool,
) -> Needs {
    let policies = snapshot.policies.values();
    let meant = policies.filter(|stored| is_meant(stored.resource.source));
    meant
        .map(|stored| on(&claims(&stored.policy), labels))
        .fold(Needs::default(), Needs::and)
}

/// The labels of the host endpoint once the repository has read the node's objects
/// as they are now: those that it had from elsewhere stay, and win.
fn host_labels(snapshot: &PolicySnapshot, node: &str, own: &OwnLabels) -> LabelSet {
    const SOURCE: &str = "k8s";
    let mut read: BTreeMap<String, String> = BTreeMap::new();
    let mut now: BTreeMap<String, String> = BTreeMap::new();
    for kind in [ResourceKind::CiliumNode, ResourceKind::Node] {
        let key = ResourceKey {
            kind,
            namespace: None,
            name: node.to_owned(),
        };
        let stored = snapshot.objects.get(&key).map(|stored| &stored.object);
        let stored = match stored {
            Some(Object::Node(node)) => node.labels.clone(),
            _ => BTreeMap::new(),
        };
        now.extend(own.get(&kind).unwrap_or(&stored).clone());
        read.extend(stored);
    }
    let mut labels = LabelSet::default();
    for label in snapshot.host_labels.iter() {
        if label.source != SOURCE {
            labels.insert(label.clone());
        } else if read.get(&label.key) != Some(&label.value) {
            now.insert(label.key.clone(), label.value.clone());
        }
    }
    for (key, value) in now {
        labels.insert(Label::new(SOURCE, key, value));
    }
    labels
}
