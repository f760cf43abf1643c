//! One item of a section: peers of one kind, ports or ICMP types, or nothing.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{names, network, prefixes, selectors};
use crate::random::Random;

/// An item of `section`.
pub(crate) fn item(section: &str, random: &mut Random) -> Value {
    let mut item = Map::new();
    let side = if section.starts_with("egress") {
        "to"
    } else {
        "from"
    };
    let deny = section.ends_with("Deny");
    peers(side, deny, &mut item, random);
    match random.below(20) {
        0..=4 => {}
        5..=14 => {
            item.insert("toPorts".to_owned(), to_ports(random));
        }
        15..=18 => {
            item.insert("icmps".to_owned(), icmps(random));
        }
        _ => {
            let empty = [json!([]), json!([{}]), json!([{"ports": []}])];
            item.insert("toPorts".to_owned(), random.pick(&empty).clone());
        }
    }
    Value::Object(item)
}

fn peers(side: &str, deny: bool, item: &mut Map<String, Value>, random: &mut Random) {
    let mut put = |kind: &str, peers: Vec<Value>| {
        item.insert(format!("{side}{kind}"), peers.into());
    };
    let some = |make: fn(&mut Random) -> Value, random: &mut Random| {
        let count = 1 + random.below(3);
        (0..count).map(|_| make(random)).collect()
    };
    let entity = |random: &mut Random| (*random.pick(&names::ENTITIES)).into();
    let cidr = |random: &mut Random| prefixes::prefix(random).to_string().into();
    match random.below(100) {
        // Any peer.
        0..=16 => {}
        // No peer at all.
        17..=20 => {
            let nobody = empty_kinds(side, deny);
            put(random.pick::<&str>(&nobody), Vec::new());
        }
        21..=34 => {
            put("Endpoints", some(selectors::of_endpoints, random));
        }
        35..=42 => put("Nodes", some(selectors::of_nodes, random)),
        43..=50 if side == "to" => put("Services", some(service, random)),
        65..=79 => put("CIDR", some(cidr, random)),
        80..=99 => put("CIDRSet", some(cidr_set, random)),
        _ => put("Entities", some(entity, random)),
    }
}

/// Peer fields that select nobody when their list is empty.
fn empty_kinds(side: &str, deny: bool) -> Vec<&'static str> {
    let mut kinds = vec![
        "CIDR",
        "CIDRSet",
        "Entities",
        "Endpoints",
        "Nodes",
        "Groups",
    ];
    // Denying a name is denied: its addresses may be anybody's.
    if side == "to" && !deny {
        kinds.push("FQDNs");
    }
    kinds
}

fn service(random: &mut Random) -> Value {
    if random.chance(60) {
        let (name, namespace) = network::reference(random);
        return json!({"k8sService": {"serviceName": name, "namespace": namespace}});
    }
    let mut by = json!({"selector": selectors::of_objects(random)});
    if random.chance(50) {
        by["namespace"] = network::reference(random).1.into();
    }
    json!({"k8sServiceSelector": by})
}

fn cidr_set(random: &mut Random) -> Value {
    let (mut set, outer) = match random.below(10) {
        0 | 1 => {
            let names = ["group-a", "group-b", "group-c", "nobody"];
            let name = *random.pick(&names);
            (json!({"cidrGroupRef": name}), prefixes::prefix(random))
        }
        2 | 3 => {
            let by = selectors::of_objects(random);
            (json!({"cidrGroupSelector": by}), prefixes::prefix(random))
        }
        _ => {
            let cidr = prefixes::prefix(random);
            (json!({"cidr": cidr.to_string()}), cidr)
        }
    };
    if random.chance(70) {
        set["except"] = excepts(outer, random).into();
    }
    set
}

fn excepts(cidr: IpNet, random: &mut Random) -> Vec<Value> {
    (0..random.below(4))
        .map(|_| prefixes::within(cidr, random).to_string().into())
        .collect()
}

fn to_ports(random: &mut Random) -> Value {
    let lists = 1 + random.below(2);
    (0..lists)
        .map(|_| {
            let count = 1 + random.below(4);
            let ports: Vec<Value> = (0..count).map(|_| port(random)).collect();
            json!({"ports": ports})
        })
        .collect()
}

fn port(random: &mut Random) -> Value {
    if random.chance(12) {
        let (name, _) = random.pick(&names::PORTLESS);
        return match random.below(3) {
            0 => json!({"protocol": name, "port": "0"}),
            1 => json!({"protocol": name, "port": ""}),
            _ => json!({"protocol": name}),
        };
    }
    if random.chance(12) {
        let name = *random.pick(&["http", "dns", "metrics-1", "HTTP", "nobody"]);
        return match random.below(4) {
            0 => json!({"port": name}),
            _ => json!({"port": name, "protocol": *random.pick(&names::PORTED)}),
        };
    }
    let any = random.below(65_536);
    let first = *random.pick(&[0, 1, 22, 53, 80, 443, 8_000, 8_080, 65_534, 65_535, any]);
    let mut port = Map::new();
    let text = match random.below(12) {
        0 => format!("{first:#x}"),
        1 => format!("0{first:o}"),
        _ => first.to_string(),
    };
    // What begins like a hexadecimal number is a name.
    let text = if text.starts_with("0x") {
        first.to_string()
    } else {
        text
    };
    port.insert("port".to_owned(), text.into());
    if random.chance(35) {
        let last = match random.below(6) {
            0 => first,
            1 => first.saturating_sub(1),
            2 => 65_535,
            3 => first + 1,
            _ => first + random.below(2_000),
        };
        port.insert("endPort".to_owned(), last.min(65_535).into());
    }
    if random.chance(85) {
        port.insert("protocol".to_owned(), (*random.pick(&names::PORTED)).into());
    }
    Value::Object(port)
}

fn icmps(random: &mut Random) -> Value {
    let lists = 1 + random.below(2);
    (0..lists)
        .map(|_| {
            let count = 1 + random.below(3);
            let fields: Vec<Value> = (0..count).map(|_| icmp(random)).collect();
            json!({"fields": fields})
        })
        .collect()
}

fn icmp(random: &mut Random) -> Value {
    let family = *random.pick(&["", "IPv4", "IPv6", "IPv6"]);
    let v4 = family != "IPv6";
    let kind: Value = match random.below(4) {
        0 => random.below(256).into(),
        1 => random
            .pick(&[0, 3, 8, 11, 128, 129, 135, 255])
            .to_string()
            .into(),
        _ => (*random.pick(&names::icmp_names(v4))).into(),
    };
    match family {
        "" if random.chance(50) => json!({"type": kind}),
        family => json!({"family": family, "type": kind}),
    }
}
