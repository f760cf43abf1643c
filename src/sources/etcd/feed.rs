//! List and watch of everything under one prefix: all of it at one revision,
//! then every change after it, in etcd's order, on one watch.
//!
//! What failed decides how it goes on: a watch that broke is taken up after the
//! revision that was heard last; a compacted revision, another cluster under the
//! same address or one that was set back are listed anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::counter;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::access::{Door, Doors};
use super::client::Failure;
use super::heard::{Entry, Heard};
use super::keys::{LISTED, Name, STATE};
use super::wire::{
    DELETE, KeyValue, RangeRequest, RangeResponse, ResponseHeader, WatchCreateRequest,
    WatchResponse, end_of,
};
use crate::catalogue::{SOURCE_ERRORS, SOURCE_EVENTS, SOURCE_RESYNCS};
use crate::limits::ETCD_PAGE_MAX;
use crate::sources::remote::Pace;

/// What a feed does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    List,
    /// After the newest revision that was heard.
    Follow,
}

/// The feed.
pub(super) struct Feed {
    pub(super) doors: Doors,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) pace: Pace,
    /// All of it is needed again.
    pub(super) relist: Arc<Notify>,
    /// The newest revision that was heard, and whose.
    pub(super) revision: i64,
    pub(super) cluster: u64,
    /// A key that stays, with the revision of its value: a store that was set back
    /// or made anew may bear the same name, and have come as far by now.
    pub(super) witness: Option<(String, i64)>,
    /// For the publisher: the store is another one.
    pub(super) replaced: Arc<AtomicBool>,
}

impl Feed {
    /// Goes on until nobody listens.
    pub(super) async fn run(mut self) {
        let mut phase = Phase::List;
        while let Some(next) = self.step(phase).await {
            phase = next;
        }
    }

    async fn step(&mut self, phase: Phase) -> Option<Phase> {
        let door = match self.doors.open().await {
            Ok(door) => door,
            Err(failure) => return self.recover(failure, phase).await,
        };
        let outcome = match phase {
            Phase::List => self.list(&door).await,
            Phase::Follow => self.follow(&door).await,
        };
        match outcome {
            Ok(next) => Some(next),
            Err(Failure::Compacted) => {
                resync("expired");
                Some(Phase::List)
            }
            Err(failure) => {
                self.doors.close(&door).await;
                self.recover(failure, phase).await
            }
        }
    }

    /// Tells of the failure and waits.
    async fn recover(&mut self, failure: Failure, phase: Phase) -> Option<Phase> {
        if failure == Failure::Closed {
            return None;
        }
        counter!(SOURCE_ERRORS, "source" => "etcd", "kind" => "any").increment(1);
        let told = self.tell(Heard::Trouble(failure.to_string())).await;
        told.ok()?;
        sleep(self.pace.failed()).await;
        Some(phase)
    }

    async fn tell(&self, heard: Heard) -> Result<(), Failure> {
        let sent = self.heard.send(heard).await;
        sent.map_err(|_closed| Failure::Closed)
    }

    /// Everything, as of one revision.
    async fn list(&mut self, door: &Door) -> Result<Phase, Failure> {
        self.tell(Heard::Begins).await?;
        self.witness = None;
        let mut header: Option<ResponseHeader> = None;
        for prefix in LISTED {
            let mut request = RangeRequest::prefix(prefix);
            request.limit = ETCD_PAGE_MAX;
            loop {
                request.revision = header.as_ref().map_or(0, |it| it.revision);
                let page = door.client.range(request.clone()).await?;
                header = header.or(page.header);
                if let Some(last) = page.kvs.last() {
                    request.key = after(&last.key);
                }
                for pair in page.kvs {
                    self.entry(pair).await?;
                }
                if !page.more {
                    break;
                }
            }
        }
        let header = header.unwrap_or_default();
        (self.revision, self.cluster) = (header.revision, header.cluster_id);
        self.tell(Heard::Whole).await?;
        Ok(Phase::Follow)
    }

    async fn entry(&mut self, pair: KeyValue) -> Result<(), Failure> {
        let key = text(&pair.key);
        let value = pair.value;
        if pair.lease == 0 {
            self.witness = Some((key.clone(), pair.mod_revision));
        }
        count(&key, "object");
        self.tell(Heard::Entry(Entry { key, value })).await
    }

    /// Changes after the newest revision, until the watch ends.
    async fn follow(&mut self, door: &Door) -> Result<Phase, Failure> {
        if !self.is_same_store(door).await? {
            // A watch from the future would be silent for ever.
            resync("replaced");
            self.replaced.store(true, Ordering::Relaxed);
            return Ok(Phase::List);
        }
        let create = WatchCreateRequest {
            key: STATE.into(),
            range_end: end_of(STATE),
            start_revision: self.revision + 1,
            progress_notify: true,
        };
        let mut answers = door.client.watch(create).await?;
        loop {
            let answer = tokio::select! {
                () = self.relist.notified() => return Ok(Phase::List),
                answer = answers.message() => answer?,
            };
            let Some(answer) = answer else {
                return Err(Failure::Unreachable(
                    "the server ended the watch".to_owned(),
                ));
            };
            self.note(answer).await?;
        }
    }

    /// Whether the store is the one that was listed, and not behind it.
    async fn is_same_store(&self, door: &Door) -> Result<bool, Failure> {
        let (key, since) = self.witness.clone().unwrap_or((STATE.to_owned(), 0));
        let mut request = RangeRequest::one(&key);
        let mut found = door.client.range(request.clone()).await?;
        let header = found.header.take().unwrap_or_default();
        if header.cluster_id != self.cluster || header.revision < self.revision {
            return Ok(false);
        }
        let speaks = |found: &RangeResponse| {
            let known = found.kvs.first().map_or(0, |pair| pair.mod_revision);
            known == since
        };
        if speaks(&found) {
            return Ok(true);
        }
        // It has changed meanwhile, or was never there: the past knows.
        request.revision = since;
        Ok(speaks(&door.client.range(request).await?))
    }

    async fn note(&mut self, answer: WatchResponse) -> Result<(), Failure> {
        if answer.compact_revision > 0 {
            return Err(Failure::Compacted);
        }
        if answer.canceled {
            let reason = answer.cancel_reason;
            return Err(if reason.contains("compacted") {
                Failure::Compacted
            } else {
                Failure::Refused(format!("the watch is cancelled: {reason}"))
            });
        }
        if answer.created {
            self.pace.reset();
            return self.tell(Heard::Follows).await;
        }
        for event in answer.events {
            let Some(pair) = event.kv else { continue };
            if event.r#type != DELETE {
                self.entry(pair).await?;
            } else {
                let key = text(&pair.key);
                count(&key, "gone");
                if self.witness.as_ref().is_some_and(|(it, _)| *it == key) {
                    self.witness = None;
                }
                self.tell(Heard::Gone(key)).await?;
            }
        }
        // With or without events: all before it was told.
        let header = answer.header.unwrap_or_default();
        self.revision = self.revision.max(header.revision);
        Ok(())
    }
}

/// A key that is no text is told as one that cannot be right.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The key that follows.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn resync(reason: &'static str) {
    tracing::info!(reason, "etcd is listed again");
    counter!(SOURCE_RESYNCS, "source" => "etcd", "kind" => "any", "reason" => reason).increment(1);
}

fn count(key: &str, event: &'static str) {
    let Some(name) = Name::of(key) else { return };
    let kind = name.map_or("any", |name| name.kind().as_str());
    counter!(SOURCE_EVENTS, "source" => "etcd", "kind" => kind, "event" => event).increment(1);
}
