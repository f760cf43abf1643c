//! The repository with the order of its changes: pure, so that replaying the
//! journal does exactly what was done when it was written.
//!
//! Owner: the worker of the RepositoryChangeQueue. Invariant: while a source
//! has not said `in sync`, nothing is deleted but what an operator deletes by
//! name, and options of this start wait where the kernel enforces; in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use palisade_state::{AuditFlag, AuditRecord, EndpointRecord, StoreError};
use serde::{Deserialize, Serialize};

use super::known::Known;
use crate::endpoint::HOST_ENDPOINT;
use crate::events::{EndpointId, RepositoryChange, Revision, Sequence, SourceName};
use crate::identity::LabelSet;
use crate::policy::{
    Applied, EnforcementMode, PolicyOptions, Repository, RepositoryImportError, RepositoryRecord,
};

/// One event of the journal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum JournalEvent {
    /// The agent started; these sources must say `in sync` again.
    Started {
        sources: BTreeSet<SourceName>,
        /// What it was configured with; None in journals of older agents.
        #[serde(default)]
        options: Option<Box<PolicyOptions>>,
        /// The kernel enforces: the options count when every source has spoken,
        /// since policies that go with them may be among what these tell.
        #[serde(default)]
        options_wait: bool,
        /// The audit options that it found; None in journals of older agents.
        #[serde(default)]
        audit: Option<AuditState>,
        /// Its endpoints.
        #[serde(default)]
        endpoints: Vec<EndpointRecord>,
        #[serde(default)]
        accepted_ms: u64,
    },
    /// A change was accepted.
    Change {
        accepted_ms: u64,
        change: RepositoryChange,
    },
    /// A source has told everything it holds.
    InSync {
        source: SourceName,
        #[serde(default)]
        accepted_ms: u64,
    },
    /// Audit options were set: all of them, as they are from here on.
    Audit {
        audit: AuditState,
        /// Whose option it was; None: the agent's.
        endpoint: Option<EndpointId>,
        accepted_ms: u64,
    },
}

/// The audit options: the agent's flag, and what was set at run time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AuditState {
    /// `--policy-audit-mode`.
    pub flag: bool,
    pub set: AuditRecord,
}

impl AuditState {
    /// What counts for the agent.
    #[must_use]
    pub fn agent(&self) -> bool {
        match self.set.agent {
            AuditFlag::Inherited => self.flag,
            AuditFlag::Enabled => true,
            AuditFlag::Disabled => false,
        }
    }

    /// What counts for an endpoint.
    #[must_use]
    pub fn effective(&self, id: EndpointId) -> bool {
        match self.set.endpoints.get(&id.0) {
            None | Some(AuditFlag::Inherited) => self.agent(),
            Some(AuditFlag::Enabled) => true,
            Some(AuditFlag::Disabled) => false,
        }
    }

    fn words(&self, endpoint: Option<EndpointId>) -> String {
        let set = match endpoint {
            None => self.set.agent,
            Some(id) => self.set.endpoints.get(&id.0).copied().unwrap_or_default(),
        };
        let words = match (set, endpoint) {
            (AuditFlag::Enabled, _) => "PolicyAuditMode enabled",
            (AuditFlag::Disabled, _) => "PolicyAuditMode disabled",
            (AuditFlag::Inherited, Some(_)) => "PolicyAuditMode follows the agent",
            (AuditFlag::Inherited, None) if self.flag => "started with --policy-audit-mode",
            (AuditFlag::Inherited, None) => "started without --policy-audit-mode",
        };
        words.to_owned()
    }
}

/// What an agent knows beside its repository.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Circumstances {
    pub audit: AuditState,
    pub endpoints: BTreeMap<u16, EndpointRecord>,
}

impl JournalEvent {
    /// Milliseconds since 1970; 0 if an older agent did not say.
    #[must_use]
    pub fn accepted_ms(&self) -> u64 {
        match self {
            Self::Started { accepted_ms, .. }
            | Self::Change { accepted_ms, .. }
            | Self::InSync { accepted_ms, .. }
            | Self::Audit { accepted_ms, .. } => *accepted_ms,
        }
    }
}

/// What an event did.
#[derive(Clone, PartialEq, Debug)]
pub enum Done {
    /// `policy_add` or `policy_delete` ran.
    Applied {
        sequence: Sequence,
        change: Box<RepositoryChange>,
        applied: Box<Applied>,
    },
    /// The change waits until every source is in sync.
    Deferred { sequence: Sequence },
    /// The last source is in sync: regeneration and deletion may begin.
    GateOpened,
    /// The agent was configured differently than before: a new revision.
    OptionsChanged { revision: Revision },
    /// An audit option is set; None: the agent's.
    AuditSet {
        endpoint: Option<EndpointId>,
        words: String,
    },
    /// An endpoint began.
    EndpointStarted { id: EndpointId, is_new: bool },
}

/// The desk as the journal's snapshot holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeskRecord {
    pub repository: RepositoryRecord,
    pub waiting: BTreeSet<SourceName>,
    pub deferred: Vec<(Sequence, RepositoryChange)>,
    pub was_open: bool,
    /// None told by older agents.
    #[serde(default)]
    pub half_told: BTreeSet<SourceName>,
    pub known: Known,
    /// What the agent was configured with; None in snapshots of older agents.
    #[serde(default)]
    pub options: Option<Box<PolicyOptions>>,
    /// Options that wait for the sources.
    #[serde(default)]
    pub next_options: Option<Box<PolicyOptions>>,
    /// An operator imported something while no source had ever told all.
    #[serde(default)]
    pub has_import: bool,
    #[serde(default)]
    pub circumstances: Circumstances,
}

/// Why a desk could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("snapshot: {0}")]
    Store(#[from] StoreError),
    #[error("snapshot: {0}")]
    Parse(#[from] serde_json::Error),
    #[error(transparent)]
    Import(#[from] RepositoryImportError),
}

/// The repository and the changes that wait.
#[derive(Debug)]
pub struct Desk {
    pub repository: Repository,
    waiting: BTreeSet<SourceName>,
    deferred: Vec<(Sequence, RepositoryChange)>,
    was_open: bool,
    /// Sources that told changes after a start and not yet that these are all, or
    /// that stricter options wait for.
    half_told: BTreeSet<SourceName>,
    known: Known,
    options: PolicyOptions,
    next_options: Option<Box<PolicyOptions>>,
    has_import: bool,
    circumstances: Circumstances,
    /// The labels that the host's endpoint in `circumstances` has.
    host_labels: Option<Arc<LabelSet>>,
}

impl Desk {
    /// A desk of an empty repository.
    #[must_use]
    pub fn new(options: PolicyOptions) -> Self {
        Self {
            repository: Repository::new(options.clone()),
            waiting: BTreeSet::new(),
            deferred: Vec::new(),
            was_open: false,
            half_told: BTreeSet::new(),
            known: Known::default(),
            options,
            next_options: None,
            has_import: false,
            circumstances: Circumstances::default(),
            host_labels: None,
        }
    }

    /// Counts revisions on from that of the kernel, when the store has lost
    /// what led to it, so that revisions never go back.
    pub fn continue_from(&mut self, revision: Revision) {
        let mut record = self.repository.export();
        record.revision = record.revision.max(revision);
        if let Ok(repository) = Repository::import(record, self.options.clone()) {
            self.repository = repository;
        }
    }

    /// The desk of a record, with the options that it was saved with; with
    /// `options` if it does not tell.
    pub fn import(record: DeskRecord, options: &PolicyOptions) -> Result<Self, DeskError> {
        let options = record
            .options
            .map_or_else(|| options.clone(), |options| *options);
        Ok(Self {
            repository: Repository::import(record.repository, options.clone())?,
            options,
            waiting: record.waiting,
            deferred: record.deferred,
            was_open: record.was_open,
            half_told: record.half_told,
            known: record.known,
            next_options: record.next_options,
            has_import: record.has_import,
            circumstances: record.circumstances,
            host_labels: None,
        })
    }

    /// The desk as a record.
    #[must_use]
    pub fn export(&self) -> DeskRecord {
        DeskRecord {
            repository: self.repository.export(),
            waiting: self.waiting.clone(),
            deferred: self.deferred.clone(),
            was_open: self.was_open,
            half_told: self.half_told.clone(),
            known: self.known.clone(),
            options: Some(Box::new(self.options.clone())),
            next_options: self.next_options.clone(),
            has_import: self.has_import,
            circumstances: self.circumstances.clone(),
        }
    }

    /// Whether regeneration and deletion may happen.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether every source was ever in sync, or an operator brought a policy
    /// before any: then the repository is a whole, which may be enforced before
    /// they speak again.
    #[must_use]
    pub fn was_open(&self) -> bool {
        self.was_open
    }

    /// Whether no source was cut off while it told what it holds: what is here
    /// was once a whole, and came by single changes since.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.was_open && self.half_told.is_empty()
    }

    /// What each source told last.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Audit options and endpoints.
    #[must_use]
    pub fn circumstances(&self) -> &Circumstances {
        &self.circumstances
    }

    /// Whether options of this start wait for the sources.
    #[must_use]
    pub fn has_next_options(&self) -> bool {
        self.next_options.is_some()
    }

    /// Sources that have not said `in sync`.
    #[must_use]
    pub fn waiting(&self) -> &BTreeSet<SourceName> {
        &self.waiting
    }

    /// Takes one event of the journal.
    pub fn take(&mut self, sequence: Sequence, event: JournalEvent) -> Vec<Done> {
        self.take_seeing(sequence, event, &mut |_| {})
    }

    /// Takes one event of the journal and shows the repository after each change
    /// in it, since one event may make several revisions.
    pub fn take_seeing(
        &mut self,
        sequence: Sequence,
        event: JournalEvent,
        see: &mut dyn FnMut(&Repository),
    ) -> Vec<Done> {
        let done = self.act_on(sequence, event, see);
        // Who imports while no source answers wants that enforced now.
        self.was_open |= self.has_import
            && self.half_told.is_empty()
            && !self.waiting.contains(&SourceName::Local);
        done
    }

    fn act_on(
        &mut self,
        sequence: Sequence,
        event: JournalEvent,
        see: &mut dyn FnMut(&Repository),
    ) -> Vec<Done> {
        match event {
            JournalEvent::Started {
                sources,
                options,
                options_wait,
                audit,
                endpoints,
                ..
            } => {
                self.waiting = sources;
                self.next_options = None;
                let changed = options.and_then(|next| self.find_options(next, options_wait, see));
                let mut done = Vec::from_iter(changed);
                done.extend(audit.and_then(|audit| self.find_audit(audit)));
                done.extend(endpoints.into_iter().map(|one| self.begin_endpoint(one)));
                done.extend(self.open_if_in_sync(see));
                done
            }
            JournalEvent::InSync { source, .. } => {
                self.half_told.remove(&source);
                if self.waiting.remove(&source) {
                    self.open_if_in_sync(see)
                } else {
                    Vec::new()
                }
            }
            JournalEvent::Change { change, .. } => {
                let source = change.source();
                // The facts of this host are true one by one.
                if source != SourceName::Local && self.waiting.contains(&source) {
                    self.half_told.insert(source);
                }
                self.known.note(&change);
                self.has_import |= is_import(&change);
                vec![self.change(sequence, change, see)]
            }
            JournalEvent::Audit {
                audit, endpoint, ..
            } => {
                let words = audit.words(endpoint);
                self.circumstances.audit = audit;
                vec![Done::AuditSet { endpoint, words }]
            }
        }
    }

    /// Options of a start count at once, or when the sources have spoken.
    fn find_options(
        &mut self,
        mut next: Box<PolicyOptions>,
        wait: bool,
        see: &mut dyn FnMut(&Repository),
    ) -> Option<Done> {
        // Labels of the node and the audit mode come by other ways.
        next.node_labels.clone_from(&self.options.node_labels);
        next.audit = self.options.audit;
        let is_other = *next != self.options;
        if wait && !self.waiting.is_empty() {
            self.next_options = is_other.then_some(next);
            return None;
        }
        if self.would_seal(&next) {
            // What lets anybody in may be what they have yet to tell.
            let others = self.waiting.iter().filter(|it| **it != SourceName::Local);
            self.half_told.extend(others);
        }
        is_other.then(|| self.configure(*next, see)).flatten()
    }

    /// Other options give other verdicts, so they are a revision of their own.
    fn configure(
        &mut self,
        options: PolicyOptions,
        see: &mut dyn FnMut(&Repository),
    ) -> Option<Done> {
        let mut record = self.repository.export();
        record.revision = record.revision.next();
        let revision = record.revision;
        // A record of this version is always read.
        self.repository = Repository::import(record, options.clone()).ok()?;
        self.options = options;
        see(&self.repository);
        self.follow_host();
        Some(Done::OptionsChanged { revision })
    }

    /// Whether these options deny by default where nothing did so before.
    fn would_seal(&self, next: &PolicyOptions) -> bool {
        let always = EnforcementMode::Always;
        let is_new = self.options.enforcement != always || !self.was_open;
        next.enforcement == always && is_new
    }

    fn open_if_in_sync(&mut self, see: &mut dyn FnMut(&Repository)) -> Vec<Done> {
        if !self.waiting.is_empty() {
            return Vec::new();
        }
        self.was_open = true;
        // Of a source that is configured no more, too.
        self.half_told.clear();
        let next_options = self.next_options.take();
        let changed = next_options.and_then(|next| self.configure(*next, see));
        let mut done = Vec::from_iter(changed);
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        done.extend(deferred.map(|(sequence, change)| self.apply(sequence, change, see)));
        done.push(Done::GateOpened);
        done
    }

    fn change(
        &mut self,
        sequence: Sequence,
        change: RepositoryChange,
        see: &mut dyn FnMut(&Repository),
    ) -> Done {
        if self.is_open() {
            return self.apply(sequence, change, see);
        }
        let source = change.source();
        let same_key = |(_, waiting): &(Sequence, RepositoryChange)| {
            change.key().is_some() && waiting.key() == change.key()
        };
        match &change {
            // What an operator deletes by name, nobody else has yet to tell.
            RepositoryChange::Delete { .. }
                if source == SourceName::Api && !self.deferred.iter().any(same_key) =>
            {
                self.apply(sequence, change, see)
            }
            RepositoryChange::Delete { .. } => {
                self.deferred.push((sequence, change));
                Done::Deferred { sequence }
            }
            RepositoryChange::Upsert(_) => {
                // The source has it again: its deletion is off.
                self.deferred
                    .retain(|waiting| !(same_key(waiting) && waiting.1.source() == source));
                if self.deferred.iter().any(same_key) {
                    // Another source's deletion comes first.
                    self.deferred.push((sequence, change));
                    return Done::Deferred { sequence };
                }
                self.apply(sequence, change, see)
            }
            RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => {
                self.apply(sequence, change, see)
            }
        }
    }

    /// A start finds other audit options when its flag is another one.
    fn find_audit(&mut self, audit: AuditState) -> Option<Done> {
        if audit == self.circumstances.audit {
            return None;
        }
        let words = audit.words(None);
        self.circumstances.audit = audit;
        Some(Done::AuditSet {
            endpoint: None,
            words,
        })
    }

    fn begin_endpoint(&mut self, endpoint: EndpointRecord) -> Done {
        let id = EndpointId(endpoint.id);
        let known = self.circumstances.endpoints.insert(endpoint.id, endpoint);
        self.host_labels = None;
        self.follow_host();
        Done::EndpointStarted {
            id,
            is_new: known.is_none(),
        }
    }

    /// The host's endpoint has the labels of the newest revision.
    fn follow_host(&mut self) {
        let Some(host) = self.circumstances.endpoints.get_mut(&HOST_ENDPOINT.0) else {
            return;
        };
        let newest = self.repository.snapshot();
        host.desired = newest.revision.0;
        let is_same = |known: &Arc<LabelSet>| Arc::ptr_eq(known, &newest.host_labels);
        if !self.host_labels.as_ref().is_some_and(is_same) {
            host.labels = newest.host_labels.to_strings();
            self.host_labels = Some(Arc::clone(&newest.host_labels));
        }
    }

    fn apply(
        &mut self,
        sequence: Sequence,
        change: RepositoryChange,
        see: &mut dyn FnMut(&Repository),
    ) -> Done {
        let applied = match &change {
            RepositoryChange::Upsert(_)
            | RepositoryChange::LocalAddresses(_)
            | RepositoryChange::NodeLabels(_) => policy_add(&mut self.repository, &change),
            RepositoryChange::Delete { .. } => policy_delete(&mut self.repository, &change),
        };
        see(&self.repository);
        self.follow_host();
        Done::Applied {
            sequence,
            change: Box::new(change),
            applied: Box::new(applied),
        }
    }
}

/// Whether an operator brings a policy, or what policies talk about.
fn is_import(change: &RepositoryChange) -> bool {
    matches!(change, RepositoryChange::Upsert(resource) if resource.source == SourceName::Api)
}

/// Adds or replaces what the change brings: one revision. An invalid version is
/// refused and the last valid one stays in force.
fn policy_add(repository: &mut Repository, change: &RepositoryChange) -> Applied {
    repository.apply(change)
}

/// Deletes the resource. An unknown one is harmless.
fn policy_delete(repository: &mut Repository, change: &RepositoryChange) -> Applied {
    repository.apply(change)
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
