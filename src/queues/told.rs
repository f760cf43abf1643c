//! What an event of the journal did, as lines of the history. Pure, so that the
//! lines that a death took away are told again by the replay.

use super::desk::{Done, JournalEvent};
use crate::events::{
    HistoryEntry, Outcome, RepositoryChange, ResourceKind, Revision, Sequence, SourceName,
};
use crate::policy::{Applied, Change};

/// What of an event is needed to tell of it, after the desk has taken it.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    sequence: Sequence,
    accepted_ms: u64,
    /// Revision before the event.
    revision: Revision,
    /// What a change is about.
    change: Option<About>,
}

#[derive(Clone, Debug)]
struct About {
    operation: &'static str,
    subject: String,
    words: String,
    source: SourceName,
}

impl About {
    fn new(change: &RepositoryChange) -> Self {
        Self {
            operation: operation(change),
            subject: change.subject(),
            words: format!("{} from {}", word(change), change.source().as_str()),
            source: change.source(),
        }
    }
}

impl Telling {
    /// To be asked before the desk takes the event.
    pub(super) fn new(sequence: Sequence, event: &JournalEvent, revision: Revision) -> Self {
        Self {
            sequence,
            accepted_ms: event.accepted_ms(),
            revision,
            change: match event {
                JournalEvent::Change { change, .. } => Some(About::new(change)),
                JournalEvent::Started { .. }
                | JournalEvent::InSync { .. }
                | JournalEvent::Audit { .. } => None,
            },
        }
    }

    /// The lines, one for each thing done.
    pub(super) fn entries(mut self, done: &[Done]) -> Vec<HistoryEntry> {
        done.iter().map(|done| self.entry(done)).collect()
    }

    fn entry(&mut self, done: &Done) -> HistoryEntry {
        match done {
            Done::Applied {
                sequence,
                change,
                applied,
            } => self.applied(*sequence, change, applied),
            Done::Deferred { sequence } => {
                let about = self.change.clone();
                let words = about.as_ref().map_or("", |about| &about.words);
                let message = format!("{words}; waits until every source is in sync");
                let event = about.as_ref().map_or("change", |about| about.operation);
                let subject = about.as_ref().map_or("", |about| &about.subject);
                HistoryEntry {
                    sequence: Some(*sequence),
                    cause: about.as_ref().map(|about| about.source),
                    ..self.line(event, subject, message, Some(Outcome::Deferred))
                }
            }
            Done::GateOpened => {
                let message = "every source is in sync".to_owned();
                self.line("in-sync", "sources", message, None)
            }
            Done::AuditSet { endpoint, words } => {
                let (event, subject) = match endpoint {
                    Some(id) => ("endpoint-config", format!("endpoint {id}")),
                    None => ("config", "agent".to_owned()),
                };
                self.line(event, &subject, words.clone(), Some(Outcome::Applied))
            }
            Done::EndpointStarted { id, is_new } => {
                let (event, message) = if *is_new {
                    ("endpoint-created", "the endpoint of this host")
                } else {
                    ("endpoint-restored", "as the store remembers it")
                };
                let subject = format!("endpoint {id}");
                self.line(event, &subject, message.to_owned(), Some(Outcome::Applied))
            }
            Done::OptionsChanged { revision } => {
                self.revision = *revision;
                let message = "the agent was started with other options".to_owned();
                self.line("options", "agent", message, Some(Outcome::Applied))
            }
        }
    }

    fn applied(
        &mut self,
        sequence: Sequence,
        change: &RepositoryChange,
        applied: &Applied,
    ) -> HistoryEntry {
        let about = About::new(change);
        let (event, message, outcome) = match applied {
            Applied::Unchanged => {
                let message = format!("{}; changes nothing", about.words);
                (about.operation, message, Outcome::Unchanged)
            }
            Applied::Refused(refusal) => {
                let errors: Vec<String> = refusal.errors.iter().map(ToString::to_string).collect();
                (refused(change), errors.join("; "), Outcome::Refused)
            }
            Applied::Changed(Change { revision, .. }) => {
                self.revision = *revision;
                (about.operation, about.words, Outcome::Applied)
            }
        };
        // A deferred change is done by a later event.
        HistoryEntry {
            sequence: Some(sequence),
            cause: Some(about.source),
            ..self.line(event, &about.subject, message, Some(outcome))
        }
    }

    fn line(
        &self,
        event: &str,
        subject: &str,
        message: String,
        outcome: Option<Outcome>,
    ) -> HistoryEntry {
        HistoryEntry {
            time_ms: self.accepted_ms,
            sequence: Some(self.sequence),
            revision: self.revision,
            event: event.to_owned(),
            subject: subject.to_owned(),
            message,
            cause: None,
            outcome,
            generation: None,
        }
    }
}

/// The event's name in the history and in metrics.
pub(super) fn operation(change: &RepositoryChange) -> &'static str {
    match change {
        RepositoryChange::Upsert(resource) => names(resource.key.kind).update,
        RepositoryChange::Delete { key, .. } => names(key.kind).delete,
        RepositoryChange::LocalAddresses(_) => "local-addresses",
        RepositoryChange::NodeLabels(_) => "node-labels",
    }
}

fn refused(change: &RepositoryChange) -> &'static str {
    change
        .key()
        .map_or("change-refused", |key| names(key.kind).refused)
}

/// What happens to objects of one kind.
struct Names {
    update: &'static str,
    delete: &'static str,
    refused: &'static str,
}

fn names(kind: ResourceKind) -> Names {
    let [update, delete, refused] = match kind {
        ResourceKind::CiliumClusterwideNetworkPolicy | ResourceKind::CiliumNetworkPolicy => {
            ["policy-add", "policy-delete", "policy-refused"]
        }
        ResourceKind::CiliumCIDRGroup => [
            "cidr-group-update",
            "cidr-group-delete",
            "cidr-group-refused",
        ],
        ResourceKind::Node | ResourceKind::CiliumNode => {
            ["node-update", "node-delete", "node-refused"]
        }
        ResourceKind::Namespace => ["namespace-update", "namespace-delete", "namespace-refused"],
        ResourceKind::Pod => ["pod-update", "pod-delete", "pod-refused"],
        ResourceKind::Service => ["service-update", "service-delete", "service-refused"],
        ResourceKind::EndpointSlice => [
            "endpoint-slice-update",
            "endpoint-slice-delete",
            "endpoint-slice-refused",
        ],
        ResourceKind::CiliumIdentity => ["identity-update", "identity-delete", "identity-refused"],
        ResourceKind::CiliumEndpoint => [
            "cilium-endpoint-update",
            "cilium-endpoint-delete",
            "cilium-endpoint-refused",
        ],
    };
    Names {
        update,
        delete,
        refused,
    }
}

fn word(change: &RepositoryChange) -> &'static str {
    match change {
        RepositoryChange::Upsert(_) => "added or replaced",
        RepositoryChange::Delete { .. } => "deleted",
        RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => "changed",
    }
}
