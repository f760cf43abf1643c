//! What was told to the agent, in the order of its journal, and what must follow
//! from it: read plainly, without the agent's code.
//!
//! After a crash the ledger ends where the journal on the disk does; what was
//! acknowledged must still be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use palisade::events::{Body, RepositoryChange, ResourceKey, SourceName};
use palisade::policy::{EnforcementMode, PolicyOptions, PolicySnapshot};
use palisade::queues::JournalEvent;
use palisade_state::Store;

use crate::objects;

/// The events of all lives.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The event with sequence n stands at n - 1.
    events: Vec<JournalEvent>,
    /// The newest event that an answer was given for.
    acknowledged: u64,
    /// Up to here the journal was compared.
    compared: u64,
    /// What each source told and did not take back.
    known: BTreeSet<(SourceName, ResourceKey)>,
}

impl Ledger {
    pub(crate) fn last(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(sequence);
    }

    /// Adds an event that the agent gave that place in its journal.
    pub(crate) fn add(&mut self, sequence: u64, event: JournalEvent) {
        assert_eq!(sequence, self.last() + 1, "its place in the journal");
        self.push(event);
    }

    pub(crate) fn push(&mut self, event: JournalEvent) {
        if let JournalEvent::Change { change, .. } = &event {
            note(&mut self.known, change);
        }
        self.events.push(event);
    }

    /// What a source told and does not hold.
    pub(crate) fn vanished(
        &self,
        source: SourceName,
        holds: &BTreeSet<ResourceKey>,
    ) -> Vec<ResourceKey> {
        let told = self.known.iter().filter(|(owner, _)| *owner == source);
        told.filter(|(_, key)| !holds.contains(key))
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// Sources that told something.
    pub(crate) fn sources(&self) -> BTreeSet<SourceName> {
        self.known.iter().map(|(source, _)| *source).collect()
    }

    /// After a crash: the journal holds at least what was acknowledged, as it
    /// was told, and perhaps more.
    pub(crate) fn compare_with(&mut self, store: &Store) {
        let last = store.appended();
        assert!(
            last >= self.acknowledged,
            "event {} was acknowledged, the journal ends at {last}",
            self.acknowledged
        );
        let base = store.snapshots().first().map_or(0, |kept| kept.sequence);
        let after = self.compared.max(base);
        let replay = store.journal_after(after).expect("it reads");
        assert_eq!(replay.problem, None);
        let found: Vec<(u64, JournalEvent)> = replay.events;
        assert_eq!(
            after + found.len() as u64,
            last,
            "no event of the journal is missing"
        );
        for (sequence, event) in &found {
            if *sequence > self.acknowledged {
                break;
            }
            let told = &self.events[usize::try_from(*sequence).expect("fits") - 1];
            assert!(same(told, event), "{sequence}: {told:?} became {event:?}");
        }
        self.events.truncate(usize::try_from(after).expect("fits"));
        self.events
            .extend(found.into_iter().map(|(_, event)| event));
        assert_eq!(self.last(), last);
        self.compared = self.acknowledged;
        self.known.clear();
        for event in &self.events {
            if let JournalEvent::Change { change, .. } = event {
                note(&mut self.known, change);
            }
        }
    }

    /// What follows from all events up to one.
    pub(crate) fn state(&self, last: u64, first: &PolicyOptions) -> Plain {
        let mut plain = Plain::new(first);
        let last = usize::try_from(last).expect("fits");
        for event in &self.events[..last] {
            plain.take(event);
        }
        plain
    }

    /// The events after one, up to another.
    pub(crate) fn between(&self, after: u64, last: u64) -> &[JournalEvent] {
        let place = |sequence: u64| usize::try_from(sequence).expect("fits");
        &self.events[place(after)..place(last)]
    }
}

fn note(known: &mut BTreeSet<(SourceName, ResourceKey)>, change: &RepositoryChange) {
    match change {
        RepositoryChange::Upsert(resource) => {
            known.insert((resource.source, resource.key.clone()));
        }
        RepositoryChange::Delete { key, source } => {
            known.remove(&(*source, key.clone()));
        }
        RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => {}
    }
}

/// Whether two events say the same, whenever they were accepted.
fn same(one: &JournalEvent, other: &JournalEvent) -> bool {
    match (one, other) {
        (JournalEvent::Change { change, .. }, JournalEvent::Change { change: found, .. }) => {
            change == found
        }
        (JournalEvent::InSync { source, .. }, JournalEvent::InSync { source: found, .. }) => {
            source == found
        }
        (
            JournalEvent::Started {
                sources,
                options,
                options_wait,
                ..
            },
            JournalEvent::Started {
                sources: found,
                options: with,
                options_wait: wait,
                ..
            },
        ) => sources == found && options == with && options_wait == wait,
        (
            JournalEvent::Audit { endpoint, .. },
            JournalEvent::Audit {
                endpoint: found, ..
            },
        ) => endpoint == found,
        _ => false,
    }
}

/// What must be in force: the resources by the words of the contract. The first
/// source to own a key keeps it, an invalid version changes nothing, and nothing
/// is deleted while a source has not told everything, but what an operator deletes
/// by name.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plain {
    resources: BTreeMap<ResourceKey, (SourceName, Body)>,
    local: Vec<IpAddr>,
    options: PolicyOptions,
    /// Options that count when every source has told everything.
    next_options: Option<PolicyOptions>,
    waiting: BTreeSet<SourceName>,
    /// Those that have told something after a start and not everything, and those
    /// that stricter options wait for.
    half_told: BTreeSet<SourceName>,
    /// All have once told everything, or an operator brought something before.
    was_whole: bool,
    has_import: bool,
    deferred: Vec<RepositoryChange>,
}

impl Plain {
    fn new(options: &PolicyOptions) -> Self {
        Self {
            resources: BTreeMap::new(),
            local: Vec::new(),
            options: options.clone(),
            next_options: None,
            waiting: BTreeSet::new(),
            half_told: BTreeSet::new(),
            was_whole: false,
            has_import: false,
            deferred: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, event: &JournalEvent) {
        match event {
            JournalEvent::Started {
                sources,
                options,
                options_wait,
                ..
            } => {
                self.waiting.clone_from(sources);
                self.next_options = options.as_deref().cloned();
                if !options_wait || self.waiting.is_empty() {
                    self.take_options();
                }
                self.open();
            }
            JournalEvent::InSync { source, .. } => {
                self.half_told.remove(source);
                if self.waiting.remove(source) {
                    self.open();
                }
            }
            JournalEvent::Change { change, .. } => {
                let source = change.source();
                if source != SourceName::Local && self.waiting.contains(&source) {
                    self.half_told.insert(source);
                }
                let is_upsert = matches!(change, RepositoryChange::Upsert(_));
                self.has_import |= is_upsert && source == SourceName::Api;
                self.change(change);
            }
            // Verdicts depend on it, the repository does not.
            JournalEvent::Audit { .. } => {}
        }
        self.was_whole |= self.has_import && self.half_told.is_empty();
    }

    /// Options that deny by default need the policies that let anybody in.
    fn take_options(&mut self) {
        let always = EnforcementMode::Always;
        if let Some(next) = self.next_options.take() {
            let is_new = self.options.enforcement != always || !self.was_whole;
            if next.enforcement == always && is_new {
                self.half_told.extend(self.waiting.iter());
            }
            self.options = next;
        }
    }

    /// Whether what is in force may be enforced now.
    pub(crate) fn may_be_enforced(&self) -> bool {
        self.waiting.is_empty() || (self.was_whole && self.half_told.is_empty())
    }

    fn open(&mut self) {
        if self.waiting.is_empty() {
            self.take_options();
            self.was_whole = true;
            self.half_told.clear();
            for change in std::mem::take(&mut self.deferred) {
                self.apply(&change);
            }
        }
    }

    fn change(&mut self, change: &RepositoryChange) {
        if self.waiting.is_empty() {
            return self.apply(change);
        }
        if let RepositoryChange::Upsert(resource) = change {
            // The source has it again; another source's deletion comes first.
            self.deferred.retain(|earlier| {
                earlier.key() != change.key() || earlier.source() != resource.source
            });
            if !self.deferred.iter().any(|one| one.key() == change.key()) {
                return self.apply(change);
            }
        }
        let is_behind = self.deferred.iter().any(|one| one.key() == change.key());
        match change {
            RepositoryChange::Delete { source, .. } if *source == SourceName::Api && !is_behind => {
                self.apply(change);
            }
            RepositoryChange::Upsert(_) | RepositoryChange::Delete { .. } => {
                self.deferred.push(change.clone());
            }
            RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => {
                self.apply(change);
            }
        }
    }

    fn apply(&mut self, change: &RepositoryChange) {
        match change {
            RepositoryChange::Upsert(resource) => {
                let owner = self.resources.get(&resource.key).map(|(owner, _)| *owner);
                let may = owner.is_none_or(|owner| owner == resource.source);
                if may && objects::is_valid(&resource.body.value()) {
                    let version = (resource.source, resource.body.clone());
                    self.resources.insert(resource.key.clone(), version);
                }
            }
            RepositoryChange::Delete { key, source } => {
                let owner = self.resources.get(key).map(|(owner, _)| *owner);
                if owner == Some(*source) {
                    self.resources.remove(key);
                }
            }
            RepositoryChange::LocalAddresses(addresses) => {
                self.local.clone_from(addresses);
                self.local.sort();
                self.local.dedup();
            }
            RepositoryChange::NodeLabels(_) => {}
        }
    }

    /// Every key in force, with the source that owns it.
    pub(crate) fn resources(&self) -> &BTreeMap<ResourceKey, (SourceName, Body)> {
        &self.resources
    }

    pub(crate) fn options(&self) -> &PolicyOptions {
        &self.options
    }

    pub(crate) fn local_addresses(&self) -> &[IpAddr] {
        &self.local
    }

    /// Holds what the agent published against it.
    pub(crate) fn compare_with(&self, snapshot: &PolicySnapshot) {
        assert_eq!(*snapshot.options, self.options);
        assert_eq!(*snapshot.local_addresses, *self.local);
        let policies = snapshot.policies.iter();
        let objects = snapshot.objects.iter();
        let found: BTreeMap<&ResourceKey, (SourceName, &Body)> = policies
            .map(|(key, stored)| (key, &stored.resource))
            .chain(objects.map(|(key, stored)| (key, &stored.resource)))
            .map(|(key, resource)| (key, (resource.source, &resource.body)))
            .collect();
        for (key, (source, body)) in &self.resources {
            let in_force = found.get(key);
            assert_eq!(in_force, Some(&(*source, body)), "{key}");
        }
        for key in found.keys() {
            assert!(self.resources.contains_key(*key), "{key} is in force");
        }
    }
}
