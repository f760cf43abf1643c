//! What is needed by which policies, and what waits for it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::demand::Demand;
use super::needs::{Needs, Scope, claims};
use crate::events::{Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};
use crate::policy::language::read_policy;
use crate::policy::{PolicyOptions, PolicySnapshot, Repository};

const NODE: &str = "one";

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: None,
        name: name.to_owned(),
    }
}

fn put(kind: ResourceKind, name: &str, mut body: Value) -> RepositoryChange {
    body["apiVersion"] = match kind {
        ResourceKind::Node => json!("v1"),
        _ => json!("cilium.io/v2"),
    };
    body["kind"] = json!(kind.as_str());
    body["metadata"]["name"] = json!(name);
    RepositoryChange::Upsert(Resource {
        key: key(kind, name),
        source: SourceName::Kubernetes,
        origin: Origin::default(),
        body: body.into(),
    })
}

/// A policy for nodes of a role.
fn policy(name: &str, role: &str, rule: &Value) -> RepositoryChange {
    let mut spec = rule.clone();
    spec["nodeSelector"] = json!({"matchLabels": {"role": role}});
    let kind = ResourceKind::CiliumClusterwideNetworkPolicy;
    put(kind, name, json!({"spec": spec}))
}

fn role(role: &str) -> RepositoryChange {
    let metadata = json!({"metadata": {"labels": {"role": role}}});
    put(ResourceKind::Node, NODE, metadata)
}

fn of_pods() -> Value {
    json!({"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "a"}}]}]})
}

fn of_nodes() -> Value {
    json!({"ingress": [{"fromNodes": [{"matchLabels": {"role": "db"}}]}]})
}

/// Kinds of which more is needed than without any policy.
fn more(needs: Needs) -> String {
    let kinds = [
        (ResourceKind::Node, "nodes"),
        (ResourceKind::Pod, "pods"),
        (ResourceKind::Service, "services"),
        (ResourceKind::CiliumCIDRGroup, "groups"),
    ];
    let needed = kinds
        .iter()
        .filter(|(kind, _)| needs.scope(*kind) == Scope::All);
    needed.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_rule_needs_what_tells_its_peers_apart() {
    for (rule, expected) in [
        (json!({"ingress": [{}]}), ""),
        (json!({"ingress": [{"fromEntities": ["all"]}]}), ""),
        (
            json!({"egress": [{"toEntities": ["kube-apiserver", "host"]}]}),
            "",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "80"}]}]}]}),
            "",
        ),
        (
            json!({"ingress": [{"fromEntities": ["remote-node"]}]}),
            "nodes",
        ),
        (of_nodes(), "nodes"),
        (of_pods(), "nodes pods"),
        (
            json!({"ingressDeny": [{"fromEntities": ["world"]}]}),
            "nodes pods",
        ),
        (
            json!({"egress": [{"toCIDR": ["192.0.2.0/24"]}]}),
            "nodes pods",
        ),
        (
            json!({"egress": [{"toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}]}),
            "nodes pods",
        ),
        (
            json!({"ingress": [{"fromCIDRSet": [{"cidrGroupRef": "g"}]}]}),
            "nodes pods groups",
        ),
        (
            json!({"egress": [{"toServices": [
                {"k8sService": {"serviceName": "s", "namespace": "n"}}]}]}),
            "nodes pods services",
        ),
    ] {
        let RepositoryChange::Upsert(resource) = policy("p", "web", &rule) else {
            panic!("not a version of a policy")
        };
        let read = read_policy(&resource.key, &resource.body.value());
        let policy = read
            .value
            .unwrap_or_else(|| panic!("{rule}: {:?}", read.errors));
        let mut found = Demand::new(NODE, &snapshot());
        let all = |needs| {
            // Every role: whatever it is for, this is what it needs.
            assert_eq!(more(needs), expected, "{rule}");
            true
        };
        let has_claims = !claims(&policy).is_empty();
        assert!(has_claims || expected.is_empty(), "{rule}");
        found.admit(role("web"), &snapshot(), &|_| true);
        let admitted = found.admit(RepositoryChange::Upsert(resource), &snapshot(), &all);
        assert!(admitted.is_some());
        assert_eq!(more(found.needs()), expected, "{rule}");
    }
}

/// A repository that knows nothing yet.
fn snapshot() -> Arc<PolicySnapshot> {
    let options = PolicyOptions {
        node_name: NODE.to_owned(),
        ..PolicyOptions::default()
    };
    Repository::new(options).snapshot()
}

fn names(changes: &[RepositoryChange]) -> Vec<String> {
    let keys = changes.iter().filter_map(RepositoryChange::key);
    keys.map(|key| key.name.clone()).collect()
}

#[test]
fn only_what_a_policy_names_is_waited_for() {
    let must_know = |rule: Value| {
        let mut demand = Demand::new(NODE, &snapshot());
        demand.admit(role("web"), &snapshot(), &|_| true);
        demand.admit(policy("p", "web", &rule), &snapshot(), &|_| true);
        let needs = demand.needs();
        [
            ResourceKind::Node,
            ResourceKind::Pod,
            ResourceKind::EndpointSlice,
        ]
        .map(|kind| needs.must_know(kind))
    };
    let simple = json!({"ingress": [{"fromEntities": ["all"]}]});
    assert_eq!(must_know(simple), [Scope::Nothing; 3]);
    let servers = json!({"egress": [{"toEntities": ["kube-apiserver"]}]});
    let expected = [Scope::Nothing, Scope::Nothing, Scope::Own];
    assert_eq!(must_know(servers), expected);
    let expected = [Scope::All, Scope::All, Scope::Nothing];
    assert_eq!(must_know(of_pods()), expected);
}

#[test]
fn a_policy_waits_for_what_it_needs_and_others_do_not() {
    let snapshot = snapshot();
    let mut demand = Demand::new(NODE, &snapshot);
    assert!(demand.admit(role("web"), &snapshot, &|_| true).is_some());
    let nothing = |needs: Needs| more(needs).is_empty();
    // Another node's policy needs nothing here.
    let of_others = policy("others", "db", &of_pods());
    assert!(demand.admit(of_others, &snapshot, &nothing).is_some());
    assert_eq!(more(demand.needs()), "");

    let waits = policy("pods", "web", &of_pods());
    assert!(demand.admit(waits.clone(), &snapshot, &nothing).is_none());
    assert_eq!(more(demand.needs()), "nodes pods", "it is asked for");
    assert!(demand.release(&snapshot, &nothing).is_empty());
    let simple = policy("simple", "web", &json!({"ingress": [{}]}));
    assert!(demand.admit(simple, &snapshot, &nothing).is_some());
    assert_eq!(names(&demand.release(&snapshot, &|_| true)), ["pods"]);
    assert_eq!(demand.waiting().count(), 0);
    assert_eq!(more(demand.needs()), "nodes pods", "as long as it is there");

    // What is deleted while it waits does not come after all.
    assert!(demand.admit(waits, &snapshot, &nothing).is_none());
    let deleted = RepositoryChange::Delete {
        key: key(ResourceKind::CiliumClusterwideNetworkPolicy, "pods"),
        source: SourceName::Kubernetes,
    };
    assert!(demand.admit(deleted, &snapshot, &nothing).is_some());
    assert!(demand.release(&snapshot, &|_| true).is_empty());
    assert_eq!(more(demand.needs()), "");
}

#[test]
fn labels_that_let_a_policy_select_the_node_wait_for_what_it_needs() {
    let snapshot = snapshot();
    let mut demand = Demand::new(NODE, &snapshot);
    demand.admit(role("web"), &snapshot, &|_| true);
    demand.admit(policy("db", "db", &of_pods()), &snapshot, &|_| true);
    demand.admit(policy("web", "web", &of_nodes()), &snapshot, &|_| true);
    assert_eq!(more(demand.needs()), "nodes");

    let only_nodes = |needs: Needs| !more(needs).contains("pods");
    assert!(demand.admit(role("db"), &snapshot, &only_nodes).is_none());
    assert_eq!(more(demand.needs()), "nodes pods");
    // Back again before it was listed: nothing is needed any more.
    assert!(demand.admit(role("web"), &snapshot, &only_nodes).is_some());
    assert_eq!(more(demand.needs()), "nodes");
    assert!(demand.admit(role("db"), &snapshot, &only_nodes).is_none());
    assert_eq!(names(&demand.release(&snapshot, &|_| true)), [NODE]);
    assert_eq!(more(demand.needs()), "nodes pods");
}

#[test]
fn a_version_that_will_be_refused_changes_nothing() {
    let snapshot = snapshot();
    let mut demand = Demand::new(NODE, &snapshot);
    demand.admit(role("web"), &snapshot, &|_| true);
    demand.admit(policy("p", "web", &of_pods()), &snapshot, &|_| true);
    let broken = policy("p", "web", &json!({"ingress": [{"fromEntitys": ["all"]}]}));
    assert!(demand.admit(broken, &snapshot, &|_| true).is_some());
    assert_eq!(
        more(demand.needs()),
        "nodes pods",
        "the one before is in force"
    );
}
