//! Numbers that Cilium has given to labels: CiliumIdentity objects, and what
//! CiliumEndpoints say where such an object is missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::state::State;
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{Full, IdentityIndex, IdentityKey, IdentityNumber, LabelSet, LiveIdentity};
use crate::policy::objects::Object;
use crate::policy::selections::Touched;

/// Who has which number. No number means two things.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    given: OrdMap<u32, Arc<LabelSet>>,
    by_labels: OrdSet<(Arc<LabelSet>, u32)>,
    /// CiliumEndpoints by the number that they say.
    pub(super) announcing: OrdSet<(u32, ResourceKey)>,
}

impl Claims {
    /// The number that others use for these labels.
    pub(super) fn number_of(&self, key: &IdentityKey) -> Option<IdentityNumber> {
        let IdentityKey::Workload {
            labels,
            within: None,
        } = key
        else {
            return None;
        };
        self.by_labels
            .range((Arc::clone(labels), 0)..=(Arc::clone(labels), u32::MAX))
            .next()
            .map(|(_, number)| IdentityNumber(*number))
    }
    /// Whether others use the number.
    pub(super) fn is_taken(&self, number: IdentityNumber) -> bool {
        self.given.contains_key(&number.0)
    }
    /// Whether an identity has a number that others use for something else.
    fn is_of_another(&self, identity: &LiveIdentity) -> bool {
        let given = self.given.get(&identity.number.0);
        given.is_some_and(|given| match &identity.key {
            IdentityKey::Workload {
                labels,
                within: None,
            } => labels != given,
            IdentityKey::Reserved(_)
            | IdentityKey::Cidr(_)
            | IdentityKey::Node { .. }
            | IdentityKey::Workload { .. } => true,
        })
    }
    /// The endpoints that say a number.
    pub(super) fn endpoints(&self, number: u32) -> impl Iterator<Item = &ResourceKey> {
        let first = ResourceKey {
            kind: ResourceKind::CiliumClusterwideNetworkPolicy,
            namespace: None,
            name: String::new(),
        };
        self.announcing
            .range((number, first)..)
            .take_while(move |(found, _)| *found == number)
            .map(|(_, key)| key)
    }
}

/// The key of the CiliumIdentity with a number.
pub(super) fn identity_object(number: u32) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumIdentity,
        namespace: None,
        name: number.to_string(),
    }
}

/// Whether others may give the number to something that is not reserved.
fn can_be_given(number: u32) -> bool {
    (IdentityNumber::GIVEN_FIRST.0..IdentityNumber::GIVEN_END.0).contains(&number)
}

impl State {
    /// The labels that others mean by a number.
    fn labels_given(&self, number: u32) -> Option<LabelSet> {
        if !can_be_given(number) {
            return None;
        }
        let identity = self.objects.get(&identity_object(number));
        if let Some(Object::Identity(identity)) = identity.map(|stored| &stored.object) {
            return Some(identity.labels.clone());
        }
        let endpoint = self.objects.get(self.claims.endpoints(number).next()?)?;
        match &endpoint.object {
            Object::Endpoint(endpoint) => Some(endpoint.labels.clone()),
            Object::Node(_)
            | Object::Namespace(_)
            | Object::Pod(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Identity(_)
            | Object::CidrGroup(_) => None,
        }
    }

    /// Brings the numbers up to date; the identities that got another one.
    pub(super) fn settle_claims(
        &mut self,
        touched: &mut Touched,
    ) -> Result<BTreeSet<IdentityIndex>, Full> {
        let mut asked: BTreeSet<IdentityIndex> = BTreeSet::new();
        for number in std::mem::take(&mut touched.claims) {
            let new = self.labels_given(number).map(Arc::new);
            let old = self.claims.given.get(&number).cloned();
            if old == new {
                continue;
            }
            if let Some(old) = old {
                asked.extend(self.identities.workloads(&old));
                self.claims.given.remove(&number);
                self.claims.by_labels.remove(&(old, number));
            }
            if let Some(new) = new {
                asked.extend(self.identities.workloads(&new));
                self.claims.given.insert(number, Arc::clone(&new));
                self.claims.by_labels.insert((new, number));
            }
            let holder = self.identities.get_live(IdentityNumber(number));
            asked.extend(holder.map(|holder| holder.index));
        }
        let mut renumbered = BTreeSet::new();
        // First who must give a number up, then who gets it.
        let claims = &self.claims;
        for index in &asked {
            let identity = self.identities.live_at(*index);
            if identity.is_some_and(|identity| self.must_give_up(identity)) {
                self.identities
                    .renumber(*index, None, |number| claims.is_taken(number))?;
                renumbered.insert(*index);
            }
        }
        for index in &asked {
            let identity = self.identities.live_at(*index);
            let wanted = identity.and_then(|identity| claims.number_of(&identity.key));
            if wanted.is_some_and(|number| self.identities.get_live(number).is_none()) {
                self.identities.renumber(*index, wanted, |_| false)?;
                renumbered.insert(*index);
            }
        }
        Ok(renumbered)
    }

    /// Whether an identity has a number that is not its own: others use it for
    /// something else, or a cluster gives numbers and did not give it this one.
    fn must_give_up(&self, identity: &LiveIdentity) -> bool {
        self.claims.is_of_another(identity)
            || self.identities.is_from_the_cluster(identity)
                && self.claims.number_of(&identity.key) != Some(identity.number)
    }

    /// The same for all of a record: it may be of a time when no cluster gave
    /// numbers.
    pub(super) fn give_up_unclaimed(&mut self) {
        let wrong = self.identities.live().filter(|it| self.must_give_up(it));
        let wrong: Vec<IdentityIndex> = wrong.map(|identity| identity.index).collect();
        for index in wrong {
            let claims = &self.claims;
            let taken = |number| claims.is_taken(number);
            if self.identities.renumber(index, None, taken).is_ok() {
                self.identity_changes += 1;
                let members: Vec<_> = self.addresses.members_of(index).collect();
                for address in members {
                    self.settle_ipcache(address.into());
                }
            }
        }
    }
}
