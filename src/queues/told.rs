//! What an event of the journal did, as lines of the history. Pure, so that the
//! lines that a death took away are told again by the replay.

use super::desk::{Done, JournalEvent};
use crate::events::{HistoryEntry, Outcome, RepositoryChange, Revision, Sequence, SourceName};
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
                JournalEvent::Started { .. } | JournalEvent::InSync { .. } => None,
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
                ("policy-refused", errors.join("; "), Outcome::Refused)
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
        RepositoryChange::Upsert(_) => "policy-add",
        RepositoryChange::Delete { .. } => "policy-delete",
        RepositoryChange::LocalAddresses(_) => "local-addresses",
        RepositoryChange::NodeLabels(_) => "node-labels",
    }
}

fn word(change: &RepositoryChange) -> &'static str {
    match change {
        RepositoryChange::Upsert(_) => "added or replaced",
        RepositoryChange::Delete { .. } => "deleted",
        RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => "changed",
    }
}
