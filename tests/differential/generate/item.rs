//! One item of a section: peers of one kind, ports or ICMP types, or nothing.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{names, prefixes};
use crate::random::Random;

/// An item of `section`.
pub(crate) fn item(section: &str, random: &mut Random) -> Value {
    let mut item = Map::new();
    let side = if section.starts_with("egress") {
        "to"
    } else {
        "from"
    };
    peers(side, &mut item, random);
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

fn peers(side: &str, item: &mut Map<String, Value>, random: &mut Random) {
    let mut put = |kind: &str, peers: Vec<Value>| {
        item.insert(format!("{side}{kind}"), peers.into());
    };
    let some = |random: &mut Random, least: usize| least + random.below(3);
    match random.below(100) {
        // Any peer.
        0..=19 => {}
        // No peer at all.
        20..=22 => put(
            random.pick::<&str>(&["CIDR", "CIDRSet", "Entities"]),
            Vec::new(),
        ),
        23..=49 => {
            let count = some(random, 1);
            let entity = |_| (*random.pick(&names::ENTITIES)).into();
            put("Entities", (0..count).map(entity).collect());
        }
        50..=74 => {
            let count = some(random, 1);
            let cidr = |_| prefixes::prefix(random).to_string().into();
            put("CIDR", (0..count).map(cidr).collect());
        }
        _ => {
            let count = some(random, 1);
            put("CIDRSet", (0..count).map(|_| cidr_set(random)).collect());
        }
    }
}

fn cidr_set(random: &mut Random) -> Value {
    let cidr = prefixes::prefix(random);
    let mut set = json!({"cidr": cidr.to_string()});
    if random.chance(70) {
        set["except"] = excepts(cidr, random).into();
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
