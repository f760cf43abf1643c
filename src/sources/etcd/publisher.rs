//! What this node publishes: its own key and those of its pods' addresses, and
//! the numbers that it uses, all under one lease.
//!
//! By level: now and then what should stand there is compared with what was
//! written under this lease. A lease that is gone takes all of it with it: then
//! everything is written again under a new one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::access::Doors;
use super::allocator::{Allocator, NoNumber};
use super::client::{Client, Failure};
use super::collector::Collector;
use super::heard::Heard;
use super::own;
use super::translate::Own;
use super::wire::{RangeRequest, RequestOp, TxnRequest};
use crate::clock::{Clock as _, Moment, SystemClock};
use crate::events::Revision;
use crate::limits::{ETCD_OPERATIONS_MAX, ETCD_PUBLISH};
use crate::metrics::catalogue::{KVSTORE_LEASES, SOURCE_ERRORS};
use crate::policy::PolicySnapshot;
use crate::queues::Pipeline;
use crate::sources::local::DeviceBoard;
use crate::sources::remote::Pace;

/// The lease, and what hangs on it.
#[derive(Debug)]
struct Lease {
    id: i64,
    renewed: Moment,
    /// Keys with their values; None: what stands there is not known.
    written: BTreeMap<String, Option<Vec<u8>>>,
}

/// Publishes what this node has to say.
pub(super) struct Publisher {
    own: Own,
    ttl: Duration,
    doors: Doors,
    pipeline: Arc<Pipeline>,
    devices: Arc<DeviceBoard>,
    heard: mpsc::Sender<Heard>,
    pace: Pace,
    clock: SystemClock,
    lease: Option<Lease>,
    allocator: Allocator,
    collector: Collector,
    collected: Moment,
    /// How this node's keys of numbers end.
    suffix: String,
    /// The revision and the addresses that all of it was written for.
    seen: Option<(Revision, Vec<IpAddr>)>,
    /// Who writes the node's key too.
    rival: Option<String>,
    /// What the intake was told last.
    told: Option<String>,
}

impl Publisher {
    pub(super) fn new(
        own: Own,
        ttl: Duration,
        doors: Doors,
        (pipeline, devices): (Arc<Pipeline>, Arc<DeviceBoard>),
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        let clock = SystemClock::default();
        Self {
            pace: Pace::new((&own.node, "publisher")),
            collected: clock.now(),
            clock,
            own,
            ttl,
            doors,
            pipeline,
            devices,
            heard,
            lease: None,
            allocator: Allocator::default(),
            collector: Collector::default(),
            suffix: String::new(),
            seen: None,
            rival: None,
            told: None,
        }
    }

    /// Until nobody listens. What cannot be written is tried again.
    pub(super) async fn run(mut self) {
        loop {
            let outcome = self.publish().await;
            let message = match &outcome {
                Ok(message) => message.clone(),
                Err(failure) => Some(failure.to_string()),
            };
            if message != self.told {
                self.told.clone_from(&message);
                if self.heard.send(Heard::Published(message)).await.is_err() {
                    return;
                }
            }
            if outcome.is_ok() {
                self.pace.reset();
                sleep(ETCD_PUBLISH / 2 + self.pace.spread(ETCD_PUBLISH / 2)).await;
            } else {
                counter!(SOURCE_ERRORS, "source" => "etcd", "kind" => "own").increment(1);
                sleep(self.pace.failed()).await;
            }
        }
    }

    async fn publish(&mut self) -> Result<Option<String>, Failure> {
        let door = self.doors.open().await?;
        let outcome = self.publish_through(&door.client).await;
        if outcome.is_err() {
            self.doors.close(&door).await;
        }
        outcome
    }

    /// What is wrong, though etcd answers; None: nothing.
    async fn publish_through(&mut self, client: &Client) -> Result<Option<String>, Failure> {
        self.renew(client).await?;
        let Some(lease) = self.lease.as_ref().map(|lease| lease.id) else {
            return Ok(None);
        };
        let snapshot = self.pipeline.repository();
        let addresses = own::addresses(&self.devices.report());
        let view = (snapshot.revision, addresses);
        let mut problem = self.rival.clone();
        if self.seen.as_ref() != Some(&view) {
            let (_, addresses) = &view;
            self.rename(client, addresses).await?;
            let unnumbered = self.tell(client, lease, &snapshot, addresses).await?;
            self.seen = unnumbered.is_none().then_some(view);
            problem = problem.or(unnumbered);
        }
        self.collect(client, lease).await?;
        Ok(problem)
    }

    /// The keys of numbers end as the node is called; under another name they
    /// are others, and the old ones go.
    async fn rename(&mut self, client: &Client, addresses: &[IpAddr]) -> Result<(), Failure> {
        let suffix = own::suffix(&self.own, addresses);
        if suffix == self.suffix {
            return Ok(());
        }
        let labels: Vec<String> = self.allocator.used().keys().cloned().collect();
        for labels in labels {
            self.allocator
                .release(client, &self.suffix, &labels)
                .await?;
        }
        self.suffix = suffix;
        Ok(())
    }

    /// Numbers first, then the keys that name them; at last the numbers that no
    /// key names any more go. Why some labels have no number, if so.
    async fn tell(
        &mut self,
        client: &Client,
        lease: i64,
        snapshot: &PolicySnapshot,
        addresses: &[IpAddr],
    ) -> Result<Option<String>, Failure> {
        let mut problem = None;
        let wanted = own::labels(&self.own, snapshot);
        for labels in &wanted {
            let node = (self.suffix.as_str(), lease);
            match self.allocator.acquire(client, node, labels).await {
                Ok(_) => {}
                Err(NoNumber::Failed(failure)) => return Err(failure),
                Err(error) => problem = Some(format!("no number for {labels} {error}")),
            }
        }
        let keys = own::keys(&self.own, snapshot, addresses, self.allocator.used());
        self.write(client, keys).await?;
        let used = self.allocator.used().keys();
        let unwanted: Vec<String> = used
            .filter(|labels| !wanted.contains(*labels))
            .cloned()
            .collect();
        for labels in unwanted {
            self.allocator
                .release(client, &self.suffix, &labels)
                .await?;
        }
        Ok(problem)
    }

    /// Has a lease that lives.
    async fn renew(&mut self, client: &Client) -> Result<(), Failure> {
        let now = self.clock.now();
        if let Some(lease) = &mut self.lease {
            if now.since(lease.renewed) < self.ttl / 3 {
                return Ok(());
            }
            if client.keep_alive(lease.id).await? {
                lease.renewed = now;
                let Some(rival) = self.foreign(client).await? else {
                    self.rival = None;
                    return Ok(());
                };
                // All is written again: by this node now, by the other one later.
                self.rival = rival;
                self.seen = None;
                if let Some(lease) = &mut self.lease {
                    lease.written.values_mut().for_each(|value| *value = None);
                }
                return Ok(());
            }
            tracing::info!("etcd: the lease of this node was gone; all is published again");
            counter!(KVSTORE_LEASES, "outcome" => "lost").increment(1);
            self.lease = None;
            self.seen = None;
            self.allocator.lost();
        }
        let id = client.grant(self.ttl).await?;
        counter!(KVSTORE_LEASES, "outcome" => "granted").increment(1);
        self.lease = Some(Lease {
            id,
            renewed: now,
            written: BTreeMap::new(),
        });
        Ok(())
    }

    /// Whether the node's key is not as written; with the rival, if there is one.
    async fn foreign(&self, client: &Client) -> Result<Option<Option<String>>, Failure> {
        let key = super::keys::node(&self.own.cluster, &self.own.node);
        let Some(lease) = self
            .lease
            .as_ref()
            .filter(|it| it.written.contains_key(&key))
        else {
            return Ok(None);
        };
        let found = client.range(RangeRequest::one(&key)).await?;
        Ok(match found.kvs.first() {
            Some(pair) if pair.lease == lease.id => None,
            Some(_) => Some(Some(format!(
                "{key}: somebody else writes it too; give each node a --node-name of its own"
            ))),
            None => Some(None),
        })
    }

    /// Makes the keys what they shall be.
    async fn write(
        &mut self,
        client: &Client,
        keys: BTreeMap<String, Vec<u8>>,
    ) -> Result<(), Failure> {
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        let is_as_wanted = |key: &String, value: &Vec<u8>| {
            let written = lease.written.get(key).and_then(Option::as_ref);
            written == Some(value)
        };
        let puts = keys.iter().filter(|(key, value)| !is_as_wanted(key, value));
        let mut changes: Vec<(String, Option<Vec<u8>>)> = puts
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .collect();
        let gone = lease.written.keys().filter(|key| !keys.contains_key(*key));
        changes.extend(gone.map(|key| (key.clone(), None)));
        for some in changes.chunks(ETCD_OPERATIONS_MAX) {
            let mut transaction = TxnRequest::default();
            for (key, value) in some {
                // Without an answer it may stand there or not.
                lease.written.insert(key.clone(), None);
                transaction.success.push(match value {
                    Some(value) => RequestOp::put(key, value.clone(), lease.id),
                    None => RequestOp::delete(key),
                });
            }
            client.transact(transaction).await?;
            for (key, value) in some {
                match value {
                    Some(_) => lease.written.insert(key.clone(), value.clone()),
                    None => lease.written.remove(key),
                };
            }
        }
        Ok(())
    }

    /// A round of the collector, each lease's time.
    async fn collect(&mut self, client: &Client, lease: i64) -> Result<(), Failure> {
        let now = self.clock.now();
        if now.since(self.collected) < self.ttl {
            return Ok(());
        }
        self.collected = now;
        self.allocator.mend(client).await?;
        let collected = self.collector.round(client, &self.suffix, lease).await?;
        if collected > 0 {
            tracing::info!(collected, "numbers that no node used are free again");
        }
        // Others may have collected some.
        self.allocator.forget_masters();
        Ok(())
    }
}
