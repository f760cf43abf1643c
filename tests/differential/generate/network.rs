//! Services, what stands behind them, and groups of prefixes.

use serde_json::{Value, json};

use super::objects::labels;
use super::workloads::NAMESPACES;
use super::{nodes, prefixes};
use crate::random::Random;

const SERVICES: [&str; 4] = ["kubernetes", "svc-0", "svc-1", "svc-2"];
/// Groups of prefixes.
pub(crate) const GROUPS: [&str; 3] = ["group-a", "group-b", "group-c"];

pub(crate) fn services() -> Vec<String> {
    SERVICES.map(str::to_owned).to_vec()
}

/// Two of each service.
pub(crate) fn slices() -> Vec<String> {
    let of = |service: &str| [0, 1].map(|number| format!("{service}.slice{number}"));
    SERVICES.iter().copied().flat_map(of).collect()
}

pub(crate) fn groups() -> Vec<String> {
    GROUPS.map(str::to_owned).to_vec()
}

/// The namespace that a service always stands in.
pub(crate) fn namespace_of(service: &str) -> &'static str {
    let place = SERVICES.iter().position(|known| *known == service);
    NAMESPACES[place.unwrap_or(0) % NAMESPACES.len()]
}

/// A service that a rule may name; seldom one that is not there.
pub(crate) fn reference(random: &mut Random) -> (&'static str, &'static str) {
    let service = *random.pick(&["kubernetes", "svc-0", "svc-0", "svc-1", "svc-2", "nobody"]);
    let namespace = if random.chance(90) {
        namespace_of(service)
    } else {
        *random.pick(&NAMESPACES)
    };
    (service, namespace)
}

pub(crate) fn service(name: &str, random: &mut Random) -> Value {
    let mut spec = json!({"ports": [{"port": 80}]});
    if name != "kubernetes" && random.chance(60) {
        let mut selector = labels(random);
        selector.retain(|_, value| !value.is_empty());
        spec["selector"] = json!(selector);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace_of(name), "labels": labels(random)},
        "spec": spec,
    })
}

/// `service.sliceN`, of one family.
pub(crate) fn slice(name: &str, random: &mut Random) -> Value {
    let service = name.split('.').next().unwrap_or_default();
    let v4 = random.chance(50);
    let mut endpoints = Vec::new();
    for _ in 0..random.below(4) {
        let address = if random.chance(50) {
            nodes::any_address(random)
        } else {
            prefixes::address(prefixes::prefix(random), random).to_string()
        };
        if address.contains(':') == v4 {
            continue;
        }
        let mut endpoint = json!({"addresses": [address]});
        if random.chance(30) {
            endpoint["conditions"] = json!({"ready": random.chance(70)});
        }
        endpoints.push(endpoint);
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace_of(service),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"port": 6_443, "protocol": "TCP"}],
    })
}

pub(crate) fn group(name: &str, random: &mut Random) -> Value {
    let cidrs: Vec<String> = (0..random.below(5))
        .map(|_| prefixes::prefix(random).to_string())
        .collect();
    json!({
        "apiVersion": *random.pick(&["cilium.io/v2", "cilium.io/v2alpha1"]),
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": name, "labels": labels(random)},
        "spec": {"externalCIDRs": cidrs},
    })
}
