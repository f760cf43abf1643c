//! What the node tells the cluster: one object of its own with the state of each
//! policy, and an Event for each refused version.
//!
//! Thousands of nodes must not write to one policy: so each node writes to an
//! object that nobody else writes to, when something in it has changed, and not
//! before a wait that differs from node to node. The name of an Event follows
//! from the policy and the reasons, so all nodes together make one.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::access::Doors;
use super::feed::{Failure, answered};
use super::kinds::WATCHED;
use super::pace::Pace;
use crate::clock::{Clock, SystemClock};
use crate::endpoint::{EndpointStatus, Enforcement, HOST_ENDPOINT};
use crate::events::{ResourceKey, SourceName};
use crate::limits::{KUBERNETES_ABSENT_POLL, KUBERNETES_REPORT, KUBERNETES_REPORT_POLICIES_MAX};
use crate::policy::{PolicySnapshot, Refusal};
use crate::queues::Pipeline;

const NODES: &str = "/apis/palisade.io/v1alpha1/palisadenodes";
const MANAGER: &str = "palisade";
/// Longest message of an Event that servers take.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// Tells the cluster of this node.
pub(super) struct Reporter {
    pub(super) node: String,
    pub(super) doors: Doors,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) pace: Pace,
    /// What the node's object says.
    pub(super) written: Option<Value>,
    /// Events that are there.
    pub(super) told: BTreeSet<String>,
}

impl Reporter {
    /// Never ends. What cannot be written is tried again, and stops nothing.
    pub(super) async fn run(mut self) {
        loop {
            let span = KUBERNETES_REPORT / 2 + self.pace.spread(KUBERNETES_REPORT / 2);
            sleep(span).await;
            if !self.pipeline.status().waiting_for.is_empty() {
                continue;
            }
            if let Err(failure) = self.report().await {
                tracing::debug!("not told to the cluster: {failure}");
                // Without its definition or the right to write: a node works
                // all the same.
                sleep(self.pace.spread(KUBERNETES_ABSENT_POLL)).await;
            }
        }
    }

    async fn report(&mut self) -> Result<(), Failure> {
        let door = self.doors.open().await.map_err(Failure::Other)?;
        let snapshot = self.pipeline.repository();
        let events = self.events(&door.client, &snapshot).await;
        let Some(endpoint) = self.pipeline.endpoint(HOST_ENDPOINT) else {
            return events;
        };
        let object = node_object(&self.node, &snapshot, &endpoint);
        if self.written.as_ref() != Some(&object) {
            let params = PatchParams::apply(MANAGER).force();
            let patch = Patch::Apply(&object);
            let request = Request::new(NODES).patch(&self.node, &params, &patch)?;
            let _: Value = answered(door.client.request(request)).await?;
            self.written = Some(object);
        }
        events
    }

    async fn events(&mut self, client: &Client, snapshot: &PolicySnapshot) -> Result<(), Failure> {
        let mut current = BTreeSet::new();
        for refusal in snapshot.refused.iter() {
            let is_ours = refusal.source == SourceName::Kubernetes;
            let Some(event) = Event::of(refusal).filter(|_| is_ours) else {
                continue;
            };
            if !self.told.contains(&event.name) {
                event.tell(client).await?;
            }
            current.insert(event.name);
        }
        self.told = current;
        Ok(())
    }
}

/// An Event about a refused version.
struct Event<'r> {
    refusal: &'r Refusal,
    name: String,
    namespace: &'r str,
    /// Path of the collection of the refused object.
    objects: String,
    message: String,
}

impl<'r> Event<'r> {
    /// None for kinds whose objects others make by the thousand.
    fn of(refusal: &'r Refusal) -> Option<Self> {
        let key = &refusal.key;
        let watched = WATCHED.iter().find(|watched| watched.kind == key.kind)?;
        if !key.kind.is_policy() {
            return None;
        }
        let message = message(refusal);
        let digest = Sha256::digest(format!("{key}\n{message}").as_bytes());
        let digest: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let collection = watched.path(watched.versions[0]);
        let objects = match &key.namespace {
            Some(namespace) => {
                let (group, plural) = collection.rsplit_once('/')?;
                format!("{group}/namespaces/{namespace}/{plural}")
            }
            None => collection,
        };
        let short: String = key.name.chars().take(200).collect();
        Some(Self {
            refusal,
            name: format!("{short}.{digest}"),
            namespace: key.namespace.as_deref().unwrap_or("default"),
            objects,
            message,
        })
    }

    /// Makes it, unless another node did.
    async fn tell(&self, client: &Client) -> Result<(), Failure> {
        let events = Request::new(format!("/api/v1/namespaces/{}/events", self.namespace));
        let get = GetParams::default();
        let there = answered(client.request::<Value>(events.get(&self.name, &get)?)).await;
        match there {
            Ok(_) => return Ok(()),
            Err(failure) if failure.code() == Some(404) => {}
            Err(failure) => return Err(failure),
        }
        let key = &self.refusal.key;
        let object = Request::new(&self.objects).get(&key.name, &get)?;
        let object: Value = answered(client.request(object)).await?;
        let event = self.event(&object);
        let body = serde_json::to_vec(&event).map_err(|error| Failure::Other(error.to_string()))?;
        let create = events.create(&PostParams::default(), body)?;
        match answered(client.request::<Value>(create)).await {
            Err(failure) if failure.code() != Some(409) => Err(failure),
            _ => Ok(()),
        }
    }

    fn event(&self, object: &Value) -> Value {
        let key = &self.refusal.key;
        let now = timestamp(SystemClock::default().wall_ms());
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "type": "Warning", "reason": "PolicyRefused", "message": self.message,
            "involvedObject": {
                "apiVersion": "cilium.io/v2", "kind": key.kind.as_str(), "name": key.name,
                "namespace": key.namespace, "uid": object["metadata"]["uid"],
                "resourceVersion": object["metadata"]["resourceVersion"]},
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER, "reportingInstance": MANAGER,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        })
    }
}

fn message(refusal: &Refusal) -> String {
    let stays = if refusal.in_force {
        "refused, the last valid version stays in force"
    } else {
        "refused, nothing of it is in force"
    };
    let reasons: Vec<String> = refusal.errors.iter().map(ToString::to_string).collect();
    let mut text = format!("{stays}: {}", reasons.join("; "));
    let mut end = MESSAGE_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Seconds of RFC 3339, from milliseconds since 1970.
fn timestamp(wall_ms: u64) -> String {
    let seconds = wall_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days of eras of 400 years, which begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The node's own object.
fn node_object(node: &str, snapshot: &PolicySnapshot, endpoint: &EndpointStatus) -> Value {
    let refused = |key: &ResourceKey| {
        let mut refusals = snapshot.refused.iter();
        refusals.find(|it| it.key == *key && it.source == SourceName::Kubernetes)
    };
    let mut policies = Vec::new();
    let (mut selecting, mut count) = (0, 0);
    for (key, stored) in &snapshot.policies {
        count += 1;
        selecting += u32::from(stored.selects_host);
        if stored.selects_host || refused(key).is_some() {
            policies.push(policy_line(key, stored.selects_host, true, refused(key)));
        }
    }
    let unknown = snapshot.refused.iter().filter(|it| {
        it.key.kind.is_policy() && !it.in_force && !snapshot.policies.contains_key(&it.key)
    });
    for refusal in unknown {
        policies.push(policy_line(&refusal.key, false, false, Some(refusal)));
    }
    let refusals = policies
        .iter()
        .filter(|line| line["accepted"] == false)
        .count();
    let omitted = policies
        .len()
        .saturating_sub(KUBERNETES_REPORT_POLICIES_MAX);
    policies.truncate(KUBERNETES_REPORT_POLICIES_MAX);
    let (desired, realized) = (endpoint.revision.desired.0, endpoint.revision.realized.0);
    json!({
        "apiVersion": "palisade.io/v1alpha1", "kind": "PalisadeNode",
        "metadata": {"name": node},
        "status": {
            "version": env!("CARGO_PKG_VERSION"),
            "ingress": enforcement(endpoint.policy.ingress),
            "egress": enforcement(endpoint.policy.egress),
            "revision": {"desired": desired, "realized": realized},
            "policies": {"known": count, "selecting": selecting, "refused": refusals},
            "details": policies,
            "detailsOmitted": omitted,
        },
    })
}

fn policy_line(
    key: &ResourceKey,
    selected: bool,
    in_force: bool,
    refusal: Option<&Refusal>,
) -> Value {
    let reasons = refusal.map(|it| {
        it.errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    });
    json!({
        "policy": key.to_string(),
        "accepted": refusal.is_none(),
        "inForce": in_force,
        "selected": selected,
        "reasons": reasons.unwrap_or_default(),
    })
}

fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Enabled => "enforced",
        Enforcement::Disabled => "not enforced",
        Enforcement::Audit => "audited",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_735_689_599_999), "2024-12-31T23:59:59Z");
    }
}
