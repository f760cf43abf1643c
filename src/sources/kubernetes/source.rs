//! The source as the daemon starts it: a thread for the server, a thread for
//! the pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::access::{Access, Doors};
use super::demand::Demand;
use super::feed::{Calls, Feed};
use super::heard::{Heard, What};
use super::intake::Intake;
use super::kinds::WATCHED;
use super::lease::Lease;
use super::lobby::Lobby;
use super::mirror::Mirror;
use super::needs::{Order, all};
use super::orders::Orders;
use super::outlet::Outlet;
use super::report::Reporter;
use super::status::Teller;
use crate::clock::SystemClock;
use crate::events::ResourceKind;
use crate::limits::{KUBERNETES_HEARD_MAX, KUBERNETES_SILENCE, KUBERNETES_TICK};
use crate::queues::Pipeline;
use crate::sources::marked::Marked;
use crate::sources::remote::{Pace, Stopper, talk};
use crate::sources::{ChangeSink, SourceBoard};

/// The two halves, each for a thread of its own.
pub struct KubernetesSource {
    feeds: Vec<Feed>,
    intake: Intake,
    reporter: Reporter,
    teller: Teller,
    heard: mpsc::Receiver<Heard>,
    ticks: mpsc::Sender<Heard>,
    marked: Arc<Marked>,
    stop: Arc<Notify>,
}

impl std::fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesSource").finish_non_exhaustive()
    }
}

impl KubernetesSource {
    /// A source for the node `node`, not started.
    #[must_use]
    pub fn new(
        access: Access,
        marked: Arc<Marked>,
        node: &str,
        pipeline: Arc<Pipeline>,
        board: Arc<SourceBoard>,
    ) -> Self {
        let status_lease = access.status_lease;
        let doors = Doors::new(access, Arc::clone(&marked));
        let (ticks, heard) = mpsc::channel(KUBERNETES_HEARD_MAX);
        let calls: BTreeMap<ResourceKind, Calls> = WATCHED
            .iter()
            .map(|watched| (watched.kind, Calls::default()))
            .collect();
        let orders = Orders::default();
        let feeds = feeds(&doors, node, &ticks, &calls, &orders);
        let lobby = Arc::new(Lobby::new(Arc::clone(&pipeline), ticks.clone()));
        Self {
            feeds,
            intake: Intake {
                mirror: Mirror::new(WATCHED.iter().map(|watched| watched.kind)),
                demand: Demand::new(node, &pipeline.repository()),
                orders,
                lobby,
                pipeline: Arc::clone(&pipeline),
                sink: Arc::clone(&pipeline) as Arc<dyn ChangeSink>,
                board,
                doors: doors.clone(),
                calls,
                told_in_sync: false,
                logged: BTreeSet::new(),
            },
            reporter: Reporter {
                node: node.to_owned(),
                doors: doors.clone(),
                pipeline: Arc::clone(&pipeline),
                pace: Pace::new((node, "report")),
                clock: SystemClock::default(),
                written: None,
                told: BTreeSet::new(),
                realized: BTreeMap::new(),
            },
            teller: Teller {
                node: node.to_owned(),
                doors,
                pipeline,
                pace: Pace::new((node, "status")),
                lease: Lease {
                    holder: node.to_owned(),
                    span: status_lease,
                    clock: SystemClock::default(),
                    renewed: None,
                    seen: None,
                },
            },
            heard,
            ticks,
            marked,
            stop: Arc::default(),
        }
    }

    /// Where the other sources of this node send what they see.
    #[must_use]
    pub fn lobby(&self) -> Arc<dyn ChangeSink> {
        Arc::clone(&self.intake.lobby) as Arc<dyn ChangeSink>
    }

    /// Ends both halves.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// What the two threads run: the one that talks to the server, the one that
    /// hands on what it heard.
    pub fn halves(self) -> (impl FnOnce() + Send, impl FnOnce() + Send) {
        let Self {
            feeds,
            intake,
            reporter,
            teller,
            heard,
            ticks,
            marked,
            stop,
        } = self;
        let listen = move || {
            let start = |running: &mut JoinSet<()>| {
                for feed in feeds {
                    running.spawn(feed.run());
                }
                running.spawn(reporter.run());
                running.spawn(teller.run());
            };
            let tick = || {
                let (kind, what) = (ResourceKind::Node, What::Tick);
                // A full channel has the intake busy as it is.
                drop(ticks.try_send(Heard { kind, what }));
                marked.look_behind();
            };
            talk("Kubernetes", &stop, start, (KUBERNETES_TICK, tick));
        };
        let hand_on = move || intake.run(heard);
        (listen, hand_on)
    }
}

fn feeds(
    doors: &Doors,
    node: &str,
    heard: &mpsc::Sender<Heard>,
    calls: &BTreeMap<ResourceKind, Calls>,
    orders: &Orders,
) -> Vec<Feed> {
    let (leads, led) = watch::channel(None);
    let reached = Arc::new(Notify::new());
    let feed = |outlet: Outlet, name: &str, calls: Calls| Feed {
        outlet,
        doors: doors.clone(),
        pace: Pace::new((node, name)),
        calls,
        reached: Arc::clone(&reached),
        streams: true,
        silence: KUBERNETES_SILENCE,
        yields_to: None,
        leads: None,
        order: all(),
        version: String::new(),
        place: None,
        asked: Order::default(),
    };
    let mut feeds = Vec::new();
    let mut definitions = BTreeMap::new();
    for watched in WATCHED {
        let calls = calls.get(&watched.kind).cloned().unwrap_or_default();
        if watched.is_custom {
            definitions.insert(watched.definition(), calls.clone());
        }
        let heard = heard.clone();
        let outlet = Outlet::Kind {
            watched,
            node: node.to_owned(),
            heard,
        };
        let mut feed = feed(outlet, watched.plural, calls);
        feed.order = orders.of(watched.kind);
        // Cilium's endpoints say all that pods and their namespaces say, and their
        // identities besides.
        match watched.kind {
            ResourceKind::Pod | ResourceKind::Namespace => feed.yields_to = Some(led.clone()),
            ResourceKind::CiliumEndpoint => feed.leads = Some(leads.clone()),
            _ => {}
        }
        feeds.push(feed);
    }
    let outlet = Outlet::Definitions(definitions);
    feeds.push(feed(outlet, "definitions", Calls::default()));
    feeds
}
