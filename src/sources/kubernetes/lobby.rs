//! Where policies of manifests and etcd wait until what they need of the cluster is
//! known, as those of the cluster do: what is enforced never judges peers that it
//! could not know yet. Until then the version before stays in force.
//!
//! Threads of all sources come in; the intake tells what is known, and lets go what
//! waits no more. A source whose policies wait has not told everything yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::heard::{Heard, What};
use super::kinds::WATCHED;
use super::needs::{Needs, Scope, claims};
use crate::events::{RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};
use crate::policy::PolicySnapshot;
use crate::policy::language::read_policy;
use crate::queues::{Pipeline, SubmitError};
use crate::sources::ChangeSink;

/// How much of each kind is known; of what is missing, nothing.
pub(super) type Known = BTreeMap<ResourceKind, Scope>;

/// The door of the pipeline for other sources on a node that has Kubernetes.
#[derive(Debug)]
pub(super) struct Lobby {
    pipeline: Arc<Pipeline>,
    /// Wakes the intake.
    ticks: mpsc::Sender<Heard>,
    /// Held while a change goes through, so that none overtakes another.
    waits: Mutex<Waits>,
}

impl Lobby {
    pub(super) fn new(pipeline: Arc<Pipeline>, ticks: mpsc::Sender<Heard>) -> Self {
        Self {
            pipeline,
            ticks,
            waits: Mutex::default(),
        }
    }

    /// What those that wait need.
    pub(super) fn needs(&self) -> Needs {
        let waits = self.waits.lock();
        let needs = waits.policies.values().map(|(_, needs)| *needs);
        needs.fold(Needs::default(), Needs::and)
    }

    /// Who waits, with what it needs.
    pub(super) fn waiting(&self) -> Vec<(ResourceKey, Needs)> {
        let waits = self.waits.lock();
        let waiting = waits.policies.iter();
        waiting
            .map(|((_, key), (_, needs))| (key.clone(), *needs))
            .collect()
    }

    /// From now on this is known.
    pub(super) fn know(&self, known: Known) -> Result<(), SubmitError> {
        let mut waits = self.waits.lock();
        for change in waits.know(known) {
            hand_on(&self.pipeline, change)?;
        }
        self.tell_whole(&mut waits)
    }

    fn tell_whole(&self, waits: &mut Waits) -> Result<(), SubmitError> {
        for (source, owned) in waits.whole() {
            self.pipeline.source_in_sync(source, &owned)?;
        }
        Ok(())
    }
}

impl ChangeSink for Lobby {
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError> {
        let mut waits = self.waits.lock();
        match waits.admit(change, &self.pipeline.repository()) {
            Some(change) => ChangeSink::submit(&*self.pipeline, change),
            None => {
                let (kind, what) = (ResourceKind::Node, What::Tick);
                // A full channel has the intake busy as it is.
                drop(self.ticks.try_send(Heard { kind, what }));
                Ok(())
            }
        }
    }

    fn in_sync(
        &self,
        source: SourceName,
        owned: &BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        let mut waits = self.waits.lock();
        waits.tell(source, owned);
        self.tell_whole(&mut waits)
    }

    fn freed(&self, source: SourceName) -> BTreeSet<ResourceKind> {
        self.pipeline.freed(source)
    }
}

/// What the journal cannot take is told and left out; the rest goes on.
fn hand_on(pipeline: &Pipeline, change: RepositoryChange) -> Result<(), SubmitError> {
    let subject = change.subject();
    match ChangeSink::submit(pipeline, change) {
        Err(SubmitError::Journal(reason)) => {
            tracing::error!(subject, "object not taken: {reason}");
            Ok(())
        }
        other => other,
    }
}

/// Who waits for what. No I/O.
#[derive(Debug, Default)]
pub(super) struct Waits {
    known: Known,
    policies: BTreeMap<(SourceName, ResourceKey), (RepositoryChange, Needs)>,
    /// Sources that have told everything, some of which waits, and what they hold.
    told: BTreeMap<SourceName, BTreeSet<ResourceKey>>,
}

impl Waits {
    /// Gives the change back if what it needs is known; else it waits.
    pub(super) fn admit(
        &mut self,
        change: RepositoryChange,
        snapshot: &PolicySnapshot,
    ) -> Option<RepositoryChange> {
        let Some(key) = change.key() else {
            return Some(change);
        };
        let place = (change.source(), key.clone());
        self.policies.remove(&place);
        let needs = match &change {
            RepositoryChange::Upsert(resource) if key.kind.is_policy() => here(resource, snapshot),
            _ => Needs::default(),
        };
        if self.knows(needs) {
            return Some(change);
        }
        self.policies.insert(place, (change, needs));
        None
    }

    /// From now on this is known; what waits no more.
    pub(super) fn know(&mut self, known: Known) -> Vec<RepositoryChange> {
        self.known = known;
        let policies = std::mem::take(&mut self.policies);
        let mut free = Vec::new();
        for (place, (change, needs)) in policies {
            if self.knows(needs) {
                free.push(change);
            } else {
                self.policies.insert(place, (change, needs));
            }
        }
        free
    }

    /// A source has told everything that it holds.
    pub(super) fn tell(&mut self, source: SourceName, owned: &BTreeSet<ResourceKey>) {
        self.told.insert(source, owned.clone());
    }

    /// Sources of which nothing waits any more, and that have told everything.
    pub(super) fn whole(&mut self) -> BTreeMap<SourceName, BTreeSet<ResourceKey>> {
        let told = std::mem::take(&mut self.told);
        let (waiting, whole) = told.into_iter().partition(|(source, _)| self.has(*source));
        self.told = waiting;
        whole
    }

    fn has(&self, source: SourceName) -> bool {
        self.policies.keys().any(|(waiting, _)| *waiting == source)
    }

    fn knows(&self, needs: Needs) -> bool {
        WATCHED.iter().all(|watched| {
            let known = self.known.get(&watched.kind).copied();
            known.unwrap_or_default() >= needs.must_know(watched.kind)
        })
    }
}

/// What a version of a policy needs on this node. One that is in force as it is
/// needs nothing more.
fn here(resource: &Resource, snapshot: &PolicySnapshot) -> Needs {
    let in_force = snapshot.policies.get(&resource.key);
    if in_force.is_some_and(|stored| stored.resource.body == resource.body) {
        return Needs::default();
    }
    let Some(policy) = read_policy(&resource.key, &resource.body.value()).value else {
        // It will be refused, and the version before stays in force.
        return Needs::default();
    };
    let claims = claims(&policy);
    let needs = claims.iter().map(|claim| claim.on(&snapshot.host_labels));
    needs.fold(Needs::default(), Needs::and)
}
