//! Whole policies: metadata, `spec` and `specs`, subjects, sections.

use serde_json::{Map, Value, json};

use super::workloads::NAMESPACES;
use super::{item, names, selectors};
use crate::random::Random;

/// A policy and the number of its rules.
pub(crate) struct Policy {
    pub(crate) object: Value,
    pub(crate) rules: usize,
}

/// A policy of at most `most` rules.
pub(crate) fn policy(number: usize, most: usize, random: &mut Random) -> Policy {
    let mut object = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("p{number}")},
    });
    let held = random.chance(4);
    if held {
        object["kind"] = "CiliumNetworkPolicy".into();
        object["metadata"]["namespace"] = NAMESPACES[number % NAMESPACES.len()].into();
    }
    if random.chance(12) {
        object["metadata"]["annotations"] = json!({"palisade.io/enforcement": "audit"});
    }
    let listed = if random.chance(60) {
        0
    } else {
        (1 + random.below(4)).min(most)
    };
    let alone = listed == 0 || listed < most && random.chance(50);
    if alone {
        object["spec"] = rule(held, random);
    }
    if listed > 0 {
        object["specs"] = (0..listed).map(|_| rule(held, random)).collect();
    }
    Policy {
        object,
        rules: listed + usize::from(alone),
    }
}

/// A rule. `held`: for workloads of a namespace, never for a host.
fn rule(held: bool, random: &mut Random) -> Value {
    let mut rule = Map::new();
    if held || random.chance(4) {
        let selector = selectors::of_endpoints(random);
        rule.insert("endpointSelector".to_owned(), selector);
    } else {
        rule.insert("nodeSelector".to_owned(), selectors::subject(random));
    }
    let mut any = false;
    for section in names::SECTIONS {
        let percent = if section.ends_with("Deny") { 30 } else { 50 };
        if random.chance(percent) {
            let items = random.below(4);
            any |= items > 0;
            let items: Vec<Value> = (0..items).map(|_| item::item(section, random)).collect();
            rule.insert(section.to_owned(), items.into());
        }
    }
    if !any {
        let section = *random.pick(&names::SECTIONS);
        rule.insert(section.to_owned(), json!([item::item(section, random)]));
    }
    if random.chance(25) {
        let mut deny = Map::new();
        for direction in ["ingress", "egress"] {
            if random.chance(60) {
                deny.insert(direction.to_owned(), random.chance(30).into());
            }
        }
        rule.insert("enableDefaultDeny".to_owned(), deny.into());
    }
    if random.chance(5) {
        rule.insert("description".to_owned(), "made by a seed".into());
        rule.insert("labels".to_owned(), json!([{"key": "made", "value": "so"}]));
        rule.insert("log".to_owned(), json!({"value": "said"}));
    }
    Value::Object(rule)
}
