//! The rooms of a running agent and their threads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use palisade_state::Store;
use parking_lot::Mutex;

use super::threads::Threads;
use crate::api::Agent;
use crate::clock::Clock;
use crate::config::{Config, EtcdAccess, KubernetesAccess};
use crate::datapath::ControlDoor as _;
use crate::datapath::kernel::{
    Auditor, Guarded, Inspector, KernelDatapath, StartReport, next_sweep,
};
use crate::endpoint::NodeFacts;
use crate::events::{Resource, SourceName};
use crate::limits::{BUILD_PERMITS_MIN, CT_SWEEP_FIRST};
use crate::metrics::{self, Collector, Metrics};
use crate::monitor::{EventPump, Monitor};
use crate::queues::{Drift, Pipeline, PipelineOptions};
use crate::sources::etcd::{self, EtcdSource};
use crate::sources::kubernetes::{self, Access, KubernetesSource};
use crate::sources::local::{DeviceBoard, LocalSource};
use crate::sources::manifests::{ManifestWatch, Stopper};
use crate::sources::marked::Marked;
use crate::sources::remote;
use crate::sources::{ChangeSink, SourceBoard};

/// What the rooms are built from.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) store: Store,
    pub(super) datapath: KernelDatapath,
    pub(super) start: StartReport,
    pub(super) inspector: Inspector,
    pub(super) devices: Arc<DeviceBoard>,
    pub(super) facts: NodeFacts,
}

/// The rooms, and what ends their threads.
pub(super) struct Rooms {
    pub(super) agent: Arc<Agent>,
    clock: Arc<dyn Clock>,
    /// Dropped to stop those who listen.
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    manifests: Mutex<Option<Stopper>>,
    kubernetes: Mutex<Option<remote::Stopper>>,
    etcd: Mutex<Option<remote::Stopper>>,
    /// The way to the sources beyond this host, which policy cannot cut.
    marked: Arc<Marked>,
}

impl Rooms {
    pub(super) fn build(parts: Parts<'_>) -> Result<Self> {
        let config = parts.config;
        let control = parts.datapath.control();
        control.set_mark(config.control_mark)?;
        if config.kubernetes.is_none() && config.etcd.is_none() {
            // What was listed for sources that are configured no more.
            control.replace(&[])?;
        }
        let datapath = Guarded::new(parts.datapath);
        let auditor = Auditor::new(&datapath);
        let pipeline = Pipeline::start(
            pipeline_options(config, parts.facts)?,
            Box::new(datapath),
            parts.store,
            Arc::clone(&parts.clock),
        );
        let board = Arc::new(SourceBoard::default());
        let monitor = Arc::new(Monitor::default());
        let collector = Collector::new(
            Arc::clone(&pipeline),
            Arc::clone(&board),
            Arc::clone(&monitor),
            Arc::clone(&parts.devices),
            Arc::clone(&parts.clock),
        );
        let drift = Drift::new(auditor, Arc::clone(&pipeline), Arc::clone(&parts.clock));
        let (stop, stopped) = bounded(0);
        let door = Arc::new(control.clone());
        let has_failsafe = !config.policy.failsafe.is_empty();
        let of_behind = Arc::clone(&pipeline);
        let behind = Box::new(move || kubernetes::api_servers(&of_behind.repository()));
        Ok(Self {
            marked: Marked::new(config.control_mark, !has_failsafe, door, behind),
            agent: Arc::new(Agent {
                node: config.policy.node_name.clone(),
                failsafe: config.policy.failsafe.clone(),
                start: parts.start,
                pipeline,
                inspector: parts.inspector,
                control_mark: config.control_mark,
                control,
                occupancy: Arc::default(),
                board,
                devices: parts.devices,
                monitor,
                metrics: parts.metrics,
                collector,
                drift: Arc::new(drift),
                noted: Mutex::default(),
                clock: Arc::clone(&parts.clock),
            }),
            clock: parts.clock,
            stop: Mutex::new(Some(stop)),
            stopped,
            manifests: Mutex::new(None),
            kubernetes: Mutex::new(None),
            etcd: Mutex::new(None),
        })
    }

    /// The pipeline's workers.
    pub(super) fn start_workers(&self, threads: &mut Threads) {
        for (name, work) in Arc::clone(&self.agent.pipeline).workers() {
            threads.spawn(&name, work);
        }
    }

    /// The reader of the ring buffer.
    pub(super) fn start_monitor(&self, threads: &mut Threads) -> Result<()> {
        let agent = &self.agent;
        let pump = EventPump {
            reader: agent.inspector.events()?,
            inspector: agent.inspector.clone(),
            pipeline: Arc::clone(&agent.pipeline),
            monitor: Arc::clone(&agent.monitor),
            devices: Arc::clone(&agent.devices),
            clock: Arc::clone(&self.clock),
        };
        let stopped = self.stopped.clone();
        threads.spawn("monitor", move || pump.run(&stopped));
        Ok(())
    }

    /// The sweeper of expired flows.
    pub(super) fn start_sweeper(&self, threads: &mut Threads) {
        let sweeper = self.agent.inspector.sweeper();
        let occupancy = Arc::clone(&self.agent.occupancy);
        let stopped = self.stopped.clone();
        let clock = Arc::clone(&self.clock);
        threads.spawn("ct-sweep", move || {
            let mut pause = CT_SWEEP_FIRST;
            loop {
                let start = clock.now();
                let swept = sweeper.sweep();
                let took = clock.now().since(start);
                match swept {
                    Ok(found) => {
                        pause = next_sweep(pause, &found);
                        metrics::swept(Some(&found), took, pause);
                        *occupancy.write() = found;
                    }
                    Err(error) => {
                        tracing::error!("sweep of conntrack: {error}");
                        metrics::swept(None, took, pause);
                    }
                }
                if stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
    }

    /// The audit of the kernel.
    pub(super) fn start_audit(&self, threads: &mut Threads, interval: Duration) {
        let drift = Arc::clone(&self.agent.drift);
        let stopped = self.stopped.clone();
        threads.spawn("audit", move || drift.run(interval, &stopped));
    }

    /// Devices, addresses and labels of this node.
    pub(super) fn start_local(
        &self,
        threads: &mut Threads,
        local: LocalSource,
        labels: BTreeMap<String, String>,
    ) {
        let pipeline = Arc::clone(&self.agent.pipeline);
        let board = Arc::clone(&self.agent.board);
        let stopped = self.stopped.clone();
        threads.spawn("local", move || {
            local.run(labels, &pipeline, &board, &stopped);
        });
    }

    /// The manifests directories, if there are any.
    pub(super) fn start_manifests(
        &self,
        threads: &mut Threads,
        directories: &[PathBuf],
        sink: &Arc<dyn ChangeSink>,
    ) {
        if directories.is_empty() {
            return;
        }
        let agent = &self.agent;
        let watch = ManifestWatch::new(
            directories,
            self.restored(),
            Arc::clone(sink),
            Arc::clone(&agent.board),
            Arc::clone(&self.clock),
        );
        *self.manifests.lock() = Some(watch.stopper());
        threads.spawn("manifests", move || watch.run());
    }

    /// The Kubernetes API, if it is a source; where the other sources send what they
    /// see.
    pub(super) fn start_kubernetes(
        &self,
        threads: &mut Threads,
        access: Option<&KubernetesAccess>,
    ) -> Arc<dyn ChangeSink> {
        let agent = &self.agent;
        let Some(access) = access else {
            return Arc::clone(&agent.pipeline) as Arc<dyn ChangeSink>;
        };
        let source = KubernetesSource::new(
            Access {
                kubeconfig: access.kubeconfig.clone(),
                context: access.context.clone(),
                status_lease: access.status_lease,
            },
            Arc::clone(&self.marked),
            &agent.node,
            Arc::clone(&agent.pipeline),
            Arc::clone(&agent.board),
        );
        *self.kubernetes.lock() = Some(source.stopper());
        let sink = source.lobby();
        let (listen, hand_on) = source.halves();
        threads.spawn("kubernetes", listen);
        threads.spawn("kube-intake", hand_on);
        sink
    }

    /// etcd, if it is a source.
    pub(super) fn start_etcd(
        &self,
        threads: &mut Threads,
        access: Option<&EtcdAccess>,
        sink: &Arc<dyn ChangeSink>,
    ) {
        let Some(access) = access else { return };
        let agent = &self.agent;
        let to = etcd::Access {
            endpoints: access.endpoints.clone(),
            config: access.config.clone(),
        };
        let source = EtcdSource::new(
            (to, Arc::clone(&self.marked)),
            access.lease_ttl,
            (Arc::clone(&agent.pipeline), Arc::clone(&agent.devices)),
            (Arc::clone(&agent.board), Arc::clone(sink)),
        );
        *self.etcd.lock() = Some(source.stopper());
        let (talk, hand_on) = source.halves();
        threads.spawn("etcd", talk);
        threads.spawn("etcd-intake", hand_on);
    }

    /// What an earlier life of the agent took from manifests.
    fn restored(&self) -> Vec<Resource> {
        let snapshot = self.agent.pipeline.repository();
        let policies = snapshot.policies.values().map(|stored| &stored.resource);
        let resources = policies.chain(snapshot.objects.values().map(|stored| &stored.resource));
        resources
            .filter(|resource| resource.source == SourceName::Manifests)
            .map(|resource| Resource::clone(resource))
            .collect()
    }

    /// Ends every thread. The datapath enforces on.
    pub(super) fn stop(&self) {
        if let Some(stopper) = self.manifests.lock().take() {
            stopper.stop();
        }
        if let Some(stopper) = self.kubernetes.lock().take() {
            stopper.stop();
        }
        if let Some(stopper) = self.etcd.lock().take() {
            stopper.stop();
        }
        drop(self.stop.lock().take());
        self.agent.pipeline.shutdown();
    }
}

fn pipeline_options(config: &Config, facts: NodeFacts) -> Result<PipelineOptions> {
    let mut sources = BTreeSet::from([SourceName::Local]);
    if !config.manifests.is_empty() {
        sources.insert(SourceName::Manifests);
    }
    if config.kubernetes.is_some() {
        sources.insert(SourceName::Kubernetes);
    }
    if config.etcd.is_some() {
        sources.insert(SourceName::Etcd);
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("boot id of the kernel")?;
    Ok(PipelineOptions {
        sources,
        policy: config.policy.clone(),
        settings: config.settings.clone(),
        build_permits: cpus.max(BUILD_PERMITS_MIN),
        facts,
        boot_id: boot_id.trim().to_owned(),
    })
}
