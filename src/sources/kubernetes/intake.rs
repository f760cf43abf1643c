//! Thread `kube-intake`: what was heard becomes changes, in the order in which
//! it was heard.
//!
//! The pipeline's door may block; so this is a thread of its own, and feeds wait
//! for it through the bounded channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::access::Doors;
use super::feed::Calls;
use super::heard::{Heard, What};
use super::mirror::{KindMirror, Mirror, Stage};
use crate::events::{ResourceKind, SourceName};
use crate::queues::SubmitError;
use crate::sources::{ChangeSink, KindReport, SourceBoard, SourceProblem, SourceReport};

const SOURCE: SourceName = SourceName::Kubernetes;

/// Hands on what was heard.
pub(super) struct Intake {
    pub(super) mirror: Mirror,
    pub(super) sink: Arc<dyn ChangeSink>,
    pub(super) board: Arc<SourceBoard>,
    pub(super) doors: Doors,
    pub(super) calls: BTreeMap<ResourceKind, Calls>,
    /// Whether the pipeline knows that everything was told.
    pub(super) told_in_sync: bool,
    /// Failures that stand in the log.
    pub(super) logged: BTreeSet<String>,
}

impl Intake {
    /// Until the feeds end, or the pipeline stops.
    pub(super) fn run(mut self, mut heard: Receiver<Heard>) {
        self.post();
        while let Some(next) = heard.blocking_recv() {
            if let Err(error) = self.take(next) {
                tracing::info!("the Kubernetes API is heard no more: {error}");
                return;
            }
        }
    }

    fn take(&mut self, heard: Heard) -> Result<(), SubmitError> {
        let is_object = matches!(heard.what, What::Object(_) | What::Gone(_));
        let is_tick = heard.what == What::Tick;
        if is_tick {
            self.ask_for_freed();
        } else {
            for change in self.mirror.take(heard) {
                self.submit(change)?;
            }
        }
        if !self.told_in_sync && self.mirror.was_whole() {
            self.sink.in_sync(SOURCE, &self.mirror.keys())?;
            self.told_in_sync = true;
            tracing::info!("everything of the Kubernetes API is told");
        }
        if !is_object {
            self.post();
        }
        Ok(())
    }

    /// What the journal cannot take is told and left out; the rest goes on.
    fn submit(&self, change: crate::events::RepositoryChange) -> Result<(), SubmitError> {
        let subject = change.subject();
        match self.sink.submit(change) {
            Err(SubmitError::Journal(reason)) => {
                tracing::error!(subject, "object not taken: {reason}");
                Ok(())
            }
            other => other,
        }
    }

    /// Objects that another source owned when they were told, and owns no more.
    fn ask_for_freed(&self) {
        for kind in self.sink.freed(SOURCE) {
            if let Some(calls) = self.calls.get(&kind) {
                calls.relist.notify_one();
            }
        }
    }

    fn post(&mut self) {
        self.log();
        let kinds: Vec<KindReport> = self
            .mirror
            .kinds()
            .map(|(kind, mirror)| report(kind, mirror))
            .collect();
        self.board.post(
            SOURCE,
            SourceReport {
                in_sync: kinds.iter().all(|kind| kind.in_sync),
                resources: kinds.iter().map(|kind| kind.resources).sum(),
                detail: self.doors.server(),
                problems: self.problems(),
                notes: Vec::new(),
                kinds,
            },
        );
    }

    /// Each failure is logged once, however many kinds have it, until none has it
    /// any more.
    fn log(&mut self) {
        let troubles = self.mirror.kinds().filter_map(|(kind, mirror)| {
            let message = mirror.trouble.clone()?;
            Some((message, kind))
        });
        let troubles: BTreeMap<String, ResourceKind> = troubles.collect();
        for (message, kind) in &troubles {
            if !self.logged.contains(message) {
                tracing::warn!(kind = kind.as_str(), "Kubernetes API: {message}");
            }
        }
        if troubles.is_empty() && !self.logged.is_empty() {
            tracing::info!("the Kubernetes API is heard again");
        }
        self.logged = troubles.into_keys().collect();
    }

    /// One problem for all kinds that fail in the same way.
    fn problems(&self) -> Vec<SourceProblem> {
        let mut by_message: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (kind, mirror) in self.mirror.kinds() {
            if let Some(message) = &mirror.trouble {
                by_message.entry(message).or_default().push(kind.as_str());
            }
        }
        let problems = by_message
            .into_iter()
            .map(|(message, kinds)| SourceProblem {
                subject: kinds.join(", "),
                message: format!("{message}; what was told stays in force, and it is tried again"),
            });
        problems.collect()
    }
}

fn report(kind: ResourceKind, mirror: &KindMirror) -> KindReport {
    let stage = match mirror.stage {
        Stage::Unheard => "not listed yet",
        Stage::Relisting => "being listed again",
        Stage::InSync => "",
        Stage::Absent(why) => why,
    };
    KindReport {
        kind,
        in_sync: mirror.is_in_sync(),
        resources: mirror.objects(),
        detail: mirror.trouble.clone().unwrap_or_else(|| stage.to_owned()),
    }
}
