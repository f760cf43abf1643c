//! Nodes: this one and others.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::objects::labels;
use super::prefixes;
use crate::case::NODE;
use crate::random::Random;

const NODES: [&str; 4] = [NODE, "node-a", "node-b", "node-c"];

/// Names of all nodes.
pub(crate) fn names() -> Vec<String> {
    NODES.map(str::to_owned).to_vec()
}

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

/// A Node or CiliumNode.
pub(crate) fn node(kind: &str, name: &str, random: &mut Random) -> Value {
    let mut addresses = Vec::new();
    for _ in 0..random.below(4) {
        let types = ["InternalIP", "ExternalIP", "CiliumInternalIP"];
        let types = if kind == "Node" { &types[..2] } else { &types };
        addresses.push((*random.pick(types), address(name, random)));
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
pub(crate) fn address(name: &str, random: &mut Random) -> String {
    let number = NODES.iter().position(|node| *node == name).unwrap_or(0) + 1;
    match random.below(6) {
        0 => format!("10.0.0.{number}"),
        1 => format!("fd00::{number}"),
        2 => format!("10.1.1.{number}"),
        3 => format!("fd00:1::{number}"),
        4 => format!("192.0.2.{number}"),
        _ => {
            let net = format!("2001:db8:{number}::/125")
                .parse()
                .expect("a prefix");
            prefixes::address(net, random).to_string()
        }
    }
}

/// An address of any node.
pub(crate) fn any_address(random: &mut Random) -> String {
    let name = *random.pick(&NODES);
    address(name, random)
}
