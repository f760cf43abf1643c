//! Kubernetes and etcd, both real, and one agent that hears both: who owns a key,
//! and who numbers the pods that only Kubernetes tells of.

use std::time::Duration;

use palisade::sources::etcd::Allocator;
use serde_json::{Value, json};

use crate::cluster::{Cluster, policy};
use crate::fleet::{LEASE_TTL, policy_key, until};
use crate::harness::{HTTP, SSH};
use crate::store::{Store, program};

const MASTERS: &str = "cilium/state/identities/v1/id/";
const SLAVES: &str = "cilium/state/identities/v1/value/";

/// An API server, an etcd beside it, and an agent that is in sync with both.
fn both() -> Option<(Cluster, Store)> {
    let (programs, etcd) = (crate::server::programs()?, program()?);
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    let namespace = cluster.server.namespace.clone();
    let store = Store::start(&cluster.world.sandbox, etcd, &namespace, false);
    let arguments = ["--etcd", &store.url(), "--etcd-lease-ttl", LEASE_TTL];
    cluster.world.add_arguments(&arguments);
    cluster.world.start_agent();
    Some((cluster, store))
}

/// Waits until one source owns the policy `ours` and the other is refused; both in
/// `palisade policy get` and in `palisade status`.
#[track_caller]
fn owned(cluster: &mut Cluster, owner: &str, refused: &str) {
    let dump = until("the claim is told", || {
        let dump = cluster
            .world
            .agent()
            .json(&["policy", "get", "ours"])
            .ok()?;
        let claim = &dump["policies"][0]["refused"][0];
        (claim["source"] == refused).then_some(dump)
    });
    assert_eq!(dump["policies"][0]["source"], owner, "{dump}");
    let words = format!("belongs to the source {owner}");
    assert!(dump.to_string().contains(&words), "{dump}");
    let problems = cluster.problems();
    assert!(problems.contains(&words), "{problems}");
}

/// Waits until one source owns it and nobody is refused.
#[track_caller]
fn owned_alone(cluster: &mut Cluster, owner: &str) {
    let words = "belongs to the source";
    until("nobody claims it any more", || {
        let dump = cluster
            .world
            .agent()
            .json(&["policy", "get", "ours"])
            .ok()?;
        let is_its = dump["policies"][0]["source"] == owner;
        (is_its && !dump.to_string().contains(words)).then_some(())
    });
    assert!(!cluster.problems().contains(words));
}

#[test]
fn the_first_owner_keeps_a_policy_between_kubernetes_and_etcd() {
    let Some((mut cluster, store)) = both() else {
        return;
    };
    cluster.create_policy("ours", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    store.put(
        &policy_key("ours"),
        &policy("ours", "web", &[HTTP]).to_string(),
    );
    owned(&mut cluster, "kubernetes", "etcd");
    assert!(cluster.is_open(&[SSH]), "the owner's counts");

    // An agent that starts again knows from its journal who came first.
    cluster.world.start_agent();
    owned(&mut cluster, "kubernetes", "etcd");
    assert!(cluster.is_open(&[SSH]));

    cluster.delete_policy("ours");
    cluster.wait_open(&[HTTP]);
    owned_alone(&mut cluster, "etcd");

    // And the other way around.
    cluster.create_policy("ours", "web", &[SSH]);
    owned(&mut cluster, "etcd", "kubernetes");
    assert!(cluster.is_open(&[HTTP]), "the owner's counts");
    store.delete(&policy_key("ours"));
    cluster.wait_open(&[SSH]);
    owned_alone(&mut cluster, "kubernetes");
}

fn create_pod(cluster: &Cluster, name: &str, node: &str, address: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/shop/pods", &pod);
    let status = json!({"status": {"podIP": address, "phase": "Running"}});
    let path = format!("/api/v1/namespaces/shop/pods/{name}/status");
    cluster.patch(&path, &status);
}

fn who_is(cluster: &mut Cluster, address: &str) -> Value {
    let who = cluster.world.agent().json(&["ip", "get", address]);
    who.expect("the agent answers")
}

#[test]
fn pods_of_kubernetes_have_the_clusters_numbers() {
    let Some((mut cluster, store)) = both() else {
        return;
    };
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.create("/api/v1/namespaces", &space);
    // Somebody asks for the labels of pods.
    let asks = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "pods"}, "spec": {"nodeSelector": {}, "ingress": [
            {"fromEndpoints": [{"matchExpressions": [{"key": "app", "operator": "Exists"}]}]}]}});
    cluster.create(crate::cluster::POLICIES, &asks);
    create_pod(&cluster, "near", "host", "10.99.0.4");
    create_pod(&cluster, "far", "elsewhere", "10.99.1.4");

    // The node that runs a pod asks for its number; everybody reads the master.
    let labels = until("the pod here has a number of etcd", || {
        let who = who_is(&mut cluster, "10.99.0.4");
        let number = who["identity"].as_u64()?;
        let master = store
            .get(&format!("{MASTERS}{number}"))
            .expect("etcd answers")?;
        let labels = String::from_utf8(master.value).expect("text");
        labels.contains("k8s:app=near;").then_some(labels)
    });
    let slaves = store.under(SLAVES);
    assert_eq!(
        slaves.len(),
        1,
        "the other pod is another node's to ask for"
    );
    // Kubernetes tells every node of its pods: nobody publishes them besides.
    assert_eq!(store.under("cilium/state/ip/").len(), 0);

    // Until its own node asks, the other pod has no number that could be anybody's.
    let who = until("the other pod is known", || {
        let who = who_is(&mut cluster, "10.99.1.4");
        who["labels"].to_string().contains("app=far").then_some(who)
    });
    assert!(who["identity"].as_u64() > Some(65_535), "{who}");
    let labels = labels.replace("app=near", "app=far");
    let given = store.ask(|client| async move {
        let lease = client.grant(Duration::from_secs(60)).await?;
        let mut other = Allocator::default();
        let given = other.acquire(&client, ("elsewhere", lease), &labels).await;
        Ok(given.expect("a number"))
    });
    let given = u64::from(given.expect("etcd answers"));
    until("the numbers agree", || {
        let who = who_is(&mut cluster, "10.99.1.4");
        (who["identity"] == given).then_some(())
    });

    // The pod goes, and this node uses its number no more.
    cluster.delete("/api/v1/namespaces/shop/pods/near?gracePeriodSeconds=0");
    until("the number is let go", || {
        let slaves = store.under(SLAVES);
        (slaves.len() == 1).then_some(())
    });
}
