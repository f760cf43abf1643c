//! What this node publishes: its own key and those of its pods' addresses, and
//! the numbers that it uses, all under one lease.
//!
//! By level: now and then what should stand there is compared with what was
//! written under this lease. A lease that is gone takes all of it with it: then
//! everything is written again under a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::access::Doors;
use super::allocator::{Allocator, NoNumber};
use super::client::{Client, Failure};
use super::collector::Collector;
use super::heard::Heard;
use super::keys::ADDRESSES;
use super::own::{self, Word};
use super::translate::Own;
use super::wire::{Compare, RangeRequest, RequestOp, TxnRequest};
use crate::catalogue::{KVSTORE_LEASES, SOURCE_ERRORS};
use crate::clock::{Clock as _, Moment, SystemClock};
use crate::events::Revision;
use crate::limits::{ETCD_OPERATIONS_MAX, ETCD_PUBLISH};
use crate::policy::PolicySnapshot;
use crate::queues::Pipeline;
use crate::sources::local::DeviceBoard;
use crate::sources::remote::Pace;

/// The lease, and what hangs on it.
#[derive(Debug)]
struct Lease {
    id: i64,
    /// When it was renewed last; None: something spoke against it since.
    renewed: Option<Moment>,
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
    /// Another node has this one's address too.
    shares_address: bool,
    /// The feed found another store: nothing of it is known to stand there.
    replaced: Arc<AtomicBool>,
    /// What an earlier life of this node published, and this one does not, is gone.
    has_tidied: bool,
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
        (heard, replaced): (mpsc::Sender<Heard>, Arc<AtomicBool>),
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
            shares_address: false,
            replaced,
            has_tidied: false,
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
            self.doubt();
        }
        outcome
    }

    /// The lease is asked for before anything else is done.
    fn doubt(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.renewed = None;
        }
    }

    /// What is wrong, though etcd answers; None: nothing.
    async fn publish_through(&mut self, client: &Client) -> Result<Option<String>, Failure> {
        if self.replaced.swap(false, Ordering::Relaxed) {
            self.doubt();
        }
        self.renew(client).await?;
        let Some(lease) = self.lease.as_ref().map(|lease| lease.id) else {
            return Ok(None);
        };
        // In this order: what follows is of a time when all was told.
        let is_whole = self.pipeline.status().waiting_for.is_empty();
        let snapshot = self.pipeline.repository();
        let addresses = own::addresses(&self.devices.report());
        let view = (snapshot.revision, addresses);
        let mut problem = self.rival.clone();
        if self.seen.as_ref() != Some(&view) {
            let (_, addresses) = &view;
            self.rename(client, lease, addresses).await?;
            let unnumbered = self.tell(client, lease, &snapshot, addresses).await?;
            self.seen = unnumbered.is_none().then_some(view);
            problem = problem.or(unnumbered);
        }
        // Without an address of its own it publishes nothing, for now.
        let is_told = is_whole && self.seen.as_ref().is_some_and(|(_, own)| !own.is_empty());
        if is_told && !self.has_tidied {
            self.tidy(client).await?;
            self.has_tidied = true;
        }
        self.collect(client, lease).await?;
        Ok(problem)
    }

    /// The keys of numbers end as the node is called; under another name they
    /// are others, and the old ones go.
    async fn rename(
        &mut self,
        client: &Client,
        lease: i64,
        addresses: &[IpAddr],
    ) -> Result<(), Failure> {
        let suffix = own::suffix(&self.own, addresses, self.shares_address);
        if suffix != self.suffix {
            let names = (&*self.suffix, &*suffix);
            self.allocator.rename(client, names, lease).await?;
            self.suffix = suffix;
        }
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
        let pods = own::pods(&self.own, snapshot);
        let wanted: BTreeSet<String> = pods.iter().map(|pod| pod.labels.clone()).collect();
        for labels in &wanted {
            let node = (self.suffix.as_str(), lease);
            match self.allocator.acquire(client, node, labels).await {
                Ok(_) => {}
                Err(NoNumber::Failed(failure)) => return Err(failure),
                Err(error) => problem = Some(format!("no number for {labels} {error}")),
            }
        }
        let numbers = self.allocator.used();
        let keys = own::keys(&self.own, snapshot, (addresses, &pods), numbers);
        if !self.write(client, keys).await? {
            self.verify(client).await?;
            return Ok(Some("its numbers are acquired again".to_owned()));
        }
        let used = self.allocator.used().keys();
        let unwanted: Vec<String> = used
            .filter(|labels| !wanted.contains(*labels))
            .cloned()
            .collect();
        for labels in unwanted {
            let node = (self.suffix.as_str(), lease);
            self.allocator.release(client, node, &labels).await?;
        }
        Ok(problem)
    }

    /// Deletes the addresses that this node published before it was restarted and
    /// publishes no more: their pods went meanwhile, and the lease they hang on may
    /// have long to go.
    async fn tidy(&self, client: &Client) -> Result<(), Failure> {
        let Some(lease) = &self.lease else {
            return Ok(());
        };
        let found = client.range(RangeRequest::prefix(ADDRESSES)).await?;
        for pair in found.kvs.iter().filter(|pair| pair.lease != lease.id) {
            let Ok(key) = std::str::from_utf8(&pair.key) else {
                continue;
            };
            if lease.written.contains_key(key) || !self.own.has_written(&pair.value) {
                continue;
            }
            let transaction = TxnRequest {
                compare: vec![Compare::unchanged(key, pair.mod_revision)],
                success: vec![RequestOp::delete(key)],
                failure: Vec::new(),
            };
            client.transact(transaction).await?;
            tracing::info!(key, "an address of an earlier life of this node is gone");
        }
        Ok(())
    }

    /// Has a lease that lives.
    async fn renew(&mut self, client: &Client) -> Result<(), Failure> {
        let now = self.clock.now();
        if let Some(lease) = &mut self.lease {
            let is_fresh = |renewed: Moment| now.since(renewed) < self.ttl / 3;
            if lease.renewed.is_some_and(is_fresh) {
                return Ok(());
            }
            if client.keep_alive(lease.id).await? {
                lease.renewed = Some(now);
                self.rival = self.foreign(client).await?;
                return self.verify(client).await;
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
            renewed: Some(now),
            written: BTreeMap::new(),
        });
        Ok(())
    }

    /// Who else writes the node's key.
    async fn foreign(&self, client: &Client) -> Result<Option<String>, Failure> {
        let key = super::keys::node(&self.own.cluster, &self.own.node);
        let lease = self.lease.as_ref();
        let Some(lease) = lease.filter(|it| it.written.contains_key(&key)) else {
            return Ok(None);
        };
        let found = client.range(RangeRequest::one(&key)).await?;
        let rival = found.kvs.first().filter(|pair| pair.lease != lease.id);
        Ok(rival.map(|_| {
            format!("{key}: somebody else writes it too; give each node a --node-name of its own")
        }))
    }

    /// Looks whether all that was written stands there and all numbers are held: a
    /// store that was set back may know the lease, and not what came after it.
    /// What is not as it was written is written again, numbers first.
    async fn verify(&mut self, client: &Client) -> Result<(), Failure> {
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        let node = (&*self.suffix, lease.id);
        let verified = self.allocator.verify(client, node).await?;
        self.shares_address |= verified.has_rival;
        let mut stands = !verified.has_lost;
        let written: Vec<String> = lease.written.keys().cloned().collect();
        // Two comparisons each.
        for some in written.chunks(ETCD_OPERATIONS_MAX) {
            let mut transaction = TxnRequest::default();
            for key in some {
                let value = lease.written.get(key).cloned().flatten();
                transaction.compare.push(Compare::lease(key, lease.id));
                let value = value.map(|value| Compare::value(key, value));
                transaction.compare.extend(value);
            }
            if client.transact(transaction).await?.succeeded {
                continue;
            }
            stands = false;
            for key in some {
                lease.written.insert(key.clone(), None);
            }
        }
        if !stands {
            self.seen = None;
        }
        Ok(())
    }

    /// Makes the keys what they shall be. False: a number that one of them names is
    /// not held any more, and it was not written.
    async fn write(
        &mut self,
        client: &Client,
        keys: BTreeMap<String, Word>,
    ) -> Result<bool, Failure> {
        let Some(lease) = &mut self.lease else {
            return Ok(true);
        };
        let node = (&*self.suffix, lease.id);
        for some in changes(&lease.written, keys).chunks(ETCD_OPERATIONS_MAX) {
            let mut transaction = TxnRequest::default();
            let mut named = BTreeSet::new();
            for (key, word) in some {
                // Without an answer it may stand there or not.
                lease.written.insert(key.clone(), None);
                transaction.success.push(match word {
                    Some(word) => RequestOp::put(key, word.value.clone(), lease.id),
                    None => RequestOp::delete(key),
                });
                named.extend(word.as_ref().and_then(|word| word.labels.as_deref()));
            }
            let fences = named.iter().filter_map(|it| self.allocator.fence(node, it));
            transaction.compare = fences.flatten().collect();
            if !client.transact(transaction).await?.succeeded {
                return Ok(false);
            }
            for (key, word) in some {
                match word {
                    Some(word) => lease.written.insert(key.clone(), Some(word.value.clone())),
                    None => lease.written.remove(key),
                };
            }
        }
        Ok(true)
    }

    /// A round of the collector, each lease's time.
    async fn collect(&mut self, client: &Client, lease: i64) -> Result<(), Failure> {
        let now = self.clock.now();
        if now.since(self.collected) < self.ttl {
            return Ok(());
        }
        self.collected = now;
        let collected = self.collector.round(client, &self.suffix, lease).await?;
        if collected > 0 {
            tracing::info!(collected, "numbers that no node used are free again");
        }
        // Others may have collected some.
        self.allocator.forget_masters();
        Ok(())
    }
}

/// From what was written to what shall stand there; None: nothing.
fn changes(
    written: &BTreeMap<String, Option<Vec<u8>>>,
    keys: BTreeMap<String, Word>,
) -> Vec<(String, Option<Word>)> {
    let gone = written.keys().filter(|key| !keys.contains_key(*key));
    let gone: Vec<(String, Option<Word>)> = gone.map(|key| (key.clone(), None)).collect();
    let is_new = |key: &String, word: &Word| {
        let stands = written.get(key).and_then(Option::as_ref);
        stands != Some(&word.value)
    };
    let new = keys.into_iter().filter(|(key, word)| is_new(key, word));
    let new = new.map(|(key, word)| (key, Some(word)));
    gone.into_iter().chain(new).collect()
}
