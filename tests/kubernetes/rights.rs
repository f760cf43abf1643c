//! The rights of `deploy/kubernetes/rbac.yaml` are those that the agent uses, by the
//! server's own account of what it was asked: none is missing, and none is too many.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, DEFINITIONS, POLICIES};
use crate::doors::definition;
use crate::harness::until;
use crate::server::programs;

const SPACE: &str = "/api/v1/namespaces";

#[test]
fn the_agent_has_no_right_that_it_does_not_use() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    let arguments = ["--kube-status-lease", "10"];
    cluster.world.add_arguments(&arguments);
    cluster.world.start_agent();
    // Policies that need every kind, and two that are refused.
    let wide = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "wide"}, "spec": {"nodeSelector": {},
            "ingress": [{"fromCIDRSet": [{"cidrGroupRef": "offices"}]},
                {"fromEndpoints": [{"matchLabels": {"app": "a"}}]}],
            "egress": [{"toServices": [
                {"k8sService": {"serviceName": "kubernetes", "namespace": "default"}}]}]}});
    cluster.create(POLICIES, &wide);
    let refused = |kind: &str, selector: &str| {
        json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "refused"},
            "spec": {selector: {}, "ingress": [{"fromEntities": ["nobody"]}]}})
    };
    let clusterwide = refused("CiliumClusterwideNetworkPolicy", "nodeSelector");
    cluster.create(POLICIES, &clusterwide);
    cluster.create(SPACE, &json!({"metadata": {"name": "shop"}}));
    let path = "/apis/cilium.io/v2/namespaces/shop/ciliumnetworkpolicies";
    cluster.create(path, &refused("CiliumNetworkPolicy", "endpointSelector"));

    let granted = granted();
    let of_cilium = |right: &&String| {
        ["ciliumnodes", "ciliumidentities", "ciliumendpoints"]
            .iter()
            .any(|plural| right.contains(plural))
    };
    wait_used(
        &cluster,
        &granted
            .iter()
            .filter(|it| !of_cilium(it))
            .cloned()
            .collect(),
    );
    for (kind, plural, scope) in [
        ("CiliumNode", "ciliumnodes", "Cluster"),
        ("CiliumIdentity", "ciliumidentities", "Cluster"),
        ("CiliumEndpoint", "ciliumendpoints", "Namespaced"),
    ] {
        cluster.create(DEFINITIONS, &definition(kind, plural, scope));
    }
    wait_used(&cluster, &granted);
    let (_, denied) = used(&cluster);
    assert_eq!(denied, BTreeSet::new(), "rights that are missing");
}

/// Waits until all of these were used.
#[track_caller]
fn wait_used(cluster: &Cluster, rights: &BTreeSet<String>) {
    let mut unused = rights.clone();
    until("every right is used", || {
        let (used, _) = used(cluster);
        let left: BTreeSet<String> = rights.difference(&used).cloned().collect();
        if left != unused {
            // The last line before the wait is given up names them.
            eprintln!("not used yet: {left:?}");
            unused = left;
        }
        unused.is_empty().then_some(())
    });
}

/// What the server allowed the agent, and what it did not.
fn used(cluster: &Cluster) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut used = BTreeSet::new();
    let mut denied = BTreeSet::new();
    for request in cluster.server.asked() {
        let object = &request["objectRef"];
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let resource = match text("subresource") {
            part if part.is_empty() => text("resource"),
            part => format!("{}/{part}", text("resource")),
        };
        if resource.is_empty() {
            continue;
        }
        let verb = request["verb"].as_str().unwrap_or_default();
        let right = format!("{verb} {} {resource}", text("apiGroup"));
        if resource == "palisadenodes" && verb == "patch" {
            // Who makes an object by an apply needs both; one request is noted.
            used.insert(right.replace("patch", "create"));
        }
        if request["responseStatus"]["code"] == 403 {
            denied.insert(right);
        } else {
            used.insert(right);
        }
    }
    (used, denied)
}

/// As they stand in the manifest.
fn granted() -> BTreeSet<String> {
    let text = include_str!("../../deploy/kubernetes/rbac.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let documents = documents.map(|it| Value::deserialize(it).expect("YAML"));
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let words = rule[field].as_array().expect(field).iter();
        words
            .map(|it| it.as_str().expect("a word").to_owned())
            .collect()
    };
    let mut granted = BTreeSet::new();
    for document in documents {
        for rule in document["rules"].as_array().into_iter().flatten() {
            for verb in words(rule, "verbs") {
                for group in words(rule, "apiGroups") {
                    let resources = words(rule, "resources").into_iter();
                    granted.extend(resources.map(|it| format!("{verb} {group} {it}")));
                }
            }
        }
    }
    assert!(granted.len() > 20, "{granted:?}");
    granted
}
