//! The objects that the simulation's operators and clusters write.

use std::net::IpAddr;

use palisade::events::{Origin, Resource, ResourceKey, ResourceKind, SourceName};
use palisade::policy::{Direction, Packet};
use serde_json::{Value, json};

use crate::random::Random;

pub(crate) const NODE: &str = "here";
const CIDRS: [&str; 5] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "192.0.2.0/24",
    "198.51.100.7/32",
    "2001:db8::/32",
];
const PORTS: [u16; 3] = [22, 80, 443];
/// Of nodes, of pods, in the prefixes above, and elsewhere.
const PEERS: [&str; 10] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.2.0.1",
    "10.2.0.2",
    "10.9.9.9",
    "192.0.2.5",
    "198.51.100.7",
    "203.0.113.1",
    "2001:db8::1",
    "2001:db9::1",
];
const PACKETS: [Packet; 6] = [
    Packet::Port { proto: 6, port: 22 },
    Packet::Port { proto: 6, port: 80 },
    Packet::Port {
        proto: 6,
        port: 9_999,
    },
    Packet::Port {
        proto: 17,
        port: 443,
    },
    Packet::Icmp { icmp_type: 8 },
    Packet::Other { proto: 47 },
];

/// A packet that verdicts are compared on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) direction: Direction,
    pub(crate) peer: IpAddr,
    pub(crate) packet: Packet,
}

/// Packets of some peers, those of one peer and direction one after another.
pub(crate) fn samples(peers: usize, first: usize) -> Vec<Sample> {
    let mut samples = Vec::new();
    for peer in PEERS.iter().cycle().skip(first).take(peers) {
        for direction in Direction::BOTH {
            samples.extend(PACKETS.map(|packet| Sample {
                direction,
                peer: peer.parse().expect("an address"),
                packet,
            }));
        }
    }
    samples
}

pub(crate) const PEERS_COUNT: usize = PEERS.len();

/// Names of all objects that may exist, the policies first.
pub(crate) fn keys() -> Vec<ResourceKey> {
    use ResourceKind::{
        CiliumCIDRGroup as Group, CiliumClusterwideNetworkPolicy as Policy, Namespace, Node, Pod,
    };
    let names = [
        (Policy, &["p0", "p1", "p2", "p3", "p4", "p5"][..]),
        (Node, &["here", "there", "elsewhere"]),
        (Group, &["g0", "g1"]),
        (Namespace, &["apps"]),
        (Pod, &["web", "db"]),
    ];
    let mut keys = Vec::new();
    for (kind, names) in names {
        keys.extend(names.iter().map(|name| ResourceKey {
            kind,
            namespace: kind.is_namespaced().then(|| "apps".to_owned()),
            name: (*name).to_owned(),
        }));
    }
    keys
}

/// A random version of an object; one policy in ten is invalid.
pub(crate) fn version(key: &ResourceKey, random: &mut Random) -> Value {
    if key.kind.is_policy() && random.chance(10) {
        return invalid_policy(&key.name);
    }
    valid(key, random)
}

pub(crate) fn valid(key: &ResourceKey, random: &mut Random) -> Value {
    match key.kind {
        ResourceKind::Node => node(&key.name, random),
        ResourceKind::CiliumCIDRGroup => group(&key.name, random),
        ResourceKind::Namespace => namespace(&key.name, random),
        ResourceKind::Pod => pod(&key.name, random),
        _ => valid_policy(&key.name, random),
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

fn valid_policy(name: &str, random: &mut Random) -> Value {
    // No node has the last role: such a policy is of no consequence here.
    let role = *random.pick(&["a", "b", "c"]);
    let mut spec = json!({"nodeSelector": {"matchLabels": {"role": role}}});
    if random.chance(40) {
        spec["nodeSelector"] = json!({});
    }
    for (section, side) in [
        ("ingress", "from"),
        ("ingressDeny", "from"),
        ("egress", "to"),
    ] {
        if random.chance(50) {
            spec[section] = json!([item(side, random)]);
        }
    }
    if spec.get("ingress").is_none() && spec.get("egress").is_none() {
        spec["ingress"] = json!([{"fromEntities": ["cluster"]}]);
    }
    let mut metadata = json!({"name": name});
    if random.chance(12) {
        metadata["annotations"] = json!({"palisade.io/enforcement": "audit"});
    }
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    })
}

fn item(side: &str, random: &mut Random) -> Value {
    let port = random.pick(&PORTS).to_string();
    let mut item = json!({"toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}]});
    let (kind, peers) = match random.below(10) {
        0..=4 => ("CIDR", json!([random.pick(&CIDRS)])),
        5 | 6 => {
            let group = *random.pick(&["g0", "g1"]);
            ("CIDRSet", json!([{"cidrGroupRef": group}]))
        }
        7 => {
            let app = *random.pick(&["web", "db"]);
            ("Endpoints", json!([{"matchLabels": {"app": app}}]))
        }
        8 => {
            let entity = *random.pick(&["cluster", "world", "remote-node"]);
            ("Entities", json!([entity]))
        }
        _ => return item,
    };
    item[format!("{side}{kind}")] = peers;
    item
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

fn group(name: &str, random: &mut Random) -> Value {
    let mut cidrs = vec![*random.pick(&CIDRS), "203.0.113.0/24"];
    cidrs.truncate(random.below(3));
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": name},
        "spec": {"externalCIDRs": cidrs},
    })
}

fn namespace(name: &str, random: &mut Random) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"team": random.pick(&["red", "blue"])}},
    })
}

fn pod(name: &str, random: &mut Random) -> Value {
    let last = 1 + random.below(2);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "apps",
            "labels": {"app": random.pick(&["web", "db"])},
        },
        "spec": {},
        "status": {"podIPs": [{"ip": format!("10.2.0.{last}")}]},
    })
}

/// The object as its source tells it.
pub(crate) fn resource(key: &ResourceKey, body: &Value, source: SourceName) -> Resource {
    Resource {
        key: key.clone(),
        source,
        origin: Origin::default(),
        body: body.into(),
    }
}
