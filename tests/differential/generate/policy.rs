//! Whole policies: metadata, `spec` and `specs`, subjects, sections.

use serde_json::{Map, Value, json};

use super::{item, names};
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
    let listed = if random.chance(60) {
        0
    } else {
        (1 + random.below(4)).min(most)
    };
    let alone = listed == 0 || listed < most && random.chance(50);
    if alone {
        object["spec"] = rule(random);
    }
    if listed > 0 {
        object["specs"] = (0..listed).map(|_| rule(random)).collect();
    }
    Policy {
        object,
        rules: listed + usize::from(alone),
    }
}

fn rule(random: &mut Random) -> Value {
    let mut rule = Map::new();
    if random.chance(4) {
        rule.insert("endpointSelector".to_owned(), json!({}));
    } else {
        rule.insert("nodeSelector".to_owned(), node_selector(random));
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
    }
    Value::Object(rule)
}

/// Most select this node by the empty selector; the others by its labels.
fn node_selector(random: &mut Random) -> Value {
    if random.chance(60) {
        return json!({});
    }
    if random.chance(10) {
        return json!({"matchLabels": {"reserved:host": ""}});
    }
    selector(random)
}

/// A selector of labels that objects have.
pub(crate) fn selector(random: &mut Random) -> Value {
    let mut selector = Map::new();
    if random.chance(70) {
        let mut labels = Map::new();
        for _ in 0..=random.below(2) {
            let (key, values) = random.pick(&names::LABELS);
            labels.insert(source(key, random), (*random.pick(values)).into());
        }
        selector.insert("matchLabels".to_owned(), labels.into());
    }
    if selector.is_empty() || random.chance(30) {
        let count = 1 + random.below(2);
        let list: Vec<Value> = (0..count).map(|_| expression(random)).collect();
        selector.insert("matchExpressions".to_owned(), list.into());
    }
    Value::Object(selector)
}

fn source(key: &str, random: &mut Random) -> String {
    let prefix = *random.pick(&["", "", "", "k8s:", "any:"]);
    format!("{prefix}{key}")
}

fn expression(random: &mut Random) -> Value {
    let (key, values) = random.pick(&names::LABELS);
    let key = source(key, random);
    let some: Vec<&str> = (0..=random.below(2))
        .map(|_| *random.pick(values))
        .collect();
    match random.below(4) {
        0 => json!({"key": key, "operator": "In", "values": some}),
        1 => json!({"key": key, "operator": "NotIn", "values": some}),
        2 => json!({"key": key, "operator": "Exists"}),
        _ => json!({"key": key, "operator": "DoesNotExist"}),
    }
}
