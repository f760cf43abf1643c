//! Who an address is, by pods, namespaces, nodes and whatever Cilium says.

use super::tests::{identity_of, options, policy, upserts};
use super::{Applied, Repository};
use crate::events::{RepositoryChange, SourceName};

const NAMESPACE: &str =
    "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}";
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: \
    {app: web, pod-template-hash: x1}}, spec: {serviceAccountName: seller}, status: {podIP: \
    10.1.0.1}}";
const IDENTITY: &str = "{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: '4242'}, \
    security-labels: {'k8s:app': web, 'k8s:io.cilium.k8s.namespace.labels.team': a, \
    'k8s:io.cilium.k8s.policy.cluster': default, 'k8s:io.cilium.k8s.policy.serviceaccount': \
    seller, 'k8s:io.kubernetes.pod.namespace': shop}}";
const ENDPOINT: &str = "{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: web, \
    namespace: shop}, status: {identity: {id: 777, labels: ['k8s:app=other']}, networking: \
    {addressing: [{ipv4: 10.1.0.1}]}}}";
const API: &str = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: api, \
    namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, \
    endpoints: [{addresses: [10.0.0.2, 192.0.2.9]}]}";
const OTHER_NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: other, labels: {zone: b}}, \
    status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}";
/// What the labels of the pod are, in the order in which they are shown.
const WEB: &str = "k8s:app=web k8s:io.cilium.k8s.namespace.labels.team=a \
    k8s:io.cilium.k8s.policy.cluster=default k8s:io.cilium.k8s.policy.serviceaccount=seller \
    k8s:io.kubernetes.pod.namespace=shop";

fn upsert(repository: &mut Repository, text: &str) -> Applied {
    let change = upserts(text, SourceName::Manifests).remove(0);
    let applied = repository.apply(&change);
    assert!(!matches!(applied, Applied::Refused(_)), "{applied:?}");
    applied
}

fn delete(repository: &mut Repository, text: &str) {
    let RepositoryChange::Upsert(resource) = upserts(text, SourceName::Manifests).remove(0) else {
        unreachable!("an upsert");
    };
    let applied = repository.apply(&RepositoryChange::Delete {
        key: resource.key,
        source: SourceName::Manifests,
    });
    assert!(!matches!(applied, Applied::Refused(_)), "{applied:?}");
}

#[test]
fn pods_are_their_labels_and_those_of_their_namespace() {
    let mut repository = Repository::new(options());
    let r = &mut repository;
    assert_eq!(upsert(r, NAMESPACE), Applied::Unchanged);
    assert!(matches!(upsert(r, POD), Applied::Changed(_)));
    assert_eq!(identity_of(r, "10.1.0.1"), format!("256 {WEB}"));
    upsert(r, &NAMESPACE.replace("team: a", "team: b"));
    let other = WEB.replace("team=a", "team=b");
    assert_eq!(identity_of(r, "10.1.0.1"), format!("257 {other}"));
    upsert(r, NAMESPACE);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("258 {WEB}"));
    // What changes with each roll-out is no identity.
    let applied = upsert(r, &POD.replace("x1", "x2"));
    assert_eq!(applied, Applied::Unchanged);
    delete(r, POD);
    assert_eq!(identity_of(r, "10.1.0.1"), "2 reserved:world");
    assert_eq!(r.snapshot().identities.len(), 11);
}

#[test]
fn numbers_of_cilium_are_kept_and_mean_one_thing() {
    let mut repository = Repository::new(options());
    let r = &mut repository;
    for text in [NAMESPACE, POD, IDENTITY] {
        upsert(r, text);
    }
    assert_eq!(identity_of(r, "10.1.0.1"), format!("4242 {WEB}"));
    // An endpoint knows better than the pod.
    upsert(r, ENDPOINT);
    assert_eq!(identity_of(r, "10.1.0.1"), "777 k8s:app=other");
    delete(r, ENDPOINT);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("4242 {WEB}"));
    // Nobody else uses the number: it stays.
    delete(r, IDENTITY);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("4242 {WEB}"));
    // A number that was ours to give is given up when Cilium uses it.
    let another = POD.replace("web", "db").replace("10.1.0.1", "10.1.0.2");
    upsert(r, &another);
    let (number, labels) = {
        let shown = identity_of(r, "10.1.0.2");
        let (number, labels) = shown.split_once(' ').expect("number and labels");
        (number.to_owned(), labels.to_owned())
    };
    let claimed = IDENTITY
        .replace("4242", &number)
        .replace("'k8s:app': web", "'k8s:app': x");
    upsert(r, &claimed);
    let shown = identity_of(r, "10.1.0.2");
    assert!(shown.ends_with(&labels), "{shown}");
    assert!(!shown.starts_with(&number), "{shown}");
}

#[test]
fn no_number_of_a_cluster_is_given_here() {
    let mut shared = options();
    shared.numbers_are_shared = true;
    let mut repository = Repository::new(shared.clone());
    let r = &mut repository;
    for text in [NAMESPACE, POD] {
        upsert(r, text);
    }
    // Nobody has numbered it yet.
    assert_eq!(identity_of(r, "10.1.0.1"), format!("50331649 {WEB}"));
    upsert(r, IDENTITY);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("4242 {WEB}"));
    // The cluster may give it to others from now on.
    delete(r, IDENTITY);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("50331650 {WEB}"));
    upsert(r, IDENTITY);
    assert_eq!(identity_of(r, "10.1.0.1"), format!("4242 {WEB}"));
    upsert(r, &IDENTITY.replace("'k8s:app': web", "'k8s:app': x"));
    assert_eq!(identity_of(r, "10.1.0.1"), format!("50331651 {WEB}"));

    // A record of a time without a cluster: what it gave by itself is given up.
    let mut alone = Repository::new(options());
    let r = &mut alone;
    for text in [NAMESPACE, POD] {
        upsert(r, text);
    }
    assert_eq!(identity_of(r, "10.1.0.1"), format!("256 {WEB}"));
    let joined = Repository::import(r.export(), shared).expect("a record");
    assert_eq!(identity_of(&joined, "10.1.0.1"), format!("50331649 {WEB}"));
    // And back.
    let left = Repository::import(joined.export(), options()).expect("a record");
    assert_eq!(identity_of(&left, "10.1.0.1"), format!("257 {WEB}"));
}

#[test]
fn nodes_are_told_apart_while_a_rule_asks() {
    let mut repository = Repository::new(options());
    let r = &mut repository;
    upsert(r, OTHER_NODE);
    assert_eq!(identity_of(r, "10.0.0.2"), "6 reserved:remote-node");
    let by_zone = "nodeSelector: {}\ningress: [{fromNodes: [{matchLabels: {zone: b}}]}]";
    r.apply(&policy("p", by_zone));
    let apart = "33554433 node:zone=b reserved:remote-node";
    assert_eq!(identity_of(r, "10.0.0.2"), apart);
    r.apply(&policy("p", "nodeSelector: {}\ningress: [{}]"));
    assert_eq!(identity_of(r, "10.0.0.2"), "6 reserved:remote-node");
}

#[test]
fn the_kubernetes_api_is_known_wherever_it_is() {
    let mut repository = Repository::new(options());
    let r = &mut repository;
    upsert(r, OTHER_NODE);
    upsert(r, API);
    assert_eq!(
        identity_of(r, "10.0.0.2"),
        "7 reserved:kube-apiserver reserved:remote-node"
    );
    assert_eq!(
        identity_of(r, "192.0.2.9"),
        "16777217 cidr:192.0.2.9/32 reserved:kube-apiserver reserved:world"
    );
    let local = vec!["192.0.2.9".parse().expect("an address")];
    r.apply(&RepositoryChange::LocalAddresses(local));
    assert_eq!(
        identity_of(r, "192.0.2.9"),
        "1 reserved:host reserved:kube-apiserver"
    );
    delete(r, API);
    assert_eq!(identity_of(r, "192.0.2.9"), "1 reserved:host");
    assert_eq!(identity_of(r, "10.0.0.2"), "6 reserved:remote-node");
}

#[test]
fn groups_list_prefixes_while_a_rule_asks() {
    const GROUP: &str = "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: \
        partners}, spec: {externalCIDRs: [192.0.2.0/24]}}";
    let mut repository = Repository::new(options());
    let r = &mut repository;
    assert_eq!(upsert(r, GROUP), Applied::Unchanged);
    let by_group = "nodeSelector: {}\ningress: [{fromCIDRSet: [{cidrGroupRef: partners}]}]";
    r.apply(&policy("p", by_group));
    let member = "cidr:192.0.2.0/24 cidrgroup:io.cilium.policy.cidrgroupname/partners \
                  reserved:world";
    assert_eq!(identity_of(r, "192.0.2.9"), format!("16777217 {member}"));
    upsert(r, &GROUP.replace("192.0.2.0/24", "198.51.100.0/24"));
    assert_eq!(identity_of(r, "192.0.2.9"), "2 reserved:world");
    assert!(identity_of(r, "198.51.100.1").starts_with("16777218 cidr:198.51.100.0/24"));
    let entries = r.snapshot().selectors();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].selector, "cidr group partners");
    assert_eq!(entries[0].identities[0].0, 16_777_218);
    assert_eq!(entries[0].users[0].name, "p");
}
