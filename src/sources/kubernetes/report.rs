//! What the node tells the cluster: one object of its own with the state of each
//! policy, and an Event for each refused version.
//!
//! Thousands of nodes must not write to one policy: so each node writes to an
//! object that nobody else writes to, when something in it has changed, and not
//! before a wait that differs from node to node. `status` counts these objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::access::Doors;
use super::event::{Event, MANAGER};
use super::feed::{Failure, answered};
use crate::clock::{Clock, Moment, SystemClock};
use crate::endpoint::{EndpointStatus, Enforcement, HOST_ENDPOINT};
use crate::events::{ResourceKey, SourceName};
use crate::limits::{
    KUBERNETES_ABSENT_POLL, KUBERNETES_REPORT, KUBERNETES_REPORT_AGAIN,
    KUBERNETES_REPORT_POLICIES_MAX,
};
use crate::policy::{PolicySnapshot, Refusal, StoredPolicy};
use crate::queues::Pipeline;
use crate::sources::remote::Pace;

/// The nodes' objects.
pub(super) const NODES: &str = "/apis/palisade.io/v1alpha1/palisadenodes";

/// Tells the cluster of this node.
pub(super) struct Reporter {
    pub(super) node: String,
    pub(super) doors: Doors,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) pace: Pace,
    /// One for all moments: another one begins to count anew.
    pub(super) clock: SystemClock,
    /// What the node's object says, since when.
    pub(super) written: Option<(Value, Moment)>,
    /// Events that are there.
    pub(super) told: BTreeSet<String>,
    /// Policies that the kernel enforces, with their generations.
    pub(super) realized: BTreeMap<ResourceKey, u64>,
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
        if endpoint.revision.realized >= endpoint.revision.desired {
            self.realized = selecting(&snapshot)
                .map(|(key, stored)| (key.clone(), generation(stored)))
                .collect();
        }
        let object = node_object(&self.node, &snapshot, &endpoint, &self.realized);
        let now = self.clock.now();
        let is_told = self.written.as_ref().is_some_and(|(written, at)| {
            *written == object && now.since(*at) < KUBERNETES_REPORT_AGAIN
        });
        if !is_told {
            self.write(&door.client, &object).await?;
            self.written = Some((object, now));
        }
        events
    }

    async fn write(&self, client: &Client, object: &Value) -> Result<(), Failure> {
        let mut owned = object.clone();
        // With the Node its object goes too.
        if let Some(uid) = self.uid(client).await? {
            owned["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": uid}]);
        }
        let params = PatchParams::apply(MANAGER).force();
        let request = Request::new(NODES).patch(&self.node, &params, &Patch::Apply(&owned))?;
        let _: Value = answered(client.request(request)).await?;
        Ok(())
    }

    /// The uid of this node; None where the cluster has no such node.
    async fn uid(&self, client: &Client) -> Result<Option<String>, Failure> {
        let request = Request::new("/api/v1/nodes").get(&self.node, &GetParams::default())?;
        match answered(client.request::<Value>(request)).await {
            Ok(node) => Ok(node["metadata"]["uid"].as_str().map(str::to_owned)),
            Err(failure) if failure.code() == Some(404) => Ok(None),
            Err(failure) => Err(failure),
        }
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

fn selecting(snapshot: &PolicySnapshot) -> impl Iterator<Item = (&ResourceKey, &StoredPolicy)> {
    let policies = snapshot.policies.iter();
    let policies = policies.filter(|(_, stored)| stored.selects_host);
    policies.map(|(key, stored)| (key, &**stored))
}

/// Of a policy, only that.
#[derive(Deserialize)]
struct Counted {
    metadata: Generation,
}

#[derive(Deserialize)]
struct Generation {
    #[serde(default)]
    generation: u64,
}

/// Which version of the specification it is, as the server counts them.
pub(super) fn generation(stored: &StoredPolicy) -> u64 {
    let part: Option<Counted> = stored.resource.body.part();
    part.map_or(0, |it| it.metadata.generation)
}

/// The node's own object.
fn node_object(
    node: &str,
    snapshot: &PolicySnapshot,
    endpoint: &EndpointStatus,
    realized: &BTreeMap<ResourceKey, u64>,
) -> Value {
    let refused = snapshot.refused.iter();
    let refused: BTreeMap<&ResourceKey, &Refusal> = refused
        .filter(|it| it.key.kind.is_policy())
        .map(|it| (&it.key, it))
        .collect();
    let mut policies = Vec::new();
    for (key, stored) in &snapshot.policies {
        let refusal = refused.get(key).copied();
        if stored.selects_host || refusal.is_some() {
            let is_realized = realized.get(key) == Some(&generation(stored));
            policies.push(policy_line(key, Some((stored, is_realized)), refusal));
        }
    }
    let unknown = refused
        .iter()
        .filter(|(key, _)| !snapshot.policies.contains_key(**key));
    policies.extend(unknown.map(|(key, refusal)| policy_line(key, None, Some(refusal))));
    let omitted = policies
        .len()
        .saturating_sub(KUBERNETES_REPORT_POLICIES_MAX);
    policies.truncate(KUBERNETES_REPORT_POLICIES_MAX);
    let counts = json!({
        "known": snapshot.policies.len(),
        "selecting": selecting(snapshot).count(),
        "refused": refused.len(),
    });
    let (desired, realized) = (endpoint.revision.desired.0, endpoint.revision.realized.0);
    json!({
        "apiVersion": "palisade.io/v1alpha1", "kind": "PalisadeNode",
        "metadata": {"name": node},
        "status": {
            "version": env!("CARGO_PKG_VERSION"),
            "ingress": enforcement(endpoint.policy.ingress),
            "egress": enforcement(endpoint.policy.egress),
            "revision": {"desired": desired, "realized": realized},
            "policies": counts,
            "details": policies,
            "detailsOmitted": omitted,
        },
    })
}

/// A policy: what of it is stored and whether that is in the kernel, and why its
/// newest version is refused.
fn policy_line(
    key: &ResourceKey,
    stored: Option<(&StoredPolicy, bool)>,
    refusal: Option<&Refusal>,
) -> Value {
    let reasons = refusal.map(|it| {
        it.errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    });
    let source = stored.map(|(stored, _)| stored.resource.source);
    let source = source.or(refusal.map(|it| it.source));
    json!({
        "policy": key.to_string(),
        "source": source.map(SourceName::as_str),
        "generation": stored.map_or(0, |(stored, _)| generation(stored)),
        "accepted": refusal.is_none(),
        "inForce": stored.is_some(),
        "selected": stored.is_some_and(|(stored, _)| stored.selects_host),
        "realized": stored.is_some_and(|(_, is_realized)| is_realized),
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
