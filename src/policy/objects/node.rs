//! Node and CiliumNode: names, labels, addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::common::{address, labels, list, part, settle};
use crate::events::ResourceKind;
use crate::policy::checker::{At, Checker, Fault, field};

/// What is read of a Node or CiliumNode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeObject {
    pub labels: BTreeMap<String, String>,
    /// Sorted, without duplicates.
    pub addresses: Vec<IpAddr>,
}

/// A Node has `status.addresses`, a CiliumNode `spec.addresses`.
pub(super) fn read(
    checker: &mut Checker,
    kind: ResourceKind,
    object: &Map<String, Value>,
) -> NodeObject {
    let (part_name, address_field) = if kind == ResourceKind::CiliumNode {
        ("spec", "ip")
    } else {
        ("status", "address")
    };
    let mut addresses = Vec::new();
    let at = At::ROOT.key(part_name);
    if let Some(part) = part(checker, &At::ROOT, object, part_name) {
        let entries = list(checker, &at, part, "addresses");
        let at = at.key("addresses");
        for (index, value) in entries.iter().enumerate() {
            let at = at.index(index);
            if let Some(entry) = checker.object(&at, value) {
                addresses.extend(read_address(checker, &at, entry, address_field));
            }
        }
    }
    NodeObject {
        labels: labels(checker, object),
        addresses: settle(addresses),
    }
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
    address(checker, &at.key(address_field), value)
}
