//! Whatever the order of changes: the selections equal those from nothing, a
//! repository that got only the last word on everything, and one of a record.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Applied, Repository};
use crate::events::{Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};
use crate::identity::{IdentityKey, IdentityNumber};
use crate::policy::selections::selectors_of;
use crate::policy::{FailsafeEntry, PolicyOptions, PolicySnapshot, Selections, Selector};

/// Peers of rules, by section and field.
const PEERS: [(&str, &str); 22] = [
    ("ingress", r#"{"fromEntities": ["cluster", "world"]}"#),
    ("ingress", r#"{"fromEntities": ["all"]}"#),
    (
        "ingress",
        r#"{"fromEntities": ["kube-apiserver", "remote-node"]}"#,
    ),
    ("ingressDeny", r#"{"fromEntities": ["cluster-mesh"]}"#),
    ("ingress", r#"{"fromCIDR": ["10.0.0.0/8", "10.0.1.0/24"]}"#),
    (
        "ingress",
        r#"{"fromCIDR": ["10.0.0.1/32", "2001:db8::/32"]}"#,
    ),
    (
        "egress",
        r#"{"toCIDRSet": [{"cidr": "10.0.0.0/16", "except": ["10.0.1.0/24"]}]}"#,
    ),
    ("egress", r#"{"toCIDR": ["0.0.0.0/0"]}"#),
    ("ingress", r#"{"fromCIDRSet": [{"cidrGroupRef": "g0"}]}"#),
    (
        "ingress",
        r#"{"fromCIDRSet": [{"cidrGroupRef": "g1"}, {"cidrGroupRef": "g0"}]}"#,
    ),
    (
        "egress",
        r#"{"toCIDRSet": [{"cidrGroupSelector": {"matchLabels": {"l0": "v0"}}}]}"#,
    ),
    ("ingress", r#"{"fromEndpoints": [{}]}"#),
    (
        "ingress",
        r#"{"fromEndpoints": [{"matchLabels": {"l0": "v0"}}]}"#,
    ),
    (
        "ingress",
        r#"{"fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "n0"}}]}"#,
    ),
    (
        "egress",
        r#"{"toEndpoints": [{"matchExpressions": [{"key": "l1", "operator": "In", "values": ["v0", "v1"]}]}]}"#,
    ),
    (
        "egressDeny",
        r#"{"toEndpoints": [{"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]}]}"#,
    ),
    (
        "ingress",
        r#"{"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.namespace.labels.l0": "v1"}}]}"#,
    ),
    (
        "ingress",
        r#"{"fromEndpoints": [{"matchExpressions": [{"key": "cidr:10.0.0.0/8", "operator": "Exists"}]}]}"#,
    ),
    (
        "ingress",
        r#"{"fromEndpoints": [{"matchExpressions": [{"key": "cidrgroup:io.cilium.policy.cidrgroupname/g0", "operator": "Exists"}, {"key": "reserved:world", "operator": "Exists"}]}]}"#,
    ),
    (
        "ingress",
        r#"{"fromNodes": [{"matchLabels": {"l0": "v0"}}]}"#,
    ),
    (
        "egress",
        r#"{"toServices": [{"k8sService": {"serviceName": "s0", "namespace": "n0"}}]}"#,
    ),
    (
        "egress",
        r#"{"toServices": [{"k8sServiceSelector": {"selector": {"matchLabels": {"l0": "v0"}}}}]}"#,
    ),
];

const ADDRESSES: [&str; 8] = [
    "10.0.0.1",
    "10.0.1.1",
    "10.0.1.2",
    "10.9.0.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8::2",
    "10.0.0.2",
];
const PREFIXES: [&str; 6] = [
    "10.0.0.0/8",
    "10.0.1.0/24",
    "10.0.1.1/32",
    "192.0.2.0/24",
    "2001:db8::/64",
    "0.0.0.0/0",
];

/// What a step is made of: the numbers choose.
type Step = (u8, u8, u16);

fn labels(seed: u16) -> Value {
    let mut labels = serde_json::Map::new();
    for (place, name) in ["l0", "l1"].into_iter().enumerate() {
        let value = (seed >> (2 * place)) & 3;
        if value < 3 {
            labels.insert(name.to_owned(), json!(format!("v{value}")));
        }
    }
    Value::Object(labels)
}

fn address(seed: u16) -> &'static str {
    ADDRESSES[usize::from(seed) % ADDRESSES.len()]
}

fn spec(seed: u16, high: u16) -> Value {
    let mut spec = json!({"nodeSelector": {"matchLabels": {}}});
    if seed.is_multiple_of(5) {
        spec["nodeSelector"] = json!({"matchLabels": {"l0": "v0"}});
    }
    for seed in [seed, high] {
        let (section, item) = PEERS[usize::from(seed) % PEERS.len()];
        spec[section] = json!([serde_json::from_str::<Value>(item).expect("JSON")]);
    }
    spec
}

fn endpoint(seed: u16, high: u16) -> Value {
    let identity = json!({
        "id": 256 + (high & 3),
        "labels": [format!("k8s:l0=v{}", seed & 1), "k8s:io.kubernetes.pod.namespace=n0"],
    });
    let body = json!({"status": {
        "networking": {"addressing": [{"ipv4": address(0), "ipv6": address(5)}]},
        "identity": if seed.is_multiple_of(7) { Value::Null } else { identity },
    }});
    body
}

/// The object of a step: a key and its body.
fn object((kind, name, seed): Step) -> (ResourceKey, Value) {
    use ResourceKind as Kind;
    let namespace = format!("n{}", name / 2 % 2);
    let two = name % 2;
    let high = seed >> 4;
    let (kind, namespace, name, body) = match kind % 12 {
        0..=2 => {
            let spec = spec(seed, high);
            let name = format!("p{}", name % 4);
            (
                Kind::CiliumClusterwideNetworkPolicy,
                None,
                name,
                json!({"spec": spec}),
            )
        }
        3 => {
            let kind = if seed % 3 == 0 {
                Kind::CiliumNode
            } else {
                Kind::Node
            };
            let name = ["self", "a", "b"][usize::from(name) % 3].to_owned();
            let addresses = json!([{
                "type": "InternalIP", "address": address(high), "ip": address(high),
            }]);
            let part = if kind == Kind::Node { "status" } else { "spec" };
            (kind, None, name, json!({part: {"addresses": addresses}}))
        }
        4 => (Kind::Namespace, None, namespace, json!({})),
        5 | 6 => {
            let ports = json!([{"name": format!("q{}", high % 2), "containerPort": 80 + high % 3}]);
            let body = json!({
                "spec": {"containers": [{"name": "c", "ports": ports}]},
                "status": {"podIPs": [{"ip": address(high)}, {"ip": address(high >> 3)}]},
            });
            (Kind::Pod, Some(namespace), format!("pod{}", name % 4), body)
        }
        7 => {
            let selector = if seed % 2 == 0 {
                json!({})
            } else {
                json!({"l1": "v1"})
            };
            let body = json!({"spec": {"selector": selector}});
            (Kind::Service, Some(namespace), format!("s{two}"), body)
        }
        8 => {
            let (namespace, service) = match high % 3 {
                0 => ("default".to_owned(), "kubernetes".to_owned()),
                _ => (namespace, format!("s{two}")),
            };
            let body = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": service}},
                "addressType": if address(seed).contains(':') { "IPv6" } else { "IPv4" },
                "endpoints": [{"addresses": [address(seed)]}],
            });
            (
                Kind::EndpointSlice,
                Some(namespace),
                format!("e{two}"),
                body,
            )
        }
        9 => {
            let of = |seed: u16| format!("v{}", seed & 1);
            let body = json!({"security-labels": {
                "k8s:l0": of(seed), "k8s:io.kubernetes.pod.namespace": namespace,
            }});
            (
                Kind::CiliumIdentity,
                None,
                format!("{}", 256 + u16::from(name % 4)),
                body,
            )
        }
        10 => {
            let body = endpoint(seed, high);
            (
                Kind::CiliumEndpoint,
                Some(namespace),
                format!("pod{two}"),
                body,
            )
        }
        _ => {
            let of = |seed: u16| PREFIXES[usize::from(seed) % PREFIXES.len()];
            let body = json!({"spec": {"externalCIDRs": [of(seed), of(high)]}});
            (Kind::CiliumCIDRGroup, None, format!("g{two}"), body)
        }
    };
    named(kind, namespace, name, body, seed)
}

fn named(
    kind: ResourceKind,
    namespace: Option<String>,
    name: String,
    mut body: Value,
    seed: u16,
) -> (ResourceKey, Value) {
    let key = ResourceKey {
        kind,
        namespace,
        name,
    };
    if !body["metadata"]["labels"].is_object() && !kind.is_policy() {
        body["metadata"]["labels"] = labels(seed);
    }
    body["metadata"]["name"] = json!(key.name);
    body["kind"] = json!(kind.as_str());
    (key, body)
}

fn upsert((key, body): &(ResourceKey, Value)) -> RepositoryChange {
    RepositoryChange::Upsert(Resource {
        key: key.clone(),
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: body.into(),
    })
}

fn delete(key: &ResourceKey) -> RepositoryChange {
    RepositoryChange::Delete {
        key: key.clone(),
        source: SourceName::Manifests,
    }
}

fn options(seed: u8) -> PolicyOptions {
    let failsafe = FailsafeEntry {
        direction: 0,
        proto: 6,
        port: 22,
        peer: Some("10.0.1.0/24".parse().expect("a prefix")),
    };
    PolicyOptions {
        node_name: "self".to_owned(),
        cidr_match_nodes: seed & 1 > 0,
        failsafe: if seed & 2 > 0 {
            vec![failsafe]
        } else {
            Vec::new()
        },
        ..PolicyOptions::default()
    }
}

/// The selectors that select each identity, by what it is, and its named ports.
fn selected(snapshot: &PolicySnapshot, selections: &Selections) -> BTreeMap<IdentityKey, String> {
    let names: BTreeMap<_, Selector> = selections
        .ids
        .iter()
        .map(|(selector, id)| (id, selector))
        .collect();
    let of = |index| {
        let signature = selections.by_identity.get(&index).expect("all are there");
        let selectors: BTreeSet<_> = signature.iter().map(|id| names[id].to_string()).collect();
        let ports = snapshot.selections.named_ports.get(&index);
        format!("{selectors:?} {ports:?}")
    };
    let live = snapshot.identities.live();
    live.map(|identity| (identity.key.clone(), of(identity.index)))
        .collect()
}

/// Everything but numbers and indexes.
fn seen(repository: &Repository) -> Vec<String> {
    let snapshot = repository.snapshot();
    let mut lines = vec![format!("{:?}", snapshot.host_labels)];
    for (key, selected) in selected(&snapshot, &snapshot.selections) {
        let index = snapshot.identities.index_of(&key).expect("live");
        let live = snapshot.identities.live_at(index).expect("live");
        lines.push(format!(
            "{key:?} {:?} {selected}",
            snapshot.identities.labels(live)
        ));
    }
    let key_of = |identity: IdentityNumber, index| {
        let live = snapshot
            .identities
            .live_at(index)
            .expect("in the ipcache, hence live");
        assert_eq!(live.number, identity);
        assert_eq!(snapshot.identities.get_live(identity), Some(live));
        live.key.clone()
    };
    for (net, entry) in &snapshot.ipcache4 {
        let source = snapshot.ipcache_source((*net).into());
        lines.push(format!(
            "{net} {:?} {source:?}",
            key_of(entry.identity, entry.index)
        ));
    }
    for (net, entry) in &snapshot.ipcache6 {
        let source = snapshot.ipcache_source((*net).into());
        lines.push(format!(
            "{net} {:?} {source:?}",
            key_of(entry.identity, entry.index)
        ));
    }
    let live = snapshot.identities.live().count();
    assert_eq!(snapshot.selections.by_identity.len(), live);
    lines
}

fn from_scratch(snapshot: &PolicySnapshot) -> Selections {
    let failsafe = snapshot
        .options
        .failsafe
        .iter()
        .filter_map(|entry| entry.peer);
    let mut selectors: BTreeSet<_> = failsafe.map(Selector::Address).collect();
    for stored in snapshot.policies.values() {
        selectors.extend(selectors_of(&stored.policy, &snapshot.host_labels));
    }
    Selections::from_scratch(
        &selectors,
        &snapshot.identities,
        &snapshot.objects,
        &snapshot.options,
    )
}

/// The last word on everything, told to a new repository in another order.
fn told_at_once(
    steps: &BTreeMap<ResourceKey, Value>,
    locals: &RepositoryChange,
    options: PolicyOptions,
    backwards: bool,
) -> Repository {
    let mut repository = Repository::new(options);
    let mut changes: Vec<RepositoryChange> = steps
        .iter()
        .map(|(key, body)| upsert(&(key.clone(), body.clone())))
        .collect();
    changes.push(locals.clone());
    if backwards {
        changes.reverse();
    }
    for change in changes {
        repository.apply(&change);
    }
    repository
}

fn check(steps: &[Step], seed: u8) -> Result<(), TestCaseError> {
    let mut repository = Repository::new(options(seed));
    let mut last: BTreeMap<ResourceKey, Value> = BTreeMap::new();
    let mut locals = RepositoryChange::LocalAddresses(Vec::new());
    for (number, step) in steps.iter().enumerate() {
        let (key, body) = object(*step);
        let change = match step.1 >> 4 {
            0..=3 => delete(&key),
            4 => RepositoryChange::LocalAddresses(vec![address(step.2).parse().expect("one")]),
            _ => upsert(&(key.clone(), body.clone())),
        };
        let revision = repository.revision();
        let applied = repository.apply(&change);
        prop_assert!(!matches!(applied, Applied::Refused(_)), "{:?}", applied);
        match &change {
            RepositoryChange::Upsert(_) => drop(last.insert(key, body)),
            RepositoryChange::Delete { .. } => drop(last.remove(&key)),
            _ => locals = change.clone(),
        }
        let snapshot = repository.snapshot();
        let scratch = from_scratch(&snapshot);
        prop_assert_eq!(
            selected(&snapshot, &snapshot.selections),
            selected(&snapshot, &scratch),
            "from nothing, after {:?}",
            change
        );
        if applied == Applied::Unchanged {
            prop_assert_eq!(repository.revision(), revision);
        }
        if number + 1 == steps.len() || number % 8 == 7 {
            let seen = seen(&repository);
            for backwards in [false, true] {
                let other = told_at_once(&last, &locals, options(seed), backwards);
                prop_assert_eq!(&seen, &self::seen(&other), "told at once");
            }
            let record = repository.export();
            let copy = Repository::import(record.clone(), options(seed)).expect("this layout");
            prop_assert_eq!(&seen, &self::seen(&copy), "of a record");
            prop_assert_eq!(copy.export(), record);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn increments_equal_the_whole(
        steps in proptest::collection::vec(any::<Step>(), 1..60),
        seed in any::<u8>(),
    ) {
        check(&steps, seed)?;
    }
}
