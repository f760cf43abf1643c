//! Objects around the policies: nodes, and what runs on them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{labels, prefixes};
use crate::case::NODE;
use crate::random::Random;

const OTHERS: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Addresses of this node's devices; the two that packets go to are not always
/// among them: an address may come before the agent learns of it.
pub(crate) fn local(random: &mut Random) -> Vec<IpAddr> {
    let own = ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("an address"));
    match random.below(10) {
        0 => Vec::new(),
        1 => own[..1].to_vec(),
        _ => own.to_vec(),
    }
}

/// The objects of a cluster.
pub(crate) fn all(random: &mut Random) -> Vec<Value> {
    let mut objects = Vec::new();
    if random.chance(60) {
        objects.push(node("Node", NODE, random));
    }
    for name in OTHERS {
        if random.chance(50) {
            objects.push(node("Node", name, random));
        }
        if random.chance(25) {
            objects.push(node("CiliumNode", name, random));
        }
    }
    objects
}

/// An object of a kind, with any name.
pub(crate) fn of_kind(kind: &str, random: &mut Random) -> Value {
    node(kind, NODE, random)
}

fn node(kind: &str, name: &str, random: &mut Random) -> Value {
    let mut addresses = Vec::new();
    for _ in 0..random.below(4) {
        let types = ["InternalIP", "ExternalIP"];
        addresses.push((*random.pick(&types), node_address(name, random)));
    }
    let metadata = json!({"name": name, "labels": labels(random)});
    if kind == "CiliumNode" {
        let list: Vec<Value> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "ip": address}))
            .collect();
        return json!({
            "apiVersion": "cilium.io/v2",
            "kind": kind,
            "metadata": metadata,
            "spec": {"addresses": list},
        });
    }
    let mut list: Vec<Value> = addresses
        .iter()
        .map(|(kind, address)| json!({"type": kind, "address": address}))
        .collect();
    if random.chance(30) {
        list.push(json!({"type": "Hostname", "address": name}));
    }
    json!({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": metadata,
        "status": {"addresses": list},
    })
}

/// Each node has addresses of its own, some of which prefixes contain.
fn node_address(name: &str, random: &mut Random) -> String {
    let number = match OTHERS.iter().position(|other| *other == name) {
        Some(other) => other + 2,
        None => 1,
    };
    match random.below(5) {
        0 => format!("10.0.0.{number}"),
        1 => format!("fd00::{number}"),
        2 => format!("10.1.1.{number}"),
        3 => format!("fd00:1::{number}"),
        _ => {
            let nets = ["192.0.2.0/29", "2001:db8::/125", "10.1.1.8/30"];
            let net = random.pick(&nets).parse().expect("a prefix");
            prefixes::address(net, random).to_string()
        }
    }
}
