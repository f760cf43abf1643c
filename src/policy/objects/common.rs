//! What the readers share: parts, labels, addresses, named ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::identity::Label;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::language::{NamedPort, PortProtocol};

/// An object within an object; None where it is not written.
pub(super) fn part<'v>(
    checker: &mut Checker,
    at: &At<'_>,
    object: &'v Map<String, Value>,
    name: &str,
) -> Option<&'v Map<String, Value>> {
    field(object, name).and_then(|value| checker.object(&at.key(name), value))
}

/// A list within an object; empty where it is not written.
pub(super) fn list<'v>(
    checker: &mut Checker,
    at: &At<'_>,
    object: &'v Map<String, Value>,
    name: &str,
) -> &'v [Value] {
    field(object, name)
        .and_then(|value| checker.list(&at.key(name), value))
        .map_or(&[], Vec::as_slice)
}

/// A string within an object; None where it is not written, or empty.
pub(super) fn text<'v>(
    checker: &mut Checker,
    at: &At<'_>,
    object: &'v Map<String, Value>,
    name: &str,
) -> Option<&'v str> {
    field(object, name)
        .and_then(|value| checker.string(&at.key(name), value))
        .filter(|text| !text.is_empty())
}

/// `true` or `false` within an object; None where it is not written.
pub(super) fn boolean(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    name: &str,
) -> Option<bool> {
    field(object, name).and_then(|value| checker.boolean(&at.key(name), value))
}

/// Keys with strings, such as labels; empty where they are not written.
pub(super) fn strings(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    name: &str,
) -> BTreeMap<String, String> {
    let mut strings = BTreeMap::new();
    let Some(map) = part(checker, at, object, name) else {
        return strings;
    };
    let at = at.key(name);
    for (key, value) in map {
        // Kubernetes reads null here as an empty string.
        let text = if value.is_null() {
            Some("")
        } else {
            checker.string(&at.key(key), value)
        };
        if let Some(text) = text {
            strings.insert(key.clone(), text.to_owned());
        }
    }
    strings
}

/// `metadata.labels`.
pub(super) fn labels(
    checker: &mut Checker,
    object: &Map<String, Value>,
) -> BTreeMap<String, String> {
    let at = At::ROOT.key("metadata");
    match part(checker, &At::ROOT, object, "metadata") {
        Some(metadata) => strings(checker, &at, metadata, "labels"),
        None => BTreeMap::new(),
    }
}

/// An IP address that is written here.
pub(super) fn address(checker: &mut Checker, at: &At<'_>, value: &Value) -> Option<IpAddr> {
    let text = checker.string(at, value)?;
    let address = text.parse().ok();
    if address.is_none() {
        checker.error(at, Fault::new(value, "not an IP address"));
    }
    address
}

/// An IP address in a field of an object; None where it is not written, or empty.
pub(super) fn address_in(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    name: &str,
) -> Option<IpAddr> {
    field(object, name)
        .filter(|value| value.as_str() != Some(""))
        .and_then(|value| address(checker, &at.key(name), value))
}

/// Sorts and removes what is there twice.
pub(super) fn settle<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

/// A port with its name; None where it has none. `port_field` holds its number.
pub(super) fn named_port(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    port_field: &str,
) -> Option<NamedPort> {
    let name = text(checker, at, object, "name");
    let protocol = match text(checker, at, object, "protocol") {
        None => Some(PortProtocol::Tcp),
        Some(word) => {
            let found = PortProtocol::from_word(word);
            if found.is_none() {
                let value = Value::String(word.to_owned());
                let fault = Fault::new(&value, "unknown protocol").suggest("TCP, UDP or SCTP");
                checker.error(&at.key("protocol"), fault);
            }
            found
        }
    };
    let Some(value) = field(object, port_field) else {
        checker.error(at, Fault::missing(format!("{port_field}: missing")));
        return None;
    };
    let port = value
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    if port.is_none() {
        let fault = Fault::new(value, "not a port").suggest("a number from 1 to 65535");
        checker.error(&at.key(port_field), fault);
    }
    Some(NamedPort {
        name: name?.to_ascii_lowercase(),
        protocol: protocol?,
        port: port?,
    })
}

/// `source:key` with its value, as Cilium writes labels; no source: `unspec`.
pub(super) fn label(source_and_key: &str, value: &str) -> Label {
    let (source, key) = source_and_key
        .split_once(':')
        .unwrap_or(("unspec", source_and_key));
    Label::new(source, key, value)
}
