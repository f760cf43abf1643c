//! Thread `etcd-intake`: what was heard becomes changes, in the order in which it
//! was heard.
//!
//! The pipeline's door may block; so this is a thread of its own, and the feed
//! waits for it through the bounded channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

use super::access::Doors;
use super::heard::Heard;
use super::mirror::{Mirror, Stage, Told};
use crate::events::{RepositoryChange, ResourceKind, SourceName};
use crate::queues::SubmitError;
use crate::sources::{ChangeSink, KindReport, SourceBoard, SourceProblem, SourceReport};

const SOURCE: SourceName = SourceName::Etcd;
/// Kinds that `status` always shows.
const SHOWN: [ResourceKind; 4] = [
    ResourceKind::CiliumClusterwideNetworkPolicy,
    ResourceKind::CiliumNode,
    ResourceKind::CiliumIdentity,
    ResourceKind::CiliumEndpoint,
];

/// Hands on what was heard.
pub(super) struct Intake {
    pub(super) mirror: Mirror,
    pub(super) sink: Arc<dyn ChangeSink>,
    pub(super) board: Arc<SourceBoard>,
    pub(super) doors: Doors,
    pub(super) relist: Arc<Notify>,
    /// Whether the pipeline knows that everything was told.
    pub(super) told_in_sync: bool,
    /// What is wrong with the publishing of this node.
    pub(super) unpublished: Option<String>,
    /// The failure that stands in the log.
    pub(super) logged: Option<String>,
}

impl Intake {
    /// Until the feed ends, or the pipeline stops.
    pub(super) fn run(mut self, mut heard: Receiver<Heard>) {
        self.post();
        while let Some(next) = heard.blocking_recv() {
            if let Err(error) = self.take(next) {
                tracing::info!("etcd is heard no more: {error}");
                return;
            }
        }
    }

    fn take(&mut self, heard: Heard) -> Result<(), SubmitError> {
        match &heard {
            // The owner of a key that is ours too has gone: ours counts now.
            Heard::Tick if !self.sink.freed(SOURCE).is_empty() => self.relist.notify_one(),
            Heard::Published(outcome) => self.unpublished.clone_from(outcome),
            _ => {}
        }
        // The next tick tells of single keys: counting all of them takes a while.
        let is_key = matches!(heard, Heard::Entry(_) | Heard::Gone(_));
        for told in self.mirror.take(heard) {
            self.submit(told)?;
        }
        if !self.told_in_sync && self.mirror.was_whole() {
            self.sink.in_sync(SOURCE, &self.mirror.keys())?;
            self.told_in_sync = true;
            tracing::info!("everything of etcd is told");
        }
        if !is_key {
            self.post();
        }
        Ok(())
    }

    /// What the journal cannot take is told and left out; the rest goes on.
    fn submit(&self, told: Told) -> Result<(), SubmitError> {
        let subject = told.change.subject();
        match (&told.change, told.positions) {
            (RepositoryChange::Upsert(resource), Some(positions)) => {
                self.board.place(&resource.key, positions);
            }
            (RepositoryChange::Delete { key, .. }, _) => self.board.forget(key),
            _ => {}
        }
        match self.sink.submit(told.change) {
            Err(SubmitError::Journal(reason)) => {
                tracing::error!(subject, "object not taken: {reason}");
                Ok(())
            }
            other => other,
        }
    }

    fn post(&mut self) {
        self.log();
        let counts = self.mirror.counts();
        self.board.post(
            SOURCE,
            SourceReport {
                in_sync: self.mirror.is_in_sync(),
                resources: counts.values().sum(),
                detail: self.doors.server(),
                problems: self.problems(),
                notes: Vec::new(),
                kinds: self.kinds(counts),
            },
        );
    }

    /// Prefixes are listed and watched together: they are in sync together.
    fn kinds(&self, mut counts: BTreeMap<ResourceKind, usize>) -> Vec<KindReport> {
        for kind in SHOWN {
            counts.entry(kind).or_default();
        }
        let stage = match self.mirror.stage {
            Stage::Unheard => "not listed yet",
            Stage::Relisting => "being listed again",
            Stage::InSync => "",
        };
        let each = counts.into_iter().map(|(kind, resources)| {
            let prefix = super::keys::prefix_of(kind);
            let trouble = self.mirror.trouble.as_deref().unwrap_or(stage);
            let detail = match trouble {
                "" => prefix.to_owned(),
                trouble => format!("{prefix}: {trouble}"),
            };
            KindReport {
                kind,
                in_sync: self.mirror.is_in_sync(),
                resources,
                detail,
            }
        });
        each.collect()
    }

    /// Each failure is logged once, until etcd is heard again.
    fn log(&mut self) {
        let trouble = self
            .mirror
            .trouble
            .clone()
            .or_else(|| self.unpublished.clone());
        if trouble == self.logged {
            return;
        }
        match &trouble {
            Some(message) => tracing::warn!("etcd: {message}"),
            None => tracing::info!("etcd is heard again"),
        }
        self.logged = trouble;
    }

    fn problems(&self) -> Vec<SourceProblem> {
        let trouble = self.mirror.trouble.iter().map(|message| SourceProblem {
            subject: self.doors.server(),
            message: format!("{message}; what was told stays in force, and it is tried again"),
        });
        let unpublished = self.unpublished.iter().map(|message| SourceProblem {
            subject: "this node in etcd".to_owned(),
            message: format!("{message}; it is tried again"),
        });
        let broken = self
            .mirror
            .broken()
            .map(|(key, problem, stays)| SourceProblem {
                subject: key.to_owned(),
                message: if stays {
                    format!("{problem}; the last value that could be read stays")
                } else {
                    problem.to_owned()
                },
            });
        trouble.chain(unpublished).chain(broken).collect()
    }
}
