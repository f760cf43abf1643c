//! A node watches no more than its policies need, by the server's own account of
//! what it was asked; and what is needed later is known before it is judged by.

use std::collections::BTreeSet;

use palisade::lab::network::{Family, Place};
use serde_json::{Value, json};

use crate::cluster::{Cluster, POLICIES, until};
use crate::harness::{HTTP, SSH};
use crate::outage::Traffic;
use crate::server::programs;

const UNNEEDED: &str = "no policy for this node needs it";

#[test]
fn a_node_watches_no_more_than_its_policies_need() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    outsider_is_a_pod(&cluster);
    cluster.world.start_agent();
    cluster.create_policy("ssh", "web", &[SSH]);
    // A policy for other nodes, which need to know more.
    cluster.create(POLICIES, &from_pods("pods", "db"));
    cluster.wait_open(&[SSH]);
    let own = [
        "ciliumclusterwidenetworkpolicies",
        "ciliumnetworkpolicies",
        "customresourcedefinitions",
        "default/endpointslices?labelSelector=kubernetes.io/service-name=kubernetes",
        "nodes?fieldSelector=metadata.name=host",
    ];
    let expected: BTreeSet<String> = own.map(String::from).into();
    until("the server has noted each watch", || {
        expected.is_subset(&watched(&cluster)).then_some(())
    });
    let asked = watched(&cluster);
    assert_eq!(asked, expected, "and no other");
    for kind in ["Pod", "Namespace", "Service", "CiliumCIDRGroup"] {
        let line = cluster.kind(kind);
        let shown = (&line["in_sync"], &line["resources"], &line["detail"]);
        assert_eq!(shown, (&json!(true), &json!(0), &json!(UNNEEDED)), "{kind}");
    }
    let nodes = cluster.kind("Node");
    assert_eq!(nodes["resources"], 1, "of two nodes, its own: {nodes}");

    // Another role, another policy: it lets in a pod that the node has never heard
    // of, and that pod is not shut out for a moment.
    let traffic = Traffic::start(&cluster);
    cluster.set_role("db");
    until("pods are known", || {
        (cluster.kind("Pod")["resources"] == 1).then_some(())
    });
    cluster.delete_policy("ssh");
    until("the policy for pods selects the node", || {
        let policy = cluster
            .world
            .agent()
            .json(&["policy", "get", "pods"])
            .ok()?;
        (policy["policies"][0]["selects"] == true).then_some(())
    });
    traffic.expect_steady();
    let pods = "pods?fieldSelector=status.phase!=Succeeded,status.phase!=Failed";
    expect_more(&cluster, &asked, &["namespaces", "nodes", pods]);

    services_and_groups(&mut cluster);
    nothing_is_watched_for_ever(&mut cluster);
}

/// A policy of a manifest waits for the cluster as one of the cluster does: the pod
/// that it lets in is not shut out for a moment, neither when the agent starts nor
/// when the manifest comes later.
#[test]
fn a_manifest_is_not_enforced_before_its_peers_are_known() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    outsider_is_a_pod(&cluster);
    let text = from_pods("pods", "web").to_string();
    cluster.world.manifest("pods.yaml", &text);
    let traffic = Traffic::start(&cluster);
    cluster.world.start_agent();
    cluster.world.wait("ingress", "enabled");
    cluster.world.remove_manifest("pods.yaml");
    cluster.world.wait("ingress", "disabled");
    for kind in ["Pod", "Namespace"] {
        until(&format!("no {kind} is watched"), || {
            (cluster.kind(kind)["detail"] == UNNEEDED).then_some(())
        });
    }
    cluster.world.manifest("pods.yaml", &text);
    cluster.world.wait("ingress", "enabled");
    assert_eq!(cluster.kind("Pod")["resources"], 1);
    traffic.expect_none_dropped();

    // Without the server such a policy waits, and says for what; others do not.
    cluster.world.remove_manifest("pods.yaml");
    cluster.world.wait("ingress", "disabled");
    until("no pod is watched", || {
        (cluster.kind("Pod")["detail"] == UNNEEDED).then_some(())
    });
    cluster.server.kill();
    cluster.world.manifest("pods.yaml", &text);
    until("it waits", || {
        let problems = cluster.problems();
        problems
            .contains("waits for the first whole list of")
            .then_some(())
    });
    let ssh = crate::cluster::policy("ssh", "web", &[SSH]).to_string();
    cluster.world.manifest("ssh.yaml", &ssh);
    cluster.wait_open(&[SSH]);
    cluster.server.restart(&cluster.world.sandbox);
    until("it waits no more", || {
        let problems = cluster.problems();
        (!problems.contains("waits for")).then_some(())
    });
    assert_eq!(cluster.kind("Pod")["resources"], 1);
}

/// A node beside the agent's, and a pod with the outsider's address.
fn outsider_is_a_pod(cluster: &Cluster) {
    let node = json!({"metadata": {"name": "other", "labels": {"role": "db"}}});
    cluster.create("/api/v1/nodes", &node);
    cluster.create("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}}));
    let account = json!({"metadata": {"name": "default"}});
    cluster.create("/api/v1/namespaces/shop/serviceaccounts", &account);
    let pod = json!({"metadata": {"name": "client", "labels": {"app": "client"}},
        "spec": {"containers": [{"name": "client", "image": "client:1"}]}});
    cluster.create("/api/v1/namespaces/shop/pods", &pod);
    let address = Place::Outsider.address(Family::V4);
    let status = json!({"status": {"phase": "Running", "podIP": address,
        "podIPs": [{"ip": address}]}});
    cluster.patch("/api/v1/namespaces/shop/pods/client/status", &status);
}

fn from_pods(name: &str, role: &str) -> Value {
    let ports = json!([{"ports": [{"port": SSH.to_string(), "protocol": "TCP"}]}]);
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {"matchLabels": {"role": role}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}],
                "toPorts": ports}]}})
}

/// A service and a group that nobody asked for until a policy names them.
fn services_and_groups(cluster: &mut Cluster) {
    let before = watched(cluster);
    let group = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
        "metadata": {"name": "offices"}, "spec": {"externalCIDRs": ["192.0.2.0/24"]}});
    until("groups are served", || {
        cluster
            .server
            .request("POST", "/apis/cilium.io/v2/ciliumcidrgroups", Some(&group))
    });
    let policy = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "wide"},
        "spec": {"nodeSelector": {"matchLabels": {"role": "db"}},
            "ingress": [{"fromCIDRSet": [{"cidrGroupRef": "offices"}]}],
            "egress": [{"toServices": [
                {"k8sService": {"serviceName": "kubernetes", "namespace": "default"}}]}]}});
    cluster.create(POLICIES, &policy);
    until("the policy is in force", || {
        let policy = cluster
            .world
            .agent()
            .json(&["policy", "get", "wide"])
            .ok()?;
        (policy["policies"][0]["selects"] == true).then_some(())
    });
    // It was not taken before these were known.
    assert_eq!(cluster.kind("CiliumCIDRGroup")["resources"], 1);
    assert!(cluster.kind("Service")["resources"].as_u64() > Some(0));
    expect_more(
        cluster,
        &before,
        &["ciliumcidrgroups", "endpointslices", "services"],
    );
}

/// Waits until these are watched besides, and no others.
#[track_caller]
fn expect_more(cluster: &Cluster, before: &BTreeSet<String>, more: &[&str]) {
    until(&format!("{more:?} are watched"), || {
        let now = watched(cluster);
        now.difference(before).eq(more).then_some(())
    });
}

/// With the last policy that needs a kind its watch ends.
fn nothing_is_watched_for_ever(cluster: &mut Cluster) {
    cluster.delete_policy("wide");
    cluster.delete_policy("pods");
    cluster.wait_open(&[SSH, HTTP]);
    for kind in ["Pod", "Namespace", "Service", "CiliumCIDRGroup"] {
        until(&format!("no {kind} is watched"), || {
            let line = cluster.kind(kind);
            (line["detail"] == UNNEEDED && line["resources"] == 0).then_some(())
        });
    }
    until("only the own node is known", || {
        (cluster.kind("Node")["resources"] == 1).then_some(())
    });
}

/// Collections that the agent watches or has watched, with what it asked of them.
fn watched(cluster: &Cluster) -> BTreeSet<String> {
    let requests = cluster.server.asked();
    let watches = requests.iter().filter(|request| {
        // What the nodes tell is for the one agent that counts.
        let is_count = request["objectRef"]["resource"] == "palisadenodes";
        request["verb"] == "watch" && !is_count
    });
    let names = watches.map(|request| {
        let object = &request["objectRef"];
        let plural = object["resource"].as_str().expect("a resource");
        let namespace = object["namespace"].as_str();
        let namespace = namespace.map_or_else(String::new, |name| format!("{name}/"));
        let uri = request["requestURI"].as_str().expect("a URI");
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let selectors = query.split('&').filter(|part| part.contains("Selector="));
        let selectors: Vec<String> = selectors.map(plain).collect();
        let mark = if selectors.is_empty() { "" } else { "?" };
        format!("{namespace}{plural}{mark}{}", selectors.join("&"))
    });
    names.collect()
}

/// As written before it was escaped for a URL.
fn plain(escaped: &str) -> String {
    let mut plain = escaped.to_owned();
    for (code, letter) in [("%2F", "/"), ("%3D", "="), ("%21", "!"), ("%2C", ",")] {
        plain = plain.replace(code, letter);
    }
    plain
}
