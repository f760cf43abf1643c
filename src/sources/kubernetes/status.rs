//! The status of policies: valid, nodes enforcing, revision. One agent counts
//! what the nodes tell and writes it, a policy at most once in each round; only
//! where the definitions are ours, for Cilium's have no place for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::access::Doors;
use super::event::message;
use super::feed::{Calls, Failure, Feed, answered};
use super::kinds::{WATCHED, Watched};
use super::lease::Lease;
use super::locate::DEFINITIONS;
use super::needs::{Order, all};
use super::outlet::Outlet;
use super::tally::{Count, Tally, Word};
use crate::events::{ResourceKey, ResourceKind, SourceName};
use crate::limits::{
    KUBERNETES_ABSENT_POLL, KUBERNETES_HEARD_MAX, KUBERNETES_REPORT, KUBERNETES_SILENCE,
    KUBERNETES_STATUS_WRITES_MAX,
};
use crate::policy::PolicySnapshot;
use crate::queues::Pipeline;
use crate::sources::remote::Pace;

/// Owner of the fields, for the server.
const MANAGER: &str = "palisade-status";

/// Counts for the cluster, where it is this agent's turn.
pub(super) struct Teller {
    pub(super) node: String,
    pub(super) doors: Doors,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) pace: Pace,
    pub(super) lease: Lease,
}

impl Teller {
    /// Never ends. What fails is tried again, and stops nothing.
    pub(super) async fn run(mut self) {
        let mut wait = self.pace.spread(KUBERNETES_REPORT);
        loop {
            sleep(wait).await;
            let span = match self.turn().await {
                Ok(()) => self.lease.span,
                Err(failure) => {
                    tracing::info!("policies are not counted here for a while: {failure}");
                    KUBERNETES_ABSENT_POLL
                }
            };
            wait = span / 2 + self.pace.spread(span / 2);
        }
    }

    /// Counts while the lease is ours.
    async fn turn(&mut self) -> Result<(), Failure> {
        let door = self.doors.open().await.map_err(Failure::Other)?;
        if !self.lease.take(&door.client).await? {
            return Ok(());
        }
        tracing::info!("this agent counts nodes for the status of policies");
        let (words, mut heard) = mpsc::channel(KUBERNETES_HEARD_MAX);
        // Ends with this turn.
        let mut feeds = JoinSet::new();
        feeds.spawn(self.feed(words).run());
        let mut tally = Tally::default();
        let mut written = BTreeMap::new();
        let mut rounds = interval(KUBERNETES_REPORT);
        let mut renewals = interval(self.lease.span / 5);
        loop {
            tokio::select! {
                word = heard.recv() => match word {
                    Some(word) => tally.take(word),
                    None => return Ok(()),
                },
                _ = rounds.tick() => if tally.is_whole() {
                    let door = self.doors.open().await.map_err(Failure::Other)?;
                    if !self.lease.is_fresh() && !self.lease.take(&door.client).await? {
                        return Ok(());
                    }
                    self.write(&door.client, &tally, &mut written).await?;
                },
                _ = renewals.tick() => {
                    let door = self.doors.open().await.map_err(Failure::Other)?;
                    if !self.lease.take(&door.client).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn feed(&self, words: mpsc::Sender<Word>) -> Feed {
        Feed {
            outlet: Outlet::Reports(words),
            doors: self.doors.clone(),
            pace: Pace::new((&self.node, "reports")),
            calls: Calls::default(),
            reached: Arc::new(Notify::new()),
            streams: true,
            silence: KUBERNETES_SILENCE,
            yields_to: None,
            leads: None,
            order: all(),
            version: String::new(),
            place: None,
            asked: Order::default(),
        }
    }

    /// Writes what has changed, as much of it as a round may.
    async fn write(
        &self,
        client: &Client,
        tally: &Tally,
        written: &mut BTreeMap<ResourceKey, Value>,
    ) -> Result<(), Failure> {
        let wanted = wanted(&self.pipeline.repository(), &tally.counts());
        written.retain(|key, _| wanted.contains_key(key));
        let changed = wanted
            .into_iter()
            .filter(|(key, status)| written.get(key) != Some(status));
        let changed: Vec<_> = changed.take(KUBERNETES_STATUS_WRITES_MAX).collect();
        let kinds: BTreeSet<ResourceKind> = changed.iter().map(|(key, _)| key.kind).collect();
        let mut ours = BTreeSet::new();
        for watched in WATCHED.iter().filter(|it| kinds.contains(&it.kind)) {
            if is_ours(client, watched).await? {
                ours.insert(watched.kind);
            }
        }
        for (key, status) in changed {
            if !ours.contains(&key.kind) {
                continue;
            }
            match patch(client, &key, &status).await {
                Ok(()) => {}
                // It is gone, or another one has its name: the feed will tell.
                Err(failure) if matches!(failure.code(), Some(404 | 409)) => continue,
                Err(failure) => return Err(failure),
            }
            written.insert(key, status);
        }
        Ok(())
    }
}

/// What the status of each policy of the cluster should be.
fn wanted(
    snapshot: &PolicySnapshot,
    counts: &BTreeMap<&str, Count>,
) -> BTreeMap<ResourceKey, Value> {
    let refused = snapshot.refused.iter();
    let refused: BTreeMap<&ResourceKey, String> = refused
        .filter(|it| it.source == SourceName::Kubernetes && it.key.kind.is_policy())
        .map(|it| (&it.key, message(it)))
        .collect();
    let policies = snapshot.policies.iter();
    let policies = policies.filter(|(_, it)| it.resource.source == SourceName::Kubernetes);
    let keys: BTreeSet<&ResourceKey> = policies
        .map(|(key, _)| key)
        .chain(refused.keys().copied())
        .collect();
    let nobody = Count::default();
    let wanted = keys.into_iter().map(|key| {
        let count = counts.get(key.to_string().as_str()).unwrap_or(&nobody);
        let refusal = refused.get(key).map(String::as_str);
        (key.clone(), count.status(refusal))
    });
    wanted.collect()
}

/// Whether the definition has a place for our status.
async fn is_ours(client: &Client, watched: &Watched) -> Result<bool, Failure> {
    let request = Request::new(DEFINITIONS).get(&watched.definition(), &GetParams::default());
    let definition: Value = answered(client.request(request?)).await?;
    let versions = definition["spec"]["versions"].as_array();
    let mut versions = versions.into_iter().flatten();
    Ok(versions.any(|version| {
        let place = "/schema/openAPIV3Schema/properties/status/properties/palisade";
        version["served"] == true && version.pointer(place).is_some()
    }))
}

async fn patch(client: &Client, key: &ResourceKey, status: &Value) -> Result<(), Failure> {
    let Some(watched) = WATCHED.iter().find(|watched| watched.kind == key.kind) else {
        return Ok(());
    };
    let version = watched.versions[0];
    let mut object = json!({
        "apiVersion": format!("{}/{version}", watched.group), "kind": key.kind.as_str(),
        "metadata": {"name": key.name},
        "status": {"palisade": status},
    });
    if let Some(namespace) = &key.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let request = Request::new(watched.path_in(version, key.namespace.as_deref()));
    let params = PatchParams::apply(MANAGER).force();
    let request =
        request.patch_subresource("status", &key.name, &params, &Patch::Apply(&object))?;
    let _: Value = answered(client.request(request)).await?;
    Ok(())
}
