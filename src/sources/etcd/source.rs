//! The source as the daemon starts it: a thread for etcd, a thread for the
//! pipeline.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::access::{Access, Doors};
use super::feed::Feed;
use super::heard::Heard;
use super::intake::Intake;
use super::mirror::Mirror;
use super::publisher::Publisher;
use super::translate::{Meaning, Own};
use crate::events::{Resource, ResourceKey, ResourceKind, SourceName};
use crate::limits::{ETCD_HEARD_MAX, ETCD_TICK};
use crate::policy::PolicySnapshot;
use crate::queues::Pipeline;
use crate::sources::local::DeviceBoard;
use crate::sources::marked::Marked;
use crate::sources::remote::{Pace, Stopper, talk};
use crate::sources::{ChangeSink, SourceBoard};

/// The two halves, each for a thread of its own.
pub struct EtcdSource {
    feed: Feed,
    publisher: Publisher,
    intake: Intake,
    heard: mpsc::Receiver<Heard>,
    ticks: mpsc::Sender<Heard>,
    stop: Arc<Notify>,
}

impl std::fmt::Debug for EtcdSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSource").finish_non_exhaustive()
    }
}

impl EtcdSource {
    /// A source that is not started, and sends what it hears to `sink`. `ttl`: how
    /// long etcd keeps what a node published after it is heard no more.
    #[must_use]
    pub fn new(
        (access, marked): (Access, Arc<Marked>),
        ttl: Duration,
        (pipeline, devices): (Arc<Pipeline>, Arc<DeviceBoard>),
        (board, sink): (Arc<SourceBoard>, Arc<dyn ChangeSink>),
    ) -> Self {
        let snapshot = pipeline.repository();
        let own = Own {
            cluster: snapshot.options.cluster_name.clone(),
            node: snapshot.options.node_name.clone(),
        };
        let doors = Doors::new(access, marked, &own.node);
        let (ticks, heard) = mpsc::channel(ETCD_HEARD_MAX);
        let relist = Arc::new(Notify::new());
        let replaced = Arc::new(AtomicBool::new(false));
        let feed = Feed {
            doors: doors.clone(),
            heard: ticks.clone(),
            pace: Pace::new((&own.node, "feed")),
            relist: Arc::clone(&relist),
            revision: 0,
            cluster: 0,
            witness: None,
            replaced: Arc::clone(&replaced),
        };
        let publisher = Publisher::new(
            own.clone(),
            ttl,
            doors.clone(),
            (pipeline, devices),
            (ticks.clone(), replaced),
        );
        let intake = Intake {
            mirror: Mirror::new(own, restored(&snapshot)),
            sink,
            board,
            doors,
            relist,
            told_in_sync: false,
            unpublished: None,
            logged: None,
        };
        Self {
            feed,
            publisher,
            intake,
            heard,
            ticks,
            stop: Arc::default(),
        }
    }

    /// Ends both halves.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// What the two threads run: the one that talks to etcd, the one that hands
    /// on what it heard.
    pub fn halves(self) -> (impl FnOnce() + Send, impl FnOnce() + Send) {
        let Self {
            feed,
            publisher,
            intake,
            heard,
            ticks,
            stop,
        } = self;
        let talk = move || {
            let start = |running: &mut JoinSet<()>| {
                running.spawn(feed.run());
                running.spawn(publisher.run());
            };
            // A full channel has the intake busy as it is.
            let tick = || drop(ticks.try_send(Heard::Tick));
            talk("etcd", &stop, start, (ETCD_TICK, tick));
        };
        let hand_on = move || intake.run(heard);
        (talk, hand_on)
    }
}

/// What an earlier life of the agent took from etcd.
fn restored(snapshot: &PolicySnapshot) -> Vec<(String, ResourceKey, Meaning)> {
    let policies = snapshot.policies.values().map(|stored| &stored.resource);
    let resources = policies.chain(snapshot.objects.values().map(|stored| &stored.resource));
    resources
        .filter(|resource| resource.source == SourceName::Etcd)
        .map(|resource| {
            let at = resource.origin.file.clone();
            (at, resource.key.clone(), meaning(resource))
        })
        .collect()
}

fn meaning(resource: &Resource) -> Meaning {
    let number = resource.key.name.parse().ok();
    let body = resource.body.value();
    let address = body["status"]["identity"]["id"].as_u64();
    match (resource.key.kind, number, address) {
        (ResourceKind::CiliumIdentity, Some(number), _) => Meaning::Number {
            number,
            labels: body["security-labels"].to_string(),
        },
        (ResourceKind::CiliumEndpoint, _, Some(number)) => Meaning::Address {
            number: u32::try_from(number).unwrap_or_default(),
        },
        _ => Meaning::Other,
    }
}
