//! Node and CiliumNode objects: names, labels, addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::Reading;
use super::checker::{At, Checker, Fault, field};
use crate::events::ResourceKind;

/// What is read of a Node or CiliumNode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeObject {
    pub labels: BTreeMap<String, String>,
    /// Sorted, without duplicates.
    pub addresses: Vec<IpAddr>,
}

/// Reads a Node (`status.addresses`) or a CiliumNode (`spec.addresses`).
#[must_use]
pub fn read_node(kind: ResourceKind, body: &Value) -> Reading<NodeObject> {
    let mut checker = Checker::default();
    let node = read(&mut checker, kind, body);
    let (errors, warnings) = checker.finish();
    Reading {
        value: node.filter(|_| errors.is_empty()),
        errors,
        warnings,
    }
}

fn read(checker: &mut Checker, kind: ResourceKind, body: &Value) -> Option<NodeObject> {
    let object = checker.object(&At::ROOT, body)?;
    let (part, address_field) = match kind {
        ResourceKind::CiliumNode => ("spec", "ip"),
        _ => ("status", "address"),
    };
    let mut node = NodeObject {
        labels: read_labels(checker, object),
        addresses: Vec::new(),
    };
    let at = At::ROOT.key(part);
    if let Some(part) = field(object, part).and_then(|value| checker.object(&at, value)) {
        let at = at.key("addresses");
        if let Some(list) = field(part, "addresses").and_then(|value| checker.list(&at, value)) {
            for (index, value) in list.iter().enumerate() {
                let at = at.index(index);
                if let Some(entry) = checker.object(&at, value) {
                    node.addresses
                        .extend(read_address(checker, &at, entry, address_field));
                }
            }
        }
    }
    node.addresses.sort();
    node.addresses.dedup();
    Some(node)
}

fn read_labels(checker: &mut Checker, object: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let at = At::ROOT.key("metadata");
    let Some(metadata) = field(object, "metadata").and_then(|value| checker.object(&at, value))
    else {
        return labels;
    };
    let at = at.key("labels");
    if let Some(map) = field(metadata, "labels").and_then(|value| checker.object(&at, value)) {
        for (key, value) in map {
            if let Some(text) = checker.string(&at.key(key), value) {
                labels.insert(key.clone(), text.to_owned());
            }
        }
    }
    labels
}

fn read_address(
    checker: &mut Checker,
    at: &At<'_>,
    entry: &Map<String, Value>,
    address_field: &str,
) -> Option<IpAddr> {
    let kind = field(entry, "type").and_then(Value::as_str).unwrap_or("");
    match kind {
        "InternalIP" | "ExternalIP" | "CiliumInternalIP" => {}
        "Hostname" | "InternalDNS" | "ExternalDNS" => return None,
        _ => {
            let reason = format!("address of unknown type {kind:?}: ignored");
            checker.warn(at, Fault::missing(reason));
            return None;
        }
    }
    let Some(value) = field(entry, address_field) else {
        checker.error(at, Fault::missing(format!("{address_field}: missing")));
        return None;
    };
    let at = at.key(address_field);
    let text = checker.string(&at, value)?;
    let address = text.parse().ok();
    if address.is_none() {
        checker.error(&at, Fault::new(value, "not an IP address"));
    }
    address
}
