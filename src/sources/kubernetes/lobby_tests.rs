//! Policies of other sources that wait.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kinds::WATCHED;
use super::lobby::{Known, Waits};
use super::needs::Scope;
use crate::events::{Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};
use crate::policy::{PolicyOptions, Repository};

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: name.to_owned(),
    }
}

fn policy(name: &str, rule: &Value) -> RepositoryChange {
    let body = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name}, "spec": {"nodeSelector": {}, "ingress": [rule]}});
    RepositoryChange::Upsert(Resource {
        key: key(name),
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: body.into(),
    })
}

fn of_pods(name: &str) -> RepositoryChange {
    policy(name, &json!({"fromEndpoints": [{}]}))
}

fn all() -> Known {
    let kinds = WATCHED.iter().map(|watched| (watched.kind, Scope::All));
    kinds.collect()
}

#[test]
fn a_policy_waits_for_the_cluster_and_its_source_with_it() {
    let mut repository = Repository::new(PolicyOptions::default());
    let snapshot = repository.snapshot();
    let mut waits = Waits::default();
    let open = policy("open", &json!({"fromEntities": ["all"]}));
    assert_eq!(waits.admit(open.clone(), &snapshot), Some(open));
    assert_eq!(waits.admit(of_pods("pods"), &snapshot), None);
    let owned = BTreeSet::from([key("pods")]);
    waits.tell(SourceName::Manifests, &owned);
    assert!(waits.whole().is_empty(), "it has not told everything");

    // Nodes alone are not enough.
    let nodes = Known::from([(ResourceKind::Node, Scope::All)]);
    assert_eq!(waits.know(nodes), []);
    assert_eq!(waits.know(all()), [of_pods("pods")]);
    assert_eq!(waits.whole()[&SourceName::Manifests], owned);
    assert!(waits.whole().is_empty(), "that is told once");

    // What is in force needs no list again.
    repository.apply(&of_pods("pods"));
    waits.know(Known::new());
    let again = waits.admit(of_pods("pods"), &repository.snapshot());
    assert_eq!(again, Some(of_pods("pods")));
}

#[test]
fn what_waits_is_replaced_and_taken_back() {
    let snapshot = Repository::new(PolicyOptions::default()).snapshot();
    let mut waits = Waits::default();
    assert_eq!(waits.admit(of_pods("a"), &snapshot), None);
    assert_eq!(waits.admit(of_pods("b"), &snapshot), None);
    let open = policy("a", &json!({"fromEntities": ["all"]}));
    assert_eq!(waits.admit(open.clone(), &snapshot), Some(open));
    let (key, source) = (key("b"), SourceName::Manifests);
    let gone = RepositoryChange::Delete { key, source };
    assert_eq!(waits.admit(gone.clone(), &snapshot), Some(gone));
    assert_eq!(waits.know(all()), []);
}
