//! The objects that the simulation's operator writes.

use palisade::events::{Origin, Resource, ResourceKey, ResourceKind, SourceName};
use serde_json::{Value, json};

use crate::random::Random;

pub(crate) const NODE: &str = "here";
pub(crate) const CIDRS: [&str; 5] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "192.0.2.0/24",
    "198.51.100.7/32",
    "2001:db8::/32",
];
pub(crate) const PORTS: [u16; 3] = [22, 80, 443];

/// Names of all objects that may exist.
pub(crate) fn keys() -> Vec<ResourceKey> {
    let key = |kind, name: String| ResourceKey {
        kind,
        namespace: None,
        name,
    };
    let policies = (0..6).map(|n| {
        key(
            ResourceKind::CiliumClusterwideNetworkPolicy,
            format!("p{n}"),
        )
    });
    let nodes = ["here", "there", "elsewhere"].map(|name| key(ResourceKind::Node, name.into()));
    policies.chain(nodes).collect()
}

/// A random version of an object; one policy in ten is invalid.
pub(crate) fn version(key: &ResourceKey, random: &mut Random) -> Value {
    match key.kind {
        ResourceKind::CiliumClusterwideNetworkPolicy => {
            if random.chance(10) {
                invalid_policy(&key.name)
            } else {
                valid_policy(&key.name, random)
            }
        }
        _ => node(&key.name, random),
    }
}

pub(crate) fn is_valid(body: &Value) -> bool {
    body["spec"].get("ingres").is_none()
}

fn invalid_policy(name: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {}, "ingres": []},
    })
}

pub(crate) fn valid_policy(name: &str, random: &mut Random) -> Value {
    let role = *random.pick(&["a", "b"]);
    let mut spec = json!({"nodeSelector": {"matchLabels": {"role": role}}});
    if random.chance(30) {
        spec["nodeSelector"] = json!({});
    }
    for (section, peers) in [
        ("ingress", "fromCIDR"),
        ("ingressDeny", "fromCIDR"),
        ("egress", "toCIDR"),
    ] {
        if !random.chance(50) {
            continue;
        }
        let port = random.pick(&PORTS).to_string();
        let mut item = json!({
            "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}],
        });
        if random.chance(70) {
            item[peers] = json!([random.pick(&CIDRS)]);
        }
        spec[section] = json!([item]);
    }
    if spec.get("ingress").is_none() && spec.get("egress").is_none() {
        spec["ingress"] = json!([{"fromEntities": ["cluster"]}]);
    }
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn node(name: &str, random: &mut Random) -> Value {
    let last = 1 + random.below(3);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"role": random.pick(&["a", "b"])}},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("10.1.0.{last}")},
        ]},
    })
}

/// The object as its source tells it.
pub(crate) fn resource(key: &ResourceKey, body: &Value) -> Resource {
    Resource {
        key: key.clone(),
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: body.clone(),
    }
}
