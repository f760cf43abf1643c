//! What changes in the cluster changes on the node.

use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::harness::{HTTP, SSH};
use crate::server::programs;

#[test]
fn policies_and_labels_are_followed() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    assert!(
        cluster.is_open(&[SSH, HTTP]),
        "no policy: nothing is dropped"
    );

    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    expect_probes(&mut cluster);
    let ports = json!({"spec": {"ingress": [{"fromEntities": ["all"],
        "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}]}});
    cluster.patch_policy("ssh", &ports);
    cluster.wait_open(&[HTTP]);

    // The labels of the node choose the policy.
    cluster.set_role("db");
    cluster.wait_open(&[SSH, HTTP]);
    cluster.create_policy("db", "db", &[SSH]);
    cluster.wait_open(&[SSH]);
    cluster.set_role("web");
    cluster.wait_open(&[HTTP]);

    // A broken version is refused with its reason; the last good one stays.
    let broken = json!({"spec": {"ingress": [{"fromEntitys": ["all"]}]}});
    cluster.patch_policy("ssh", &broken);
    let said = until("the refusal is told", || {
        let problems = cluster.problems();
        problems.contains("fromEntitys").then_some(problems)
    });
    assert!(
        said.contains("the last valid version stays in force"),
        "{said}"
    );
    assert!(said.contains("fromEntities"), "{said}");
    assert!(
        cluster.is_open(&[HTTP]),
        "the last valid version is in force"
    );

    expect_report(&cluster);
    expect_columns(&cluster);

    cluster.delete_policy("ssh");
    cluster.wait_open(&[SSH, HTTP]);
    let line = cluster.kind("CiliumClusterwideNetworkPolicy");
    assert_eq!(
        (&line["in_sync"], &line["resources"]),
        (&json!(true), &json!(1))
    );
    let absent = cluster.kind("CiliumNode");
    assert_eq!(absent["in_sync"], true);
    assert_eq!(absent["detail"], "its definition is not installed");
    let text = String::from_utf8(cluster.world.client(&["metrics", "list"]).stdout);
    let text = text.expect("text");
    assert!(text.contains("palisade_source_events_total"), "{text}");
}

/// The node's own object and the Event say that `ssh` is refused, and why.
fn expect_report(cluster: &Cluster) {
    let object = until("the node tells of the refusal", || {
        let path = "/apis/palisade.io/v1alpha1/palisadenodes/host";
        let object = cluster.server.request("GET", path, None)?;
        (object["status"]["policies"]["refused"] == 1).then_some(object)
    });
    let node = cluster.server.request("GET", "/api/v1/nodes/host", None);
    let node = node.expect("the node");
    let owner = &object["metadata"]["ownerReferences"][0];
    assert_eq!(
        owner["uid"], node["metadata"]["uid"],
        "it goes with its node"
    );
    let status = &object["status"];
    assert_eq!(status["ingress"], "enforced", "{object}");
    assert_eq!(status["policies"]["selecting"], 1, "{object}");
    let details = status["details"].as_array().expect("details");
    let line = details.iter().find(|line| line["accepted"] == false);
    let line = line.expect("the refused policy");
    assert_eq!(line["policy"], "CiliumClusterwideNetworkPolicy/ssh");
    assert_eq!(line["inForce"], true);
    assert!(
        line["reasons"].to_string().contains("fromEntitys"),
        "{line}"
    );
    let events = cluster
        .server
        .request("GET", "/api/v1/namespaces/default/events", None);
    let events = events.expect("events");
    let items = events["items"].as_array().expect("items");
    let event = items
        .iter()
        .find(|event| event["reason"] == "PolicyRefused");
    let event = event.unwrap_or_else(|| panic!("no event in {events}"));
    assert_eq!(event["involvedObject"]["name"], "ssh");
    assert!(event["involvedObject"]["uid"].is_string(), "{event}");
    assert!(
        event["message"].to_string().contains("fromEntities"),
        "{event}"
    );
}

/// `kubectl get` says of each policy whether it is valid, and what the nodes do
/// with it.
fn expect_columns(cluster: &Cluster) {
    let path = "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies";
    let columns = |name: &str| cluster.server.columns(&format!("{path}/{name}"));
    let columns = |name: &str, valid: &str| {
        until(&format!("{name} is counted as {valid}"), || {
            columns(name).filter(|columns| columns["Valid"] == valid)
        })
    };
    // The third version is refused; the second is what the node enforces.
    let ssh = columns("ssh", "False");
    let numbers = ["Nodes", "Enforcing", "Revision", "Generation"].map(|name| ssh[name].clone());
    assert_eq!(json!(numbers), json!([1, 1, 2, 3]), "{ssh:?}");
    // It selects no node now.
    let db = columns("db", "True");
    let numbers = ["Nodes", "Enforcing", "Revision", "Generation"].map(|name| db[name].clone());
    assert_eq!(json!(numbers), json!([0, 0, null, 1]), "{db:?}");
    let object = cluster.server.request("GET", &format!("{path}/ssh"), None);
    let status = &object.expect("the policy")["status"]["palisade"];
    assert!(status["message"].to_string().contains("fromEntitys"));
    // Its status is not a version of the policy.
    let lease = "/apis/coordination.k8s.io/v1/namespaces/palisade/leases/palisade-status";
    let lease = cluster.server.request("GET", lease, None).expect("a lease");
    assert_eq!(lease["spec"]["holderIdentity"], "host");
}

/// What the kubelet runs in the agent's container says that all is well.
fn expect_probes(cluster: &mut Cluster) {
    let daemon = include_str!("../../deploy/kubernetes/daemonset.yaml");
    let daemon: Value = serde_yaml_ng::from_str(daemon).expect("YAML");
    let container = &daemon["spec"]["template"]["spec"]["containers"][0];
    for probe in ["readinessProbe", "livenessProbe"] {
        let words = container[probe]["exec"]["command"].as_array();
        let words: Vec<&str> = words
            .into_iter()
            .flatten()
            .flat_map(Value::as_str)
            .collect();
        assert_eq!(words.first(), Some(&"palisade"), "{probe}");
        until(&format!("the {probe} succeeds"), || {
            let output = cluster.world.client(&words[1..]);
            output.status.success().then_some(())
        });
    }
}

#[test]
fn definitions_come_and_go() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.world.start_agent();
    let line = cluster.kind("CiliumClusterwideNetworkPolicy");
    assert_eq!(line["in_sync"], true, "absence is no error: {line}");
    assert_eq!(cluster.problems(), "[]");

    cluster.install_definitions();
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);

    let name = "ciliumclusterwidenetworkpolicies.cilium.io";
    cluster.delete_definition(name);
    cluster.wait_open(&[SSH, HTTP]);
    cluster.delete_definition("ciliumnetworkpolicies.cilium.io");
    cluster.delete_definition("ciliumcidrgroups.cilium.io");
    cluster.install_definitions();
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[HTTP]);
}

#[test]
fn the_first_owner_of_a_policy_keeps_it() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    let manifest = crate::cluster::policy("ours", "web", &[SSH]).to_string();
    cluster.world.manifest("ours.json", &manifest);
    cluster.world.start_agent();
    cluster.wait_open(&[SSH]);

    cluster.create_policy("ours", "web", &[HTTP]);
    let dump = until("the claim is told", || {
        let dump = cluster.world.agent().json(&["policy", "get", "ours"]);
        let dump = dump.expect("the policy");
        let refused = &dump["policies"][0]["refused"][0];
        (refused["source"] == "kubernetes").then_some(dump)
    });
    assert_eq!(dump["policies"][0]["source"], "manifests", "{dump}");
    assert!(
        cluster
            .problems()
            .contains("belongs to the source manifests")
    );
    assert!(cluster.is_open(&[SSH]), "the manifest is in force");

    // Nobody else owns it any more: it is the cluster's.
    cluster.world.remove_manifest("ours.json");
    cluster.wait_open(&[HTTP]);
    let dump = cluster.world.agent().json(&["policy", "get", "ours"]);
    let dump = dump.expect("the policy");
    assert_eq!(dump["policies"][0]["source"], "kubernetes", "{dump}");
}
