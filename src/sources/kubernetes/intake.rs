//! Thread `kube-intake`: what was heard becomes changes, in the order in which
//! it was heard.
//!
//! The pipeline's door may block; so this is a thread of its own, and feeds wait
//! for it through the bounded channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::access::Doors;
use super::demand::Demand;
use super::feed::Calls;
use super::heard::{Heard, What};
use super::lobby::Lobby;
use super::mirror::{KindMirror, Mirror, Stage};
use super::needs::{Needs, Scope};
use super::orders::Orders;
use crate::events::{RepositoryChange, ResourceKey, ResourceKind, SourceName};
use crate::queues::{Pipeline, SubmitError};
use crate::sources::{ChangeSink, KindReport, SourceBoard, SourceProblem, SourceReport};

const SOURCE: SourceName = SourceName::Kubernetes;

/// Hands on what was heard.
pub(super) struct Intake {
    pub(super) mirror: Mirror,
    pub(super) demand: Demand,
    pub(super) orders: Orders,
    pub(super) lobby: Arc<Lobby>,
    pub(super) pipeline: Arc<Pipeline>,
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
        self.order();
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
                self.admit(change)?;
            }
        }
        if !is_object {
            // Something may be whole now, or another source's policy may need more.
            self.look()?;
        }
        if !self.told_in_sync && self.is_whole() {
            self.sink.in_sync(SOURCE, &self.mirror.keys())?;
            self.told_in_sync = true;
            self.demand.settle();
            tracing::info!("everything of the Kubernetes API is told");
        }
        if !is_object {
            self.post();
        }
        Ok(())
    }

    /// Hands a change on, or lets it wait until what it needs is known.
    fn admit(&mut self, change: RepositoryChange) -> Result<(), SubmitError> {
        let snapshot = self.pipeline.repository();
        let mirror = &self.mirror;
        let known = |needs| mirror.knows(needs);
        let admitted = self.demand.admit(change, &snapshot, &known);
        self.order();
        match admitted {
            Some(change) => self.submit(change),
            None => Ok(()),
        }
    }

    /// What waited for what is known now, and what others need by now.
    fn look(&mut self) -> Result<(), SubmitError> {
        let snapshot = self.pipeline.repository();
        self.demand.look(&snapshot);
        let mirror = &self.mirror;
        let known = |needs| mirror.knows(needs);
        for change in self.demand.release(&snapshot, &known) {
            self.submit(change)?;
        }
        self.order();
        self.lobby.know(self.mirror.known())
    }

    /// Has feeds ask for what is needed now.
    fn order(&mut self) {
        let needs = self.demand.needs().and(self.lobby.needs());
        self.orders.give(needs, &mut self.mirror);
    }

    /// Whether everything that is needed was heard, and handed on.
    fn is_whole(&self) -> bool {
        self.mirror.was_whole() && self.demand.waiting().next().is_none()
    }

    /// What the journal cannot take is told and left out; the rest goes on.
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError> {
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
        let of_others = self.lobby.waiting();
        let of_others = of_others.iter().map(|(key, needs)| self.wait(key, *needs));
        let own = self.demand.waiting();
        let own = own.map(|(key, needs)| self.wait(key, needs));
        problems.chain(own).chain(of_others).collect()
    }

    /// What is not handed on yet, and why.
    fn wait(&self, key: &ResourceKey, needs: Needs) -> SourceProblem {
        let unknown = self.mirror.unknown(needs);
        let unknown: Vec<&str> = unknown.map(ResourceKind::as_str).collect();
        SourceProblem {
            subject: key.to_string(),
            message: format!(
                "its newest version waits for the first whole list of {}; the one before stays \
                 in force",
                unknown.join(", ")
            ),
        }
    }
}

fn report(kind: ResourceKind, mirror: &KindMirror) -> KindReport {
    let stage = match mirror.stage {
        Stage::Unheard => "not listed yet",
        Stage::Relisting => "being listed again",
        Stage::InSync if !mirror.knows(mirror.order.scope) => "being listed again",
        Stage::InSync if mirror.order.scope == Scope::Own => "no policy for this node needs more",
        Stage::InSync => "",
        Stage::Absent(why) => why,
        Stage::Unneeded => match mirror.order.scope {
            Scope::Nothing => "no policy for this node needs it",
            Scope::Own | Scope::All => "not listed yet",
        },
    };
    KindReport {
        kind,
        in_sync: mirror.is_in_sync(),
        resources: mirror.objects(),
        detail: mirror.trouble.clone().unwrap_or_else(|| stage.to_owned()),
    }
}
