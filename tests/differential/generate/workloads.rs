//! Namespaces, pods and what Cilium says about them. What belongs to a name,
//! such as the addresses of a pod, follows from the name: two objects of one
//! address are two views of one pod.

use serde_json::{Map, Value, json};

use super::objects::labels;
use super::{names, nodes};
use crate::random::Random;

/// Namespaces of pods and services.
pub(crate) const NAMESPACES: [&str; 3] = ["default", "shop", "kube-system"];
/// Service accounts of pods.
pub(crate) const ACCOUNTS: [&str; 3] = ["default", "web", "admin"];
/// Labels of namespaces.
pub(crate) const NAMESPACE_LABELS: [(&str, [&str; 2]); 2] = [
    ("team", ["red", "blue"]),
    ("kubernetes.io/tier", ["a", "b"]),
];
/// Identities of endpoints: numbers of the cluster, reserved ones, none.
const IDENTITIES: [u32; 4] = [300, 301, 65_000, 70_000];
const RESERVED: [(u32, &str); 3] = [(4, "health"), (5, "init"), (8, "ingress")];

const PODS: usize = 9;

pub(crate) fn namespaces() -> Vec<String> {
    NAMESPACES.map(str::to_owned).to_vec()
}

pub(crate) fn pods() -> Vec<String> {
    (0..PODS).map(|number| format!("pod-{number}")).collect()
}

pub(crate) fn identities() -> Vec<String> {
    IDENTITIES.iter().map(u32::to_string).collect()
}

/// Those of the pods, and of pods without an object.
pub(crate) fn endpoints() -> Vec<String> {
    (0..PODS + 3)
        .map(|number| format!("pod-{number}"))
        .collect()
}

fn number(name: &str) -> usize {
    name.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn namespace_of(name: &str) -> &'static str {
    NAMESPACES[number(name) % NAMESPACES.len()]
}

/// The addresses of a pod in both families; some lie in prefixes of rules.
fn addresses(name: &str) -> (String, String) {
    let number = number(name);
    match number % 3 {
        0 => (
            format!("10.1.1.{}", 64 + number),
            format!("fd00:1::{}", 64 + number),
        ),
        1 => (format!("10.2.{number}.1"), format!("fd00:2::{number}")),
        _ => (
            format!("192.0.2.{}", 64 + number),
            format!("2001:db8::{}", 64 + number),
        ),
    }
}

pub(crate) fn namespace(name: &str, random: &mut Random) -> Value {
    let mut labels = Map::new();
    for (key, values) in NAMESPACE_LABELS {
        if random.chance(60) {
            labels.insert(key.to_owned(), (*random.pick(&values)).into());
        }
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

pub(crate) fn pod(name: &str, random: &mut Random) -> Value {
    let mut spec = Map::new();
    let mut status = Map::new();
    if random.chance(40) {
        let account = *random.pick(&ACCOUNTS);
        spec.insert("serviceAccountName".to_owned(), account.into());
    }
    let host = random.chance(10);
    if host {
        spec.insert("hostNetwork".to_owned(), true.into());
    }
    spec.insert(
        "containers".to_owned(),
        json!([{"name": "main", "image": "i", "ports": ports(random)}]),
    );
    let (v4, v6) = if host {
        let address = nodes::any_address(random);
        (address.clone(), address)
    } else {
        addresses(name)
    };
    let phase = match random.below(10) {
        0 => "Succeeded",
        1 => "Failed",
        2 => "Pending",
        _ => "Running",
    };
    status.insert("phase".to_owned(), phase.into());
    match random.below(5) {
        0 => {}
        1 => {
            status.insert("podIP".to_owned(), v6.into());
        }
        2 => {
            status.insert("podIP".to_owned(), v4.into());
        }
        _ => {
            status.insert("podIPs".to_owned(), json!([{"ip": &v4}, {"ip": &v6}]));
            status.insert("podIP".to_owned(), v4.into());
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace_of(name), "labels": labels(random)},
        "spec": spec,
        "status": status,
    })
}

/// Ports of a container, most of them with names.
fn ports(random: &mut Random) -> Vec<Value> {
    let mut ports = Vec::new();
    for name in names::PORTS {
        if random.chance(50) {
            let port = *random.pick(&[80, 8_080, 53, 9_090]);
            let protocol = *random.pick(&["TCP", "UDP", "SCTP"]);
            ports.push(json!({"name": name, "containerPort": port, "protocol": protocol}));
        }
    }
    if random.chance(20) {
        ports.push(json!({"containerPort": 22}));
    }
    ports
}

/// The labels of a number, as all who speak of it know them.
fn security_labels(number: u32) -> Vec<(String, String)> {
    let mut random = Random::new(u64::from(number));
    let random = &mut random;
    let mut all: Vec<(String, String)> = labels(random)
        .into_iter()
        .map(|(key, value)| (format!("k8s:{key}"), value))
        .collect();
    let namespace = *random.pick(&NAMESPACES);
    let account = *random.pick(&ACCOUNTS);
    for (key, value) in [
        ("io.kubernetes.pod.namespace", namespace),
        (
            "io.cilium.k8s.policy.cluster",
            *random.pick(&["default", "other"]),
        ),
        ("io.cilium.k8s.policy.serviceaccount", account),
    ] {
        all.push((format!("k8s:{key}"), value.to_owned()));
    }
    all
}

pub(crate) fn identity(name: &str, random: &mut Random) -> Value {
    let number = name.parse().unwrap_or_default();
    // A new version may know better than the endpoints.
    let number = if random.chance(25) {
        number + 1
    } else {
        number
    };
    let labels: Map<String, Value> = security_labels(number)
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": name},
        "security-labels": labels,
    })
}

pub(crate) fn endpoint(name: &str, random: &mut Random) -> Value {
    let (v4, v6) = addresses(name);
    let addressing = match random.below(4) {
        0 => json!([{"ipv4": v4}]),
        1 => json!([{"ipv6": v6}]),
        _ => json!([{"ipv4": v4, "ipv6": v6}]),
    };
    let mut status = json!({"networking": {"addressing": addressing}});
    match random.below(10) {
        0 => {}
        1 | 2 => {
            let (number, label) = random.pick(&RESERVED);
            let label = format!("reserved:{label}=");
            status["identity"] = json!({"id": number, "labels": [label]});
        }
        _ => {
            let number = *random.pick(&IDENTITIES);
            let labels: Vec<Value> = security_labels(number)
                .into_iter()
                .map(|(key, value)| format!("{key}={value}").into())
                .collect();
            status["identity"] = json!({"id": number, "labels": labels});
        }
    }
    if random.chance(50) {
        let ports = [
            ("http", 80, "TCP"),
            ("dns", 53, "UDP"),
            ("http", 8_080, "TCP"),
        ];
        let (name, port, protocol) = random.pick(&ports);
        let port = json!({"name": name, "port": port, "protocol": protocol});
        status["named-ports"] = json!([port]);
    }
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {"name": name, "namespace": namespace_of(name)},
        "status": status,
    })
}
