//! Applies one change: validate, take what it needs, one revision; or nothing
//! of it, if it is invalid or does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::state::{Before, DoesNotFit, State};
use super::{Affected, Applied, Change, Refusal, Repository, StoredObject, StoredPolicy};
use crate::events::{
    Origin, RegenerationCause, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName,
};
use crate::policy::language::{FieldError, read_policy};
use crate::policy::objects::read_object;
use crate::policy::selections::Touched;

impl Repository {
    /// Applies one change: one revision if anything that matters changed.
    pub fn apply(&mut self, change: &RepositoryChange) -> Applied {
        match change {
            RepositoryChange::Upsert(resource) if resource.key.kind.is_policy() => {
                self.upsert_policy(resource)
            }
            RepositoryChange::Upsert(resource) => self.upsert_object(resource),
            RepositoryChange::Delete { key, source } => self.delete(key, *source),
            RepositoryChange::LocalAddresses(addresses) => self.set_local_addresses(addresses),
            RepositoryChange::NodeLabels(labels) => self.set_node_labels(labels),
        }
    }

    /// Does something to the state, or leaves it as it was.
    pub(super) fn attempt(
        &mut self,
        change: impl FnOnce(&mut State, &mut Touched) -> Result<(), DoesNotFit>,
    ) -> Result<Before, DoesNotFit> {
        let saved = self.state.clone();
        let done = self.carry_out(change);
        if done.is_err() {
            self.state = saved;
        }
        done
    }

    /// The same for policies. What surely fits needs no copy to go back to:
    /// while there is one, every part of the state that is written is copied.
    fn attempt_policy(
        &mut self,
        key: &ResourceKey,
        new: Option<StoredPolicy>,
    ) -> Result<Before, DoesNotFit> {
        let fits = self.state.surely_fits(key, new.as_ref());
        let put = |state: &mut State, touched: &mut Touched| state.put_policy(key, new, touched);
        if fits {
            return self.carry_out(put);
        }
        self.attempt(put)
    }

    /// Does something to the state; after an error it is worth nothing.
    fn carry_out(
        &mut self,
        change: impl FnOnce(&mut State, &mut Touched) -> Result<(), DoesNotFit>,
    ) -> Result<Before, DoesNotFit> {
        let before = self.state.before();
        let mut touched = Touched::default();
        change(&mut self.state, &mut touched)?;
        self.state.refresh_host_labels(&mut touched)?;
        self.state.settle(&mut touched)?;
        Ok(before)
    }

    fn upsert_policy(&mut self, resource: &Resource) -> Applied {
        let key = &resource.key;
        let existing = self.state.policies.get(key).cloned();
        let owner = existing.as_ref().map(|stored| stored.resource.source);
        if let Err(applied) = self.check_owner(resource, owner) {
            return *applied;
        }
        let reading = read_policy(&resource.key, &resource.body.value());
        let Some(policy) = reading.value else {
            return self.refuse(resource, reading.errors, existing.is_some());
        };
        let same = existing
            .as_ref()
            .is_some_and(|stored| stored.policy == policy);
        let stored = StoredPolicy {
            resource: Arc::new(resource.clone()),
            policy,
            warnings: reading.warnings.clone(),
            selects_host: false,
            numbers: Vec::new(),
        };
        let before = match self.attempt_policy(key, Some(stored)) {
            Ok(before) => before,
            Err(excess) => {
                return self.refuse(resource, vec![too_many(&excess)], existing.is_some());
            }
        };
        self.forget_refusal(key, resource.source);
        if same {
            return Applied::Unchanged;
        }
        let selects = self
            .state
            .policies
            .get(key)
            .is_some_and(|new| new.selects_host);
        let affected = Affected {
            host: selects || existing.is_some_and(|old| old.selects_host),
        };
        let cause = RegenerationCause::PolicyAdded;
        self.changed(&before, affected, cause, reading.warnings)
    }

    fn upsert_object(&mut self, resource: &Resource) -> Applied {
        let key = &resource.key;
        let existing = self.state.objects.get(key).cloned();
        let owner = existing.as_ref().map(|stored| stored.resource.source);
        if let Err(applied) = self.check_owner(resource, owner) {
            return *applied;
        }
        let reading = read_object(key, &resource.body.value());
        let Some(object) = reading.value else {
            return self.refuse(resource, reading.errors, existing.is_some());
        };
        let stored = StoredObject {
            resource: Arc::new(resource.clone()),
            object,
        };
        let put = |state: &mut State, touched: &mut Touched| {
            state.put_object(key, Some(Arc::new(stored)), touched);
            Ok(())
        };
        match self.attempt(put) {
            Ok(before) => {
                self.forget_refusal(key, resource.source);
                self.changed_if_visible(&before, reading.warnings)
            }
            Err(excess) => self.refuse(resource, vec![too_many(&excess)], existing.is_some()),
        }
    }

    fn delete(&mut self, key: &ResourceKey, source: SourceName) -> Applied {
        let policy = self.state.policies.get(key).cloned();
        let object = self.state.objects.get(key).cloned();
        let resource = match (&policy, &object) {
            (Some(stored), _) => Arc::clone(&stored.resource),
            (None, Some(stored)) => Arc::clone(&stored.resource),
            (None, None) => {
                self.forget_refusal(key, source);
                return Applied::Unchanged;
            }
        };
        self.forget_refusal(key, source);
        // Another source's: deleting it here changes nothing.
        if resource.source != source {
            return Applied::Unchanged;
        }
        let taken = if key.kind.is_policy() {
            self.attempt_policy(key, None)
        } else {
            self.attempt(|state, touched| {
                state.put_object(key, None, touched);
                Ok(())
            })
        };
        let before = match taken {
            Ok(before) => before,
            // A rule with NotIn may select more without the labels of a node.
            Err(excess) => return self.refuse(&resource, vec![too_many(&excess)], true),
        };
        match policy {
            Some(stored) => {
                let affected = Affected {
                    host: stored.selects_host,
                };
                let cause = RegenerationCause::PolicyDeleted;
                self.changed(&before, affected, cause, Vec::new())
            }
            None => self.changed_if_visible(&before, Vec::new()),
        }
    }

    pub(super) fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Applied {
        let mut new = addresses.to_vec();
        new.sort();
        new.dedup();
        let put = |state: &mut State, touched: &mut Touched| {
            state.put_local_addresses(new, touched);
            Ok(())
        };
        let applied = self.attempt(put);
        self.node_changed(applied)
    }

    fn set_node_labels(&mut self, labels: &BTreeMap<String, String>) -> Applied {
        let labels = Arc::new(labels.clone());
        let applied = self.attempt(|state, _| {
            state.node_labels = labels;
            Ok(())
        });
        self.node_changed(applied)
    }

    fn node_changed(&mut self, applied: Result<Before, DoesNotFit>) -> Applied {
        match applied {
            Ok(before) => self.changed_if_visible(&before, Vec::new()),
            Err(excess) => {
                let errors = vec![too_many(&excess)];
                let key = ResourceKey {
                    kind: ResourceKind::Node,
                    namespace: None,
                    name: self.state.options.node_name.clone(),
                };
                self.refuse_key(key, SourceName::Local, Origin::default(), errors, true)
            }
        }
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
        Err(Box::new(self.keep_refusal(Refusal {
            key: resource.key.clone(),
            source: resource.source,
            origin: resource.origin.clone(),
            errors: vec![error],
            in_force: true,
            owner: Some(owner),
        })))
    }

    pub(super) fn refuse(
        &mut self,
        resource: &Resource,
        errors: Vec<FieldError>,
        in_force: bool,
    ) -> Applied {
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
        self.keep_refusal(Refusal {
            key,
            source,
            origin,
            errors,
            in_force,
            owner: None,
        })
    }

    fn keep_refusal(&mut self, refusal: Refusal) -> Applied {
        let key = (refusal.key.clone(), refusal.source);
        self.refused.insert(key, refusal.clone());
        Applied::Refused(refusal)
    }

    fn forget_refusal(&mut self, key: &ResourceKey, source: SourceName) {
        self.refused.remove(&(key.clone(), source));
    }

    /// Ends a change that may have been of no consequence on this node.
    fn changed_if_visible(&mut self, before: &Before, warnings: Vec<FieldError>) -> Applied {
        let labels = self.state.labels_changed(before);
        let affected = Affected {
            host: self.state.tables_changed(before),
        };
        if !labels && !affected.host && !self.state.identities_changed(before) {
            return Applied::Unchanged;
        }
        let cause = if labels {
            RegenerationCause::LabelsChanged
        } else {
            RegenerationCause::IdentitiesChanged
        };
        self.changed(before, affected, cause, warnings)
    }

    fn changed(
        &mut self,
        before: &Before,
        affected: Affected,
        cause: RegenerationCause,
        warnings: Vec<FieldError>,
    ) -> Applied {
        let mut causes = BTreeSet::from([cause]);
        if self.state.identities_changed(before) {
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
