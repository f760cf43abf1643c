//! What looks into packets: refused on a host and in a deny section; in rules
//! for workload endpoints checked as Cilium does.

use serde_json::{Map, Value};

use super::item::Around;
use super::names_of_hosts::check_name;
use crate::policy::Direction;
use crate::policy::checker::{At, Checker, Fault, field};

/// What the checks need to know of one written port.
pub(super) struct WrittenPort {
    pub(super) tcp_only: bool,
    /// 0, or not written.
    pub(super) zero: bool,
    pub(super) range: bool,
}

const FIELDS: [&str; 5] = [
    "rules",
    "listener",
    "terminatingTLS",
    "originatingTLS",
    "serverNames",
];

/// Checks one element of `toPorts`, but for its ports.
pub(super) fn check(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    ports: &[WrittenPort],
    around: Around<'_>,
) {
    let [rules, listener, terminating, originating, server_names] = FIELDS;
    checker.known_fields(
        at,
        object,
        &[
            "ports",
            rules,
            listener,
            terminating,
            originating,
            server_names,
        ],
    );
    if around.section.is_deny() || !around.held {
        return refuse(checker, at, object, around);
    }
    let at_rules = at.key(rules);
    let kinds = field(object, rules)
        .and_then(|value| checker.object(&at_rules, value))
        .map_or_else(Vec::new, |rules| {
            check_rules(checker, &at_rules, rules, ports, around)
        });
    let looks_inside = !kinds.is_empty();
    if let Some(value) = field(object, listener) {
        let at = at.key(listener);
        let reason = if around.direction == Direction::Ingress {
            Some("not allowed on ingress")
        } else {
            looks_inside.then_some("not allowed beside application-layer rules")
        };
        if let Some(reason) = reason {
            checker.error(&at, Fault::new(value, reason));
        }
        if let Some(object) = checker.object(&at, value) {
            checker.known_fields(&at, object, &["envoyConfig", "name", "priority"]);
        }
    }
    for name in [terminating, originating] {
        let at = at.key(name);
        if let Some(object) = field(object, name).and_then(|value| checker.object(&at, value)) {
            let known = ["secret", "trustedCA", "certificate", "privateKey"];
            checker.known_fields(&at, object, &known);
        }
    }
    let at_names = at.key(server_names);
    let names = field(object, server_names).and_then(|value| checker.list(&at_names, value));
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        if looks_inside && field(object, terminating).is_none() {
            let reason = "not allowed beside application-layer rules unless terminatingTLS is \
                          written";
            checker.error(&at_names, Fault::missing(reason));
        }
        for (index, value) in names.iter().enumerate() {
            let at = at_names.index(index);
            if checker.string(&at, value) == Some("") {
                checker.error(&at, Fault::new(value, "an empty server name"));
            }
        }
    }
}

/// What a host cannot enforce, and what a deny section does not have.
fn refuse(checker: &mut Checker, at: &At<'_>, object: &Map<String, Value>, around: Around<'_>) {
    for name in FIELDS {
        let Some(value) = field(object, name) else {
            continue;
        };
        // `rules: {}` and `serverNames: []` say nothing, so nothing is ignored.
        let empty = match name {
            "rules" => value.as_object().is_some_and(Map::is_empty),
            "serverNames" => value.as_array().is_some_and(Vec::is_empty),
            _ => false,
        };
        let reason = match (around.section.is_deny(), empty) {
            (true, _) => "not allowed in a deny section",
            (false, true) => continue,
            (false, false) => "application-layer rules cannot be enforced on a host",
        };
        checker.error(
            &at.key(name),
            Fault::new(value, reason).suggest("remove it, or use ports and protocols only"),
        );
    }
}

/// Checks `rules`; returns the kinds that are written.
fn check_rules(
    checker: &mut Checker,
    at: &At<'_>,
    rules: &Map<String, Value>,
    ports: &[WrittenPort],
    around: Around<'_>,
) -> Vec<&'static str> {
    const KINDS: [&str; 4] = ["http", "kafka", "dns", "l7proto"];
    checker.known_fields(at, rules, &[KINDS[0], KINDS[1], KINDS[2], KINDS[3], "l7"]);
    let written = |name: &&str| field(rules, name).is_some_and(|value| value != "");
    let kinds: Vec<&'static str> = KINDS.into_iter().filter(written).collect();
    if let [first, second, ..] = kinds[..] {
        let reason = format!("{first} and {second} in one element are not allowed");
        checker.error(
            at,
            Fault::missing(reason).suggest("write two elements of toPorts"),
        );
    }
    if field(rules, "l7").is_some() && !kinds.contains(&"l7proto") {
        checker.error(&at.key("l7"), Fault::missing("l7 needs l7proto"));
    }
    if let Some(value) = field(rules, "l7proto") {
        checker.string(&at.key("l7proto"), value);
    }
    for (name, check) in [
        ("http", check_http as fn(&mut Checker, &At<'_>, &Value)),
        ("kafka", check_kafka),
        ("dns", check_name),
        ("l7", check_pairs),
    ] {
        let at = at.key(name);
        let list = field(rules, name).and_then(|value| checker.list(&at, value));
        for (index, value) in list.into_iter().flatten().enumerate() {
            check(checker, &at.index(index), value);
        }
    }
    if !kinds.is_empty() {
        check_ports(checker, at, kinds.contains(&"dns"), ports, around);
    }
    kinds
}

fn check_ports(
    checker: &mut Checker,
    at: &At<'_>,
    dns: bool,
    ports: &[WrittenPort],
    around: Around<'_>,
) {
    let mut refuse = |reason: &str| checker.error(at, Fault::missing(reason));
    if dns {
        if around.direction == Direction::Ingress {
            refuse("DNS rules are not allowed on ingress");
        }
        if ports.is_empty() {
            refuse("DNS rules need a port: 53");
        }
        if ports.iter().any(|port| port.range) {
            refuse("DNS rules do not go with port ranges");
        }
    } else if ports.iter().any(|port| !port.tcp_only) {
        refuse("application-layer rules other than DNS need protocol: TCP on each port");
    }
    if ports.iter().any(|port| port.zero) {
        refuse("application-layer rules do not go with port 0");
    }
}

fn check_http(checker: &mut Checker, at: &At<'_>, value: &Value) {
    let Some(object) = checker.object(at, value) else {
        return;
    };
    const TEXTS: [&str; 3] = ["path", "method", "host"];
    let [path, method, host] = TEXTS;
    checker.known_fields(
        at,
        object,
        &[path, method, host, "headers", "headerMatches"],
    );
    check_texts(checker, at, object, &TEXTS);
    for name in ["headers", "headerMatches"] {
        if let Some(value) = field(object, name) {
            checker.list(&at.key(name), value);
        }
    }
}

fn check_kafka(checker: &mut Checker, at: &At<'_>, value: &Value) {
    let Some(object) = checker.object(at, value) else {
        return;
    };
    const TEXTS: [&str; 5] = ["role", "apiKey", "apiVersion", "clientID", "topic"];
    checker.known_fields(at, object, &TEXTS);
    check_texts(checker, at, object, &TEXTS);
    let written = |name: &str| field(object, name).is_some_and(|value| value != "");
    if written("role") && written("apiKey") {
        checker.error(at, Fault::missing("role and apiKey exclude each other"));
    }
}

fn check_pairs(checker: &mut Checker, at: &At<'_>, value: &Value) {
    for (key, value) in checker.object(at, value).into_iter().flatten() {
        checker.string(&at.key(key), value);
    }
}

fn check_texts(checker: &mut Checker, at: &At<'_>, object: &Map<String, Value>, names: &[&str]) {
    for name in names {
        if let Some(value) = field(object, name) {
            checker.string(&at.key(name), value);
        }
    }
}
