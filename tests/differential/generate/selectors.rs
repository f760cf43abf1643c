//! Label selectors: of nodes, of peers, of objects.

use serde_json::{Map, Value, json};

use super::names;
use super::workloads::{ACCOUNTS, NAMESPACE_LABELS, NAMESPACES};
use crate::random::Random;

/// Most select this node by the empty selector; the others by its labels.
pub(crate) fn subject(random: &mut Random) -> Value {
    if random.chance(60) {
        return json!({});
    }
    if random.chance(10) {
        return json!({"matchLabels": {"reserved:host": ""}});
    }
    of_labels(&["", "", "", "k8s:", "any:"], random)
}

/// Labels of groups and services.
pub(crate) fn of_objects(random: &mut Random) -> Value {
    if random.chance(15) {
        return json!({});
    }
    of_labels(&["", "", "k8s:", "any:"], random)
}

/// Other nodes, by their labels.
pub(crate) fn of_nodes(random: &mut Random) -> Value {
    if random.chance(20) {
        return json!({});
    }
    of_labels(&["", "", "node:", "any:", "k8s:"], random)
}

/// Endpoints: pods by their labels and namespaces, and what is reserved.
pub(crate) fn of_endpoints(random: &mut Random) -> Value {
    let mut selector = if random.chance(25) {
        json!({"matchLabels": {}})
    } else {
        of_labels(&["", "", "", "k8s:", "any:", "node:"], random)
    };
    let (key, value): (String, &str) = match random.below(10) {
        0 | 1 => {
            let source = *random.pick(&["k8s:", "", "any:"]);
            let key = format!("{source}io.kubernetes.pod.namespace");
            (key, *random.pick(&NAMESPACES))
        }
        2 | 3 => {
            let (label, values) = random.pick(&NAMESPACE_LABELS);
            let key = format!("k8s:io.cilium.k8s.namespace.labels.{label}");
            (key, *random.pick(values))
        }
        4 => {
            let reserved = [
                "host",
                "world",
                "remote-node",
                "kube-apiserver",
                "health",
                "init",
                "ingress",
                "unmanaged",
            ];
            let source = *random.pick(&["reserved:", "$"]);
            let key = format!("{source}{}", random.pick(&reserved));
            selector = json!({"matchLabels": {}});
            (key, "")
        }
        5 => {
            let key = "io.cilium.k8s.policy.serviceaccount".to_owned();
            (key, *random.pick(&ACCOUNTS))
        }
        6 => {
            let key = "k8s:io.cilium.k8s.policy.cluster".to_owned();
            (key, *random.pick(&["default", "other"]))
        }
        _ => return selector,
    };
    if random.chance(70) {
        selector["matchLabels"][key] = value.into();
    } else {
        let operator = *random.pick(&["Exists", "Exists", "DoesNotExist"]);
        selector["matchExpressions"] = json!([{"key": key, "operator": operator}]);
    }
    selector
}

/// A selector of labels that objects have, with any of the sources.
fn of_labels(sources: &[&str], random: &mut Random) -> Value {
    let mut selector = Map::new();
    if random.chance(70) {
        let mut labels = Map::new();
        for _ in 0..=random.below(2) {
            let (key, values) = random.pick(&names::LABELS);
            let key = format!("{}{key}", random.pick(sources));
            labels.insert(key, (*random.pick(values)).into());
        }
        selector.insert("matchLabels".to_owned(), labels.into());
    }
    if selector.is_empty() || random.chance(30) {
        let count = 1 + random.below(2);
        let list: Vec<Value> = (0..count).map(|_| expression(sources, random)).collect();
        selector.insert("matchExpressions".to_owned(), list.into());
    }
    Value::Object(selector)
}

fn expression(sources: &[&str], random: &mut Random) -> Value {
    let (key, values) = random.pick(&names::LABELS);
    let key = format!("{}{key}", random.pick(sources));
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
