//! How long a node takes to hear of a whole cluster, what it keeps of it in
//! memory, and how fast it takes changes: from a recorded list, served in pages
//! by a small server in the node's namespace. `cargo xtask scale` prints it for
//! 5,000 nodes with 20,000 pods and 2,000 policies, and for a tenth of it.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use palisade::datapath::netns;
use palisade::lab::network::Place;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::cluster::{policy, until};
use crate::growth::{self, Shown};
use crate::harness::{SSH, World, privileged};

/// Nodes in the test command; `PALISADE_SCALE_NODES` asks for another number.
const NODES: u32 = 50;
const PORT: u16 = 8_001;

#[test]
fn a_whole_cluster_is_heard() {
    if !privileged() {
        return;
    }
    let nodes = growth::nodes_or(NODES);
    let small = measure(nodes / 10, true);
    let large = measure(nodes, true);
    let alike = measure(nodes, false);
    let kinds = ["nodes", "pods", "policies"];
    growth::print(kinds, "changes of pods", &small, &large);
    let grown = large.memory_kib.saturating_sub(small.memory_kib);
    let [[_, few, _], [_, many, _]] = [small.sizes, large.sizes];
    let pods = u64::from(many - few);
    println!(
        "memory for each 10,000 pods with their part of nodes and policies: {} MiB",
        (grown * 10_000 / pods) >> 10
    );
    println!(
        "where no policy tells peers apart, {} nodes with {} pods are not asked for: {:.2} s, {} MiB",
        alike.sizes[0],
        alike.sizes[1],
        alike.sync_s,
        alike.memory_kib >> 10
    );
}

/// A cluster of this many nodes, from nothing. `apart`: its policies name pods.
fn measure(nodes: u32, apart: bool) -> Shown {
    let mut world = World::bare();
    let cluster = Arc::new(Cluster::of(nodes, apart));
    let namespace = world.sandbox.namespace(Place::Host.name());
    let listener = netns::run_in(&namespace, || {
        std::net::TcpListener::bind(("127.0.0.1", PORT))
    });
    let listener = listener.expect("a namespace").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let served = Arc::clone(&cluster);
    std::thread::spawn(move || serve(listener, served));
    let file = world.sandbox.path("kubeconfig");
    let text = json!({
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{PORT}")}}],
        "users": [{"name": "u", "user": {}}], "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(&file, text.to_string()).expect("a kubeconfig");
    world.add_arguments(&["--kubernetes", "--kubeconfig", &file.to_string_lossy()]);
    let start = Instant::now();
    world.launch_agent();
    until("the agent is ready", || {
        let status = world.agent().json(&["status"]).ok()?;
        (status["ready"] == true).then_some(())
    });
    let sync_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    if apart {
        cluster.change.notify_one();
        until("the last change is known", || {
            let found = world.agent().json(&["ip", "get", LAST_ADDRESS]).ok()?;
            found.to_string().contains("app=last").then_some(())
        });
    }
    let events_s = start.elapsed().as_secs_f64();
    let pid = world.agent().pid().expect("an agent");
    let events_per_s = f64::from(cluster.changed + 1) / events_s;
    let sizes = [nodes, nodes * 4, nodes * 4 / 10];
    Shown::of(sizes, sync_s, events_per_s, pid)
}

const LAST_ADDRESS: &str = "10.255.255.1";

/// The recorded objects.
struct Cluster {
    nodes: Vec<Value>,
    pods: Vec<Value>,
    policies: Vec<Value>,
    changed: u32,
    change: Notify,
}

impl Cluster {
    fn of(nodes: u32, apart: bool) -> Self {
        let pods = nodes * 4;
        let policies = (0..pods / 10).map(|number| {
            let name = format!("policy-{number}");
            let mut policy = policy(&name, &format!("role-{}", number % 50), &[SSH]);
            if apart {
                let app = format!("app-{}", number % 100);
                let rule = policy["spec"]["ingress"][0]
                    .as_object_mut()
                    .expect("a rule");
                rule.remove("fromEntities");
                rule.insert(
                    "fromEndpoints".to_owned(),
                    json!([{"matchLabels": {"app": app}}]),
                );
            }
            policy
        });
        Self {
            nodes: (0..nodes).map(node).collect(),
            pods: (0..pods).map(|number| pod(number, number % 100)).collect(),
            policies: policies.collect(),
            changed: pods / 10,
            change: Notify::new(),
        }
    }

    fn list(&self, path: &str) -> &[Value] {
        match path.rsplit('/').next() {
            Some("nodes") => &self.nodes,
            Some("pods") => &self.pods,
            Some("ciliumclusterwidenetworkpolicies") => &self.policies,
            _ => &[],
        }
    }

    /// Every tenth pod with another label, and one pod more.
    fn changes(&self) -> String {
        let line =
            |kind: &str, object: &Value| json!({"type": kind, "object": object}).to_string() + "\n";
        let changed = (0..self.changed).map(|number| line("MODIFIED", &pod(number * 10, 100)));
        let mut last = pod(0, 0);
        last["metadata"]["name"] = json!("last");
        last["metadata"]["labels"] = json!({"app": "last"});
        last["status"]["podIP"] = json!(LAST_ADDRESS);
        last["status"]["podIPs"] = json!([{"ip": LAST_ADDRESS}]);
        changed.chain([line("ADDED", &last)]).collect()
    }
}

fn node(number: u32) -> Value {
    let name = match number {
        0 => "host".to_owned(),
        _ => format!("node-{number}"),
    };
    let [_, _, high, low] = number.to_be_bytes();
    json!({
        "metadata": {"name": name, "resourceVersion": "1",
            "labels": {"role": format!("role-{}", number % 50), "kubernetes.io/hostname": name}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("172.20.{high}.{low}")}],
            "images": (0..20).map(|it| json!({"names": [format!("image-{it}")]})).collect::<Vec<_>>()},
    })
}

fn pod(number: u32, app: u32) -> Value {
    let [_, high, middle, low] = number.to_be_bytes();
    let address = format!("10.{high}.{middle}.{low}");
    json!({
        "metadata": {"name": format!("pod-{number}"), "namespace": format!("ns-{}", number % 40),
            "resourceVersion": "1", "managedFields": [{"manager": "kubelet"}],
            "labels": {"app": format!("app-{app}"), "pod-template-hash": format!("{:x}", app * 77)}},
        "spec": {"nodeName": format!("node-{}", number / 4), "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "image:1", "env": [{"name": "A", "value": "b"}],
                "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn serve(listener: std::net::TcpListener, cluster: Arc<Cluster>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::from_std(listener).expect("a listener");
        let router = Router::new().fallback(answer).with_state(cluster);
        axum::serve(listener, router).await.expect("it serves");
    });
}

#[derive(Deserialize)]
struct Asked {
    watch: Option<bool>,
    #[serde(rename = "sendInitialEvents")]
    streams: Option<bool>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<usize>,
    #[serde(rename = "fieldSelector")]
    fields: Option<String>,
}

async fn answer(
    State(cluster): State<Arc<Cluster>>,
    uri: Uri,
    Query(asked): Query<Asked>,
) -> Response {
    let path = uri.path();
    if let Some(name) =
        path.strip_prefix("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/")
    {
        return definition(name);
    }
    if path == "/apis/discovery.k8s.io" {
        return json!({"versions": [{"version": "v1"}]})
            .to_string()
            .into_response();
    }
    if asked.streams == Some(true) {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY);
    }
    if asked.watch == Some(true) {
        let is_pods = path == "/api/v1/pods";
        return watch(cluster, is_pods);
    }
    // The node's own.
    let is_own = asked
        .fields
        .is_some_and(|fields| fields.contains("metadata.name="));
    let all = if is_own && path == "/api/v1/nodes" {
        &cluster.nodes[..1]
    } else {
        cluster.list(path)
    };
    let from = asked.next.unwrap_or(0);
    let to = all.len().min(from + asked.limit.unwrap_or(all.len()));
    let next = if to < all.len() {
        to.to_string()
    } else {
        String::new()
    };
    let metadata = json!({"resourceVersion": "1", "continue": next});
    json!({"metadata": metadata, "items": all[from..to]})
        .to_string()
        .into_response()
}

/// Nothing, until the changes are asked for; then nothing again.
fn watch(cluster: Arc<Cluster>, is_pods: bool) -> Response {
    let events = stream::unfold(Some(cluster), move |cluster| async move {
        let cluster = cluster.filter(|_| is_pods);
        let Some(cluster) = cluster else {
            return std::future::pending().await;
        };
        cluster.change.notified().await;
        let lines = Bytes::from(cluster.changes());
        Some((Ok::<_, std::io::Error>(lines), None))
    });
    Body::from_stream(events).into_response()
}

fn definition(name: &str) -> Response {
    if !name.starts_with("ciliumclusterwide") {
        return refusal(StatusCode::NOT_FOUND);
    }
    let definition = json!({
        "metadata": {"uid": "1"},
        "spec": {"versions": [{"name": "v2", "served": true}]},
        "status": {"conditions": [{"type": "Established", "status": "True"}]}});
    definition.to_string().into_response()
}

fn refusal(code: StatusCode) -> Response {
    let body = json!({"kind": "Status", "code": code.as_u16(), "message": "no"});
    (code, body.to_string()).into_response()
}
