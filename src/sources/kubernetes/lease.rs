//! The lease of the one agent that counts for all: the usual object of
//! Kubernetes, taken by whoever finds it free, renewed while it is held.
//!
//! No clocks are compared: a lease is free when it has not changed for its span
//! of the looker's own time. Thousands look at it, so they look seldom.

use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

use super::event::timestamp;
use super::feed::{Failure, answered};
use crate::clock::{Clock, Moment, SystemClock};

const NAME: &str = "palisade-status";

/// One agent's view of the lease.
#[derive(Debug)]
pub(super) struct Lease {
    /// Who we are.
    pub(super) holder: String,
    /// How long it stays ours without a word from us.
    pub(super) span: Duration,
    /// One for all moments: another one begins to count anew.
    pub(super) clock: SystemClock,
    /// When it was taken or renewed last: the moment before the server was asked.
    pub(super) renewed: Option<Moment>,
    /// The version that was seen last, since when.
    pub(super) seen: Option<(String, Moment)>,
}

/// What to do with a lease that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Ours,
    /// Nobody renewed it for its span.
    Free,
    Others,
}

impl Lease {
    /// Takes or renews it. Whether it is ours now.
    pub(super) async fn take(&mut self, client: &Client) -> Result<bool, Failure> {
        let now = self.clock.now();
        self.renewed = None;
        let is_ours = self.ask(client).await?;
        self.renewed = is_ours.then_some(now);
        Ok(is_ours)
    }

    /// Whether nobody else can have taken it yet: a process that was stopped for
    /// a while must not go on as if nothing had happened.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh_at(self.clock.now())
    }

    fn is_fresh_at(&self, now: Moment) -> bool {
        self.renewed
            .is_some_and(|renewed| now.since(renewed) < self.span / 2)
    }

    async fn ask(&mut self, client: &Client) -> Result<bool, Failure> {
        let namespace = client.default_namespace();
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        let leases = Request::new(path);
        let read = leases.get(NAME, &GetParams::default())?;
        let outcome = match answered(client.request::<Value>(read)).await {
            Err(failure) if failure.code() == Some(404) => {
                let lease = self.body(&json!({"metadata": {"name": NAME}}));
                let body = bytes(&lease)?;
                let create = leases.create(&PostParams::default(), body)?;
                answered(client.request::<Value>(create)).await
            }
            Ok(lease) => {
                let now = self.clock.now();
                if self.look(&lease, now) == Look::Others {
                    return Ok(false);
                }
                let body = bytes(&self.body(&lease))?;
                let update = leases.replace(NAME, &PostParams::default(), body)?;
                answered(client.request::<Value>(update)).await
            }
            Err(failure) => return Err(failure),
        };
        match outcome {
            Ok(_) => Ok(true),
            // Another one was faster.
            Err(failure) if failure.code() == Some(409) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn look(&mut self, lease: &Value, now: Moment) -> Look {
        let spec = &lease["spec"];
        match spec["holderIdentity"].as_str() {
            Some(holder) if holder == self.holder => return Look::Ours,
            None | Some("") => return Look::Free,
            Some(_) => {}
        }
        let version = lease["metadata"]["resourceVersion"].as_str();
        let version = version.unwrap_or_default();
        let span = spec["leaseDurationSeconds"].as_u64();
        let span = span.map_or(self.span, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if seen == version => {
                if now.since(*since) > span {
                    return Look::Free;
                }
            }
            _ => self.seen = Some((version.to_owned(), now)),
        }
        Look::Others
    }

    /// The lease as ours, of the version that was read: the server refuses it
    /// when that is not the newest any more.
    fn body(&self, lease: &Value) -> Value {
        let wall_ms = self.clock.wall_ms();
        let date = timestamp(wall_ms).replace('Z', ".000000Z");
        let spec = &lease["spec"];
        let is_ours = spec["holderIdentity"] == self.holder.as_str();
        let transitions = spec["leaseTransitions"].as_u64().unwrap_or(0);
        let acquired = if is_ours {
            spec["acquireTime"].clone()
        } else {
            json!(date)
        };
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": lease["metadata"],
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": self.span.as_secs(),
                "acquireTime": acquired,
                "renewTime": date,
                "leaseTransitions": transitions + u64::from(!is_ours),
            },
        })
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: u32) -> Value {
        json!({"metadata": {"name": NAME, "resourceVersion": version.to_string()},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 300}})
    }

    #[test]
    fn a_lease_is_free_when_it_has_not_changed_for_its_span() {
        let mut ours = Lease {
            holder: "a".to_owned(),
            span: Duration::from_secs(300),
            clock: SystemClock::default(),
            renewed: None,
            seen: None,
        };
        let start = SystemClock::default().now();
        let after = |seconds| start.after(Duration::from_secs(seconds));
        assert_eq!(ours.look(&lease("a", 1), start), Look::Ours);
        assert_eq!(ours.look(&lease("", 1), start), Look::Free);
        assert_eq!(ours.look(&lease("b", 1), start), Look::Others);
        assert_eq!(ours.look(&lease("b", 1), after(299)), Look::Others);
        assert_eq!(
            ours.look(&lease("b", 2), after(301)),
            Look::Others,
            "renewed"
        );
        assert_eq!(ours.look(&lease("b", 2), after(600)), Look::Others);
        assert_eq!(ours.look(&lease("b", 2), after(602)), Look::Free);
        assert!(!ours.is_fresh_at(start), "it was never ours");
        ours.renewed = Some(start);
        assert!(ours.is_fresh_at(after(149)));
        assert!(
            !ours.is_fresh_at(after(150)),
            "it is renewed before anything else"
        );
    }

    #[test]
    fn who_takes_it_says_so_in_the_version_that_was_read() {
        let ours = Lease {
            holder: "a".to_owned(),
            span: Duration::from_secs(300),
            clock: SystemClock::default(),
            renewed: None,
            seen: None,
        };
        let taken = ours.body(&lease("b", 7));
        assert_eq!(taken["metadata"]["resourceVersion"], "7");
        assert_eq!(taken["spec"]["holderIdentity"], "a");
        assert_eq!(taken["spec"]["leaseTransitions"], 1);
        let renewed = ours.body(&taken);
        assert_eq!(renewed["spec"]["leaseTransitions"], 1);
        assert_eq!(renewed["spec"]["acquireTime"], taken["spec"]["acquireTime"]);
    }
}
