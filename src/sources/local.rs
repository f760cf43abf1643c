//! What the node itself says: its devices, its addresses, its labels.
//!
//! Owner: thread `local`. It protects devices as they come and go, and tells
//! the pipeline the node's addresses. By level: word of a change makes it read
//! everything again, and so does time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

pub use super::device_board::{DeviceBoard, DeviceReport, Gaps};
use super::{ChangeSink, SourceBoard, SourceProblem, SourceReport};
use crate::clock::{Clock, Moment};
use crate::datapath::DatapathError;
use crate::datapath::devices::{self, DevicePattern, DeviceWatch, Scope, Selection};
use crate::datapath::kernel::{Attached, Attachments, Unwanted};
use crate::endpoint::NodeFacts;
use crate::events::{RepositoryChange, SourceName};
use crate::limits::{DEVICE_RETRY, LOCAL_POLL, LOCAL_RESYNC};
use crate::policy::Direction;
use crate::queues::{Pipeline, SubmitError};

/// Why devices could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("devices: {0}")]
    Netlink(#[from] io::Error),
    #[error("devices: {0}")]
    Datapath(#[from] DatapathError),
}

/// Watches devices and addresses.
pub struct LocalSource {
    clock: Arc<dyn Clock>,
    watch: DeviceWatch,
    named: Vec<DevicePattern>,
    attachments: Attachments,
    devices: Arc<DeviceBoard>,
    addresses: Vec<IpAddr>,
    facts: NodeFacts,
    /// When the list of devices was read last.
    listed: Moment,
    unprotected: BTreeMap<u32, Moment>,
    gaps: Gaps,
}

impl std::fmt::Debug for LocalSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSource")
            .field("named", &self.named)
            .field("unprotected", &self.unprotected)
            .finish_non_exhaustive()
    }
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
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LocalError> {
        let started = clock.now();
        let mut source = Self {
            watch: if named.is_empty() {
                DeviceWatch::open_with_routes()?
            } else {
                DeviceWatch::open()?
            },
            clock,
            named: named.iter().map(|name| DevicePattern::new(name)).collect(),
            attachments,
            devices,
            addresses: Vec::new(),
            facts: NodeFacts::default(),
            listed: started,
            unprotected: BTreeMap::new(),
            gaps: Gaps::default(),
        };
        source.look(started)?;
        Ok(source)
    }

    /// Addresses and protected devices as of the last look.
    #[must_use]
    pub fn facts(&self) -> NodeFacts {
        self.facts.clone()
    }

    /// Reads everything, and protects what is to be protected. `since`: what is
    /// new came then.
    fn look(&mut self, since: Moment) -> Result<(), LocalError> {
        self.listed = self.clock.now();
        let list = devices::list()?;
        let selections = devices::select(&list, &self.named);
        let wanted: Vec<_> = selections.iter().filter_map(Selection::wanted).collect();
        let is_wanted = |ifindex: &u32| wanted.iter().any(|device| device.ifindex == *ifindex);
        self.unprotected.retain(|ifindex, _| is_wanted(ifindex));
        let protected = self.protected();
        for device in &wanted {
            if !protected.contains(&device.ifindex) {
                self.unprotected.entry(device.ifindex).or_insert(since);
            }
        }
        let unwanted = if self.named.is_empty() {
            Unwanted::Keep
        } else {
            Unwanted::Detach
        };
        let report = self.attachments.sync_devices(&wanted, unwanted)?;
        self.close_gaps(&selections);
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
            unprotected: self.unprotected.clone(),
            blind_since: None,
            gaps: self.gaps.clone(),
        };
        let addresses: BTreeSet<IpAddr> = list
            .iter()
            .flat_map(|device| &device.addresses)
            .map(|held| held.address)
            .collect();
        self.addresses = addresses.into_iter().collect();
        Ok(())
    }

    /// Devices with our program in both directions.
    fn protected(&self) -> BTreeSet<u32> {
        let attached = self.attachments.list();
        let both = attached.iter().filter(|one| {
            let other = |it: &&Attached| it.ifindex == one.ifindex;
            attached.iter().filter(other).count() == Direction::BOTH.len()
        });
        both.map(|attached| attached.ifindex).collect()
    }

    fn close_gaps(&mut self, selections: &[Selection]) {
        let (now, protected) = (self.clock.now(), self.protected());
        for selection in selections {
            let device = &selection.device;
            if protected.contains(&device.ifindex)
                && let Some(since) = self.unprotected.remove(&device.ifindex)
            {
                self.gaps.closed(&device.name, now.since(since));
            }
        }
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
        stop: &Receiver<()>,
    ) {
        if let Err(error) = self.begin(labels, pipeline, board) {
            tracing::info!("devices are watched no more: {error}");
            return;
        }
        while stop.try_recv() != Err(TryRecvError::Disconnected) {
            let Some(since) = self.next_look() else {
                continue;
            };
            match self.follow(since, pipeline) {
                Ok(()) => {}
                Err(FollowError::Stopped(error)) => {
                    tracing::info!("devices are watched no more: {error}");
                    return;
                }
                Err(FollowError::Local(error)) => {
                    tracing::error!("{error}");
                    self.blind(&error);
                }
            }
        }
    }

    /// The next look tells it all again.
    fn blind(&self, error: &LocalError) {
        let mut report = self.devices.report.write();
        report.blind_since.get_or_insert(self.listed);
        report.problems = vec![SourceProblem {
            subject: "devices".to_owned(),
            message: format!("cannot be looked at, which is tried again every second: {error}"),
        }];
    }

    /// Waits for a reason to look; since when there is one. What came while the
    /// last look went on came right after its list was read, for all we know.
    fn next_look(&mut self) -> Option<Moment> {
        let mut wait = |span| {
            self.watch.wait(span).unwrap_or_else(|error| {
                tracing::warn!("word of device changes is lost: {error}");
                true
            })
        };
        if wait(Duration::ZERO) {
            return Some(self.listed);
        }
        let changed = wait(LOCAL_POLL);
        let now = self.clock.now();
        let is_blind = self.devices.report.read().blind_since.is_some();
        let rest = if self.unprotected.is_empty() && !is_blind {
            LOCAL_RESYNC
        } else {
            DEVICE_RETRY
        };
        (changed || now.since(self.listed) >= rest).then_some(now)
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

    fn follow(&mut self, since: Moment, pipeline: &Pipeline) -> Result<(), FollowError> {
        let (addresses, facts) = (self.addresses.clone(), self.facts.clone());
        self.look(since)?;
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
