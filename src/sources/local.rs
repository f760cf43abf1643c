//! What the node itself says: its devices, its addresses, its labels.
//!
//! Owner: thread `local`. It protects devices as they come and go, and tells
//! the pipeline the node's addresses. By level: word of a change makes it read
//! everything again, and so does time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::RwLock;

use super::{ChangeSink, SourceBoard, SourceProblem, SourceReport};
use crate::clock::Clock;
use crate::datapath::DatapathError;
use crate::datapath::devices::{self, DevicePattern, DeviceWatch, Scope, Selection};
use crate::datapath::kernel::{Attachments, Unwanted};
use crate::endpoint::NodeFacts;
use crate::events::{RepositoryChange, SourceName};
use crate::limits::{LOCAL_POLL, LOCAL_RESYNC};
use crate::queues::{Pipeline, SubmitError};

/// Why devices could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("devices: {0}")]
    Netlink(#[from] io::Error),
    #[error("devices: {0}")]
    Datapath(#[from] DatapathError),
}

/// The devices as last seen.
#[derive(Clone, Debug, Default)]
pub struct DeviceReport {
    pub selections: Vec<Selection>,
    pub problems: Vec<SourceProblem>,
}

/// The devices, for `status` and the monitor.
#[derive(Debug, Default)]
pub struct DeviceBoard {
    report: RwLock<DeviceReport>,
}

impl DeviceBoard {
    /// The devices as last seen.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        self.report.read().clone()
    }
    /// Name of a device; `if<number>` when it is gone.
    #[must_use]
    pub fn name(&self, ifindex: u32) -> String {
        let report = self.report.read();
        let mut devices = report.selections.iter().map(|selection| &selection.device);
        devices
            .find(|device| device.ifindex == ifindex)
            .map_or_else(|| format!("if{ifindex}"), |device| device.name.clone())
    }
}

/// Watches devices and addresses.
#[derive(Debug)]
pub struct LocalSource {
    watch: DeviceWatch,
    named: Vec<DevicePattern>,
    attachments: Attachments,
    devices: Arc<DeviceBoard>,
    addresses: Vec<IpAddr>,
    facts: NodeFacts,
}

impl LocalSource {
    /// Subscribes, then protects what is there now.
    ///
    /// # Errors
    /// When netlink or the kernel refuse.
    pub fn open(
        named: &[String],
        attachments: Attachments,
        devices: Arc<DeviceBoard>,
    ) -> Result<Self, LocalError> {
        let mut source = Self {
            watch: DeviceWatch::open()?,
            named: named.iter().map(|name| DevicePattern::new(name)).collect(),
            attachments,
            devices,
            addresses: Vec::new(),
            facts: NodeFacts::default(),
        };
        source.look()?;
        Ok(source)
    }

    /// Addresses and protected devices as of the last look.
    #[must_use]
    pub fn facts(&self) -> NodeFacts {
        self.facts.clone()
    }

    /// Reads everything, and protects what is to be protected.
    fn look(&mut self) -> Result<(), LocalError> {
        let list = devices::list()?;
        let selections = devices::select(&list, &self.named);
        let wanted: Vec<_> = selections.iter().filter_map(Selection::wanted).collect();
        let unwanted = if self.named.is_empty() {
            Unwanted::Keep
        } else {
            Unwanted::Detach
        };
        let report = self.attachments.sync_devices(&wanted, unwanted)?;
        for device in &report.attached {
            tracing::info!(device, "protected");
        }
        for device in &report.updated {
            tracing::info!(device, "programs replaced by this version's");
        }
        for device in &report.dropped {
            tracing::info!(device, "no longer protected");
        }
        for (device, reason) in &report.failed {
            tracing::error!(device, reason, "cannot be protected");
        }
        self.facts = self.facts_of(&selections);
        let mut problems = self.problems(&selections);
        problems.extend(report.failed.into_iter().map(|(device, message)| {
            let subject = device;
            SourceProblem { subject, message }
        }));
        *self.devices.report.write() = DeviceReport {
            selections,
            problems,
        };
        let addresses: BTreeSet<IpAddr> = list
            .iter()
            .flat_map(|device| &device.addresses)
            .map(|held| held.address)
            .collect();
        self.addresses = addresses.into_iter().collect();
        Ok(())
    }

    fn facts_of(&self, selections: &[Selection]) -> NodeFacts {
        let mut facts = NodeFacts::default();
        for attached in self.attachments.list() {
            if !facts.devices.contains(&attached.device) {
                facts.devices.push(attached.device);
            }
        }
        facts.devices.sort();
        let protected = |selection: &&Selection| facts.devices.contains(&selection.device.name);
        let held = selections.iter().filter(protected);
        for held in held.flat_map(|selection| &selection.device.addresses) {
            match held.address {
                _ if held.scope != Scope::Global => {}
                IpAddr::V4(ip) => facts.ipv4 = facts.ipv4.or(Some(ip)),
                IpAddr::V6(ip) => facts.ipv6 = facts.ipv6.or(Some(ip)),
            }
        }
        facts
    }

    fn problems(&self, selections: &[Selection]) -> Vec<SourceProblem> {
        let mut problems = Vec::new();
        for pattern in &self.named {
            let is_there = |selection: &Selection| pattern.matches(&selection.device.name);
            if !selections.iter().any(is_there) {
                problems.push(SourceProblem {
                    subject: pattern.to_string(),
                    message: "named by --device, but there is no such device; it is protected \
                              as soon as it appears"
                        .to_owned(),
                });
            }
        }
        if self.facts.devices.is_empty() {
            problems.push(SourceProblem {
                subject: "devices".to_owned(),
                message: "no device is protected; name one with --device".to_owned(),
            });
        }
        problems
    }

    /// Tells the pipeline what is there, then every change, until stopped.
    pub fn run(
        mut self,
        labels: BTreeMap<String, String>,
        pipeline: &Pipeline,
        board: &SourceBoard,
        clock: &dyn Clock,
        stop: &Receiver<()>,
    ) {
        if let Err(error) = self.begin(labels, pipeline, board) {
            tracing::info!("devices are watched no more: {error}");
            return;
        }
        let mut looked = clock.now();
        while stop.try_recv() != Err(TryRecvError::Disconnected) {
            let changed = self.watch.wait(LOCAL_POLL).unwrap_or_else(|error| {
                tracing::warn!("word of device changes is lost: {error}");
                true
            });
            if !changed && clock.now().since(looked) < LOCAL_RESYNC {
                continue;
            }
            looked = clock.now();
            match self.follow(pipeline) {
                Ok(()) => {}
                Err(FollowError::Stopped(error)) => {
                    tracing::info!("devices are watched no more: {error}");
                    return;
                }
                Err(FollowError::Local(error)) => tracing::error!("{error}"),
            }
        }
    }

    fn begin(
        &self,
        labels: BTreeMap<String, String>,
        pipeline: &Pipeline,
        board: &SourceBoard,
    ) -> Result<(), SubmitError> {
        ChangeSink::submit(pipeline, RepositoryChange::NodeLabels(labels))?;
        let addresses = RepositoryChange::LocalAddresses(self.addresses.clone());
        ChangeSink::submit(pipeline, addresses)?;
        pipeline.source_in_sync(SourceName::Local, &BTreeSet::new())?;
        board.post(
            SourceName::Local,
            SourceReport {
                in_sync: true,
                detail: "addresses, devices and labels of this node".to_owned(),
                ..SourceReport::default()
            },
        );
        Ok(())
    }

    fn follow(&mut self, pipeline: &Pipeline) -> Result<(), FollowError> {
        let (addresses, facts) = (self.addresses.clone(), self.facts.clone());
        self.look()?;
        if self.facts != facts {
            pipeline.set_node_facts(self.facts.clone());
        }
        if self.addresses != addresses {
            let change = RepositoryChange::LocalAddresses(self.addresses.clone());
            ChangeSink::submit(pipeline, change)?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Stopped(#[from] SubmitError),
}
