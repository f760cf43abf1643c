//! The objects of the benchmark: what a cluster of some size tells one node.

use palisade::events::{RepositoryChange, ResourceKey, SourceName};
use palisade::policy::documents;
use serde_json::{Value, json};

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    pub(crate) nodes: usize,
    /// Rules for a peer and a port of their own each.
    pub(crate) pairs: usize,
}

pub(crate) const NODE: &str = "self";
const APPS: usize = 500;
const NAMESPACES: usize = 20;
const TIERS: usize = 5;
const ZONES: usize = 5;
pub(crate) const GROUPS: usize = 10;
const GROUP_PREFIXES: usize = 20;
const PORTS: usize = 40;
/// Pairs in one policy.
const PAIRS: usize = 500;

/// A manifest, as a source would hand it over.
fn change(object: &Value) -> RepositoryChange {
    let reading = documents::read(
        "bench",
        object.to_string().as_bytes(),
        SourceName::Manifests,
    );
    let [document] = &reading.documents[..] else {
        panic!("not read: {reading:?}");
    };
    RepositoryChange::Upsert(document.resource.clone())
}

/// The key of what a change brings.
pub(crate) fn key(change: &RepositoryChange) -> ResourceKey {
    match change {
        RepositoryChange::Upsert(resource) => resource.key.clone(),
        other => panic!("brings nothing: {other:?}"),
    }
}

/// Everything but the policies, in the order of their kinds.
pub(crate) fn objects(size: Size) -> Vec<RepositoryChange> {
    let namespaces = (0..NAMESPACES).map(namespace);
    let nodes = (0..size.nodes).map(|number| node(number, number % ZONES));
    let groups = (0..GROUPS).map(|number| group(number, GROUP_PREFIXES));
    let pods = (0..size.pods).map(|number| pod(number, number % APPS));
    namespaces.chain(nodes).chain(groups).chain(pods).collect()
}

pub(crate) fn policies(size: Size) -> Vec<RepositoryChange> {
    let pairs = (0..size.pairs).step_by(PAIRS).map(|first| {
        let last = (first + PAIRS).min(size.pairs);
        pairs(first, first..last)
    });
    (0..size.policies).map(policy).chain(pairs).collect()
}

/// Ingress items for a peer and a port of their own each.
pub(crate) fn pairs(name: usize, numbers: std::ops::Range<usize>) -> RepositoryChange {
    let item = |number: usize| {
        let peer = format!(
            "100.{}.{}.{}/32",
            number >> 16,
            number >> 8 & 255,
            number & 255
        );
        let port = (1 + number % 65_535).to_string();
        json!({
            "fromCIDR": [peer],
            "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}],
        })
    };
    change(&json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("pairs-{name}")},
        "spec": {"nodeSelector": {}, "ingress": numbers.map(item).collect::<Vec<_>>()},
    }))
}

fn namespace(number: usize) -> RepositoryChange {
    change(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": format!("ns-{number}"), "labels": {"team": format!("t-{}", number % 4)}},
    }))
}

/// The first one is this node.
pub(crate) fn node(number: usize, zone: usize) -> RepositoryChange {
    let name = match number {
        0 => NODE.to_owned(),
        _ => format!("node-{number}"),
    };
    let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
    change(&json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"zone": format!("z-{zone}")}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }))
}

/// Every pod has labels of its own, hence an identity of its own.
pub(crate) fn pod(number: usize, app: usize) -> RepositoryChange {
    change(&pod_object(number, app))
}

/// The manifest of a pod.
pub(crate) fn pod_text(number: usize, app: usize) -> String {
    pod_object(number, app).to_string()
}

fn pod_object(number: usize, app: usize) -> Value {
    let app = app % APPS;
    let (high, low) = (number / 250, number % 250 + 1);
    let address = format!("10.{}.{}.{low}", 128 + high / 250, high % 250);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number}"),
            "namespace": format!("ns-{}", number % NAMESPACES),
            "labels": {
                "app": format!("app-{app}"),
                "tier": format!("tier-{}", number % TIERS),
                "instance": format!("i-{number}"),
            },
        },
        "spec": {
            "nodeName": format!("node-{}", number % 50),
            "containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 8_000 + app % 8, "protocol": "TCP"},
            ]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

pub(crate) fn group(number: usize, prefixes: usize) -> RepositoryChange {
    let prefix = |at: usize| format!("172.{}.{at}.0/24", 16 + number);
    change(&json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": format!("group-{number}")},
        "spec": {"externalCIDRs": (0..prefixes).map(prefix).collect::<Vec<_>>()},
    }))
}

/// Prefixes of every group at first.
pub(crate) fn group_prefixes() -> usize {
    GROUP_PREFIXES
}

/// Most policies let one app in; some are about prefixes, groups, nodes, names.
pub(crate) fn policy(number: usize) -> RepositoryChange {
    let app = json!({"matchLabels": {
        "app": format!("app-{}", number % APPS),
        "k8s:io.kubernetes.pod.namespace": format!("ns-{}", number % NAMESPACES),
    }});
    let tier = json!({"matchLabels": {
        "tier": format!("tier-{}", number % TIERS),
        "k8s:io.kubernetes.pod.namespace": format!("ns-{}", number % NAMESPACES),
    }});
    let tcp = |port: String| json!([{"ports": [{"port": port, "protocol": "TCP"}]}]);
    let port = tcp((1_000 + number % PORTS).to_string());
    let mut spec = json!({
        "nodeSelector": {},
        "ingress": [{"fromEndpoints": [app], "toPorts": port}],
        "egress": [{"toEndpoints": [tier], "toPorts": port}],
    });
    let (section, item) = match number % 10 {
        0 => {
            let prefix = format!("198.{}.{}.0/24", 18 + number / 2_560, number / 10 % 256);
            ("ingress", json!({"fromCIDR": [prefix]}))
        }
        1 => {
            let group = format!("group-{}", number / 10 % GROUPS);
            (
                "ingress",
                json!({"fromCIDRSet": [{"cidrGroupRef": group}], "toPorts": port}),
            )
        }
        2 => {
            let zone = json!({"matchLabels": {"zone": format!("z-{}", number / 10 % ZONES)}});
            ("ingress", json!({"fromNodes": [zone], "toPorts": port}))
        }
        3 => (
            "ingressDeny",
            json!({"fromEndpoints": [tier], "toPorts": tcp("23".to_owned())}),
        ),
        4 => (
            "egress",
            json!({"toEndpoints": [app], "toPorts": tcp("http".to_owned())}),
        ),
        5 => ("ingress", json!({"fromEntities": ["kube-apiserver"]})),
        _ => return policy_of(number, spec),
    };
    match spec[section].as_array_mut() {
        Some(items) => items.push(item),
        None => spec[section] = json!([item]),
    }
    policy_of(number, spec)
}

fn policy_of(number: usize, spec: Value) -> RepositoryChange {
    change(&json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("policy-{number}")},
        "spec": spec,
    }))
}
