//! What the repository holds: persistent, so that a change that does not fit
//! is undone by going back to the copy from before it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::StoredPolicy;
use super::addresses::Addresses;
use super::claims::Claims;
use super::effects::Effects;
use super::numbers::RuleNumbers;
use crate::events::ResourceKey;
use crate::identity::{IdentityTable, Ipcache, LabelSet, Reserved};
use crate::policy::PolicyOptions;
use crate::policy::selections::{Objects, Selector, SelectorCache, Slices, Things, Touched};

/// More than fits, with the numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DoesNotFit {
    pub(super) what: &'static str,
    pub(super) needed: usize,
    pub(super) max: usize,
}

/// All resources, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) options: Arc<PolicyOptions>,
    pub(super) policies: OrdMap<ResourceKey, Arc<StoredPolicy>>,
    pub(super) objects: Objects,
    /// EndpointSlices by service.
    pub(super) slices: Slices,
    /// Sorted, without duplicates.
    pub(super) local_addresses: Arc<[IpAddr]>,
    pub(super) node_labels: Arc<BTreeMap<String, String>>,
    pub(super) host_labels: Arc<LabelSet>,
    pub(super) numbers: RuleNumbers,
    pub(super) selectors: SelectorCache,
    pub(super) addresses: Addresses,
    pub(super) claims: Claims,
    pub(super) identities: IdentityTable,
    pub(super) ipcache: Ipcache,
    /// They rise with each change.
    pub(super) identity_changes: u64,
    pub(super) selection_changes: u64,
}

/// What of the state makes a revision, before a change.
pub(super) struct Before {
    host_labels: Arc<LabelSet>,
    ipcache: u64,
    identities: u64,
    selections: u64,
}

impl State {
    /// Nothing but what the options need; that is little and always fits.
    pub(super) fn new(
        options: Arc<PolicyOptions>,
        numbers: RuleNumbers,
        mut identities: IdentityTable,
    ) -> Self {
        let host_labels = Arc::new(Reserved::Host.labels());
        identities.set_host_labels(Arc::clone(&host_labels));
        let mut failsafe: Vec<IpNet> = options
            .failsafe
            .iter()
            .filter_map(|entry| entry.peer)
            .map(|prefix| prefix.trunc())
            .collect();
        failsafe.sort();
        failsafe.dedup();
        let mut state = Self {
            node_labels: Arc::new(options.node_labels.clone()),
            addresses: Addresses::new(&failsafe),
            policies: OrdMap::new(),
            objects: Objects::new(),
            slices: Slices::new(),
            local_addresses: Arc::default(),
            host_labels,
            numbers,
            selectors: SelectorCache::default(),
            claims: Claims::default(),
            identities,
            ipcache: Ipcache::default(),
            identity_changes: 0,
            selection_changes: 0,
            options,
        };
        let mut touched = Touched::default();
        let things = Things {
            objects: &state.objects,
            slices: &state.slices,
        };
        for prefix in failsafe {
            let selector = Selector::Address(prefix);
            state.selectors.acquire(&selector, things, &mut touched);
        }
        state
            .numbers
            .acquire(&Effects::of_failsafe(&state.options.failsafe).rules);
        for number in 0..Reserved::ALL.len() {
            touched
                .identities
                .extend(u32::try_from(number).map(crate::identity::IdentityIndex));
        }
        state.add_default_prefixes(&mut touched);
        // The list is bounded by the command line, the tables are empty.
        let _ = state.refresh_host_labels(&mut touched);
        let _ = state.settle(&mut touched);
        state
    }

    pub(super) fn before(&self) -> Before {
        Before {
            host_labels: Arc::clone(&self.host_labels),
            ipcache: self.ipcache.changes(),
            identities: self.identity_changes,
            selections: self.selection_changes,
        }
    }

    /// Whether the labels of this host are others.
    pub(super) fn labels_changed(&self, before: &Before) -> bool {
        before.host_labels != self.host_labels
    }
    /// Whether someone has another identity, or an identity other labels.
    pub(super) fn identities_changed(&self, before: &Before) -> bool {
        before.ipcache != self.ipcache.changes() || before.identities != self.identity_changes
    }
    /// Whether a table that is made of this may be another.
    pub(super) fn tables_changed(&self, before: &Before) -> bool {
        self.labels_changed(before)
            || before.ipcache != self.ipcache.changes()
            || before.selections != self.selection_changes
    }
}
