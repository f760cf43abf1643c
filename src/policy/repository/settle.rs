//! The end of a change: owners of addresses, identities, ipcache, selections.
//!
//! In one revision: an identity that is needed is made before an address gets
//! it, and ends when nobody needs it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::addresses::Owner;
use super::state::{DoesNotFit, State};
use crate::identity::{
    Full, IdentityIndex, IdentityKey, IdentityTable, IpcacheEntry, LabelSet, Reserved,
};
use crate::policy::selections::{Touched, taken};

/// A prefix that rules or their selectors have begun or ceased to list.
struct Named {
    prefix: IpNet,
    users: u32,
    identity: Option<IdentityIndex>,
}

impl Named {
    fn is_listed(&self) -> bool {
        self.users > 0
    }
}

impl State {
    /// The default routes: they always have an identity.
    pub(super) fn add_default_prefixes(&mut self, touched: &mut Touched) {
        for all in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            touched.prefixes.push((all, 0));
        }
    }

    /// Works off what a change has touched.
    pub(super) fn settle(&mut self, touched: &mut Touched) -> Result<(), DoesNotFit> {
        self.touch_nodes(touched);
        let owners = self.ask_owners(touched);
        let mut prefixes = self.count_prefixes(touched);
        let gone = self.take_addresses(&owners);
        self.remove_unused(gone, &owners, touched);
        let renumbered = self
            .settle_claims(touched)
            .map_err(|full| self.excess(full, 0))?;
        self.make_prefixes(&mut prefixes, touched)?;
        self.give_addresses(&owners, touched)?;
        for index in renumbered {
            self.identity_changes += 1;
            let members: Vec<IpAddr> = self.addresses.members_of(index).collect();
            for address in members {
                self.settle_ipcache(address.into());
            }
        }
        for named in prefixes {
            let itself = named.identity.filter(|_| named.is_listed());
            self.set_ipcache(named.prefix, itself);
        }
        for address in owners.into_keys() {
            self.settle_ipcache(address.into());
        }
        self.settle_selections(touched);
        Ok(())
    }

    /// Whether nodes are told apart decides which identities they have: all
    /// nodes are asked when the first such selector comes and the last one goes.
    fn touch_nodes(&mut self, touched: &mut Touched) {
        let apart = self.selectors.tells_nodes_apart();
        if apart != self.addresses.nodes_apart {
            self.addresses.nodes_apart = apart;
            touched.addresses.extend(self.addresses.of_nodes());
        }
    }

    /// The owners of touched addresses, where they are others than before.
    fn ask_owners(&self, touched: &mut Touched) -> BTreeMap<IpAddr, Option<Owner>> {
        let mut owners = BTreeMap::new();
        for address in std::mem::take(&mut touched.addresses) {
            let new = self.owner(address);
            let old = self.addresses.known.get(&address);
            if old.map(|owner| &**owner) == new.as_ref() {
                continue;
            }
            // An API server outside of the cluster is a prefix of its own.
            let was_outside = old.is_some_and(|owner| owner.key.is_none());
            let is_outside = new.as_ref().is_some_and(|owner| owner.key.is_none());
            if is_outside && !was_outside {
                touched.acquire(address.into());
            } else if was_outside && !is_outside {
                touched.release(address.into());
            }
            owners.insert(address, new);
        }
        owners
    }

    /// Counts users of prefixes; the prefixes that may have come or gone.
    fn count_prefixes(&mut self, touched: &mut Touched) -> Vec<Named> {
        let mut changed = Vec::new();
        for (prefix, more) in touched.take_prefixes() {
            let known = self.identities.of_prefix(&prefix);
            let old = known.map_or(0, |known| known.users);
            let users = u32::try_from(i64::from(old) + more).unwrap_or(0);
            if old != users && known.is_some() {
                self.identities.set_users(&prefix, users);
            }
            if (old == 0) != (users == 0) || prefix.prefix_len() == 0 {
                changed.push(Named {
                    prefix,
                    users,
                    identity: known.map(|known| known.index),
                });
            }
        }
        for named in &mut changed {
            let prefix = named.prefix;
            if prefix.prefix_len() == 0 {
                self.identities.set_all_listed(prefix, named.is_listed());
            } else if !named.is_listed()
                && let Some(index) = named.identity.take()
            {
                self.end(index, touched);
            }
            touched.relabelled.push(prefix);
        }
        changed
    }

    fn end(&mut self, index: IdentityIndex, touched: &mut Touched) {
        self.identities.remove(index);
        self.identity_changes += 1;
        touched.identities.push(index);
    }

    /// Takes touched addresses from their old owners; the identities that may
    /// have no address left.
    fn take_addresses(
        &mut self,
        owners: &BTreeMap<IpAddr, Option<Owner>>,
    ) -> BTreeSet<IdentityIndex> {
        let mut left = BTreeSet::new();
        for address in owners.keys() {
            let old = self.addresses.known.get(address);
            let key = old.and_then(|owner| owner.key.as_ref());
            if let Some(index) = key.and_then(|key| self.identities.index_of(key)) {
                self.addresses.members.remove(&(index, *address));
                left.insert(index);
            }
        }
        left
    }

    fn remove_unused(
        &mut self,
        asked: BTreeSet<IdentityIndex>,
        owners: &BTreeMap<IpAddr, Option<Owner>>,
        touched: &mut Touched,
    ) {
        let wanted: BTreeSet<&IdentityKey> = owners
            .values()
            .flatten()
            .filter_map(|owner| owner.key.as_ref())
            .collect();
        for index in asked {
            let Some(identity) = self.identities.live_at(index) else {
                continue;
            };
            let stays = match &identity.key {
                IdentityKey::Reserved(_) | IdentityKey::Cidr(_) => true,
                key @ (IdentityKey::Node { .. } | IdentityKey::Workload { .. }) => {
                    wanted.contains(key) || self.addresses.has_members(index)
                }
            };
            if !stays {
                self.end(index, touched);
            }
        }
    }

    fn make_prefixes(
        &mut self,
        changed: &mut [Named],
        touched: &mut Touched,
    ) -> Result<(), DoesNotFit> {
        let is_new = |named: &&Named| named.is_listed() && named.identity.is_none();
        let come = changed.iter().filter(is_new).count();
        let needed = self.identities.cidr_len() + come;
        let max = IdentityTable::MAX - (self.identities.len() - self.identities.cidr_len());
        if needed > max {
            return Err(DoesNotFit {
                what: "CIDR prefixes",
                needed,
                max,
            });
        }
        for named in changed.iter_mut().filter(|named| named.is_listed()) {
            let index = match named.identity {
                Some(index) => index,
                None => self
                    .identities
                    .allocate_prefix(named.prefix, named.users)
                    .map_err(|full| self.excess(full, 1))?,
            };
            named.identity = Some(index);
            self.identity_changes += 1;
            touched.identities.push(index);
        }
        Ok(())
    }

    fn give_addresses(
        &mut self,
        owners: &BTreeMap<IpAddr, Option<Owner>>,
        touched: &mut Touched,
    ) -> Result<(), DoesNotFit> {
        for (address, owner) in owners {
            let key = owner.as_ref().and_then(|owner| owner.key.as_ref());
            if let Some(key) = key {
                let is_new = self.identities.index_of(key).is_none();
                let claims = &self.claims;
                let index = self
                    .identities
                    .allocate(key, claims.number_of(key), |number| claims.is_taken(number))
                    .map_err(|full| self.excess(full, 1))?;
                if is_new || !self.addresses.has_members(index) {
                    self.identity_changes += u64::from(is_new);
                    touched.identities.push(index);
                }
                match key {
                    IdentityKey::Node { .. } | IdentityKey::Workload { .. } => {
                        self.addresses.members.insert((index, *address));
                    }
                    IdentityKey::Reserved(_) | IdentityKey::Cidr(_) => {}
                }
            }
            self.replace_owner(*address, owner.clone(), touched);
        }
        Ok(())
    }

    fn replace_owner(&mut self, address: IpAddr, new: Option<Owner>, touched: &mut Touched) {
        let outside = new.as_ref().is_some_and(|owner| owner.key.is_none());
        self.identities.set_apiserver(address, outside);
        let old = match new {
            Some(new) => {
                self.count_ports(&new, true, touched);
                self.addresses.known.insert(address, Arc::new(new))
            }
            None => self.addresses.known.remove(&address),
        };
        if let Some(old) = &old {
            self.count_ports(old, false, touched);
        }
        if outside || old.is_some_and(|old| old.key.is_none()) {
            let of_prefix = self.identities.index_of(&IdentityKey::Cidr(address.into()));
            touched.identities.extend(of_prefix);
            self.identity_changes += 1;
        }
    }

    fn count_ports(&mut self, owner: &Owner, is_new: bool, touched: &mut Touched) {
        let Some(labels) = owner.key.as_ref().and_then(IdentityKey::labels_of_pods) else {
            return;
        };
        for port in &owner.ports {
            let key = (Arc::clone(&labels), port.clone());
            let old = self.addresses.ports.get(&key).copied().unwrap_or(0);
            let new = if is_new {
                old + 1
            } else {
                old.saturating_sub(1)
            };
            if new == 0 {
                self.addresses.ports.remove(&key);
            } else {
                self.addresses.ports.insert(key, new);
            }
            if (old == 0) != (new == 0) {
                touched.ports.insert(Arc::clone(&labels));
            }
        }
    }

    /// What does not fit, with the numbers.
    fn excess(&self, full: Full, more: usize) -> DoesNotFit {
        let (what, max) = full.words();
        let live = match full {
            Full::Indexes => self.identities.len(),
            Full::WorkloadNumbers => max,
        };
        DoesNotFit {
            what,
            needed: live + more,
            max,
        }
    }

    /// Makes the entry of a prefix what its owner says; else the prefix itself
    /// is somebody if it is listed.
    pub(super) fn settle_ipcache(&mut self, prefix: IpNet) {
        let known = self.identities.of_prefix(&prefix);
        let listed = known.filter(|known| known.users > 0);
        self.set_ipcache(prefix, listed.map(|known| known.index));
    }

    /// The same; `itself`: whom the prefix names, if it is listed.
    fn set_ipcache(&mut self, prefix: IpNet, itself: Option<IdentityIndex>) {
        let single = prefix.prefix_len() == prefix.max_prefix_len();
        let owner = single
            .then(|| self.addresses.known.get(&prefix.addr()))
            .flatten()
            .and_then(|owner| owner.key.as_ref());
        let index = match owner {
            Some(key) => self.identities.index_of(key),
            None if prefix.prefix_len() == 0 => {
                itself.or(Some(IdentityIndex(Reserved::World.number().0)))
            }
            None => itself,
        };
        let identity = index.and_then(|index| self.identities.live_at(index));
        self.ipcache.set(prefix, identity.map(IpcacheEntry::from));
    }

    fn settle_selections(&mut self, touched: &mut Touched) {
        for (name, prefix, lists) in std::mem::take(&mut touched.groups) {
            self.identities.set_group(prefix, &name, lists);
            self.identity_changes += 1;
            touched.relabelled.push(prefix);
        }
        self.selectors
            .add_scopes(&self.identities, &self.options, touched);
        for index in taken(&mut touched.identities) {
            let changed = self
                .selectors
                .select(index, &self.identities, &self.options);
            match self.identities.live_at(index) {
                Some(identity) => touched.ports.extend(identity.key.labels_of_pods()),
                None => {
                    self.selectors.selections.named_ports.remove(&index);
                }
            }
            self.selection_changes += u64::from(changed);
        }
        for labels in std::mem::take(&mut touched.ports) {
            self.settle_ports(&labels);
        }
    }

    /// The named ports of all pods with these labels.
    fn settle_ports(&mut self, labels: &Arc<LabelSet>) {
        let ports: Arc<[_]> = self.addresses.ports_of(labels).cloned().collect();
        let plain = IdentityKey::workload(Arc::clone(labels), None);
        let reserved = matches!(plain, IdentityKey::Reserved(_))
            .then(|| self.identities.index_of(&plain))
            .flatten();
        let indexes = self.identities.workloads(labels).chain(reserved);
        let indexes: Vec<IdentityIndex> = indexes.collect();
        for index in indexes {
            let named = &mut self.selectors.selections.named_ports;
            let old = named.get(&index);
            if old.map_or(&[][..], |old| &**old) == &*ports {
                continue;
            }
            if ports.is_empty() {
                named.remove(&index);
            } else {
                named.insert(index, Arc::clone(&ports));
            }
            self.selection_changes += 1;
        }
    }

    /// Ends identities of a record that nobody needs any more.
    pub(super) fn drop_unused(&mut self) {
        let mut touched = Touched::default();
        let live: Vec<(IdentityIndex, IdentityKey)> = self
            .identities
            .live()
            .map(|identity| (identity.index, identity.key.clone()))
            .collect();
        for (index, key) in live {
            let used = match &key {
                IdentityKey::Reserved(_) => true,
                IdentityKey::Cidr(prefix) => {
                    let known = self.identities.of_prefix(prefix);
                    prefix.prefix_len() == 0 || known.is_some_and(|known| known.users > 0)
                }
                IdentityKey::Node { .. } | IdentityKey::Workload { .. } => {
                    self.addresses.has_members(index)
                }
            };
            if !used {
                self.end(index, &mut touched);
            }
        }
        self.settle_selections(&mut touched);
    }
}
