//! What every object says about itself: kind, version, name, namespace.

use serde_json::{Map, Value};

use super::reasons::excerpt;
use crate::events::ResourceKind;

/// Kinds that are read, with their `apiVersion`s.
pub(super) const READ: [(ResourceKind, &[&str]); 11] = [
    (
        ResourceKind::CiliumClusterwideNetworkPolicy,
        &["cilium.io/v2"],
    ),
    (ResourceKind::CiliumNetworkPolicy, &["cilium.io/v2"]),
    (
        ResourceKind::CiliumCIDRGroup,
        &["cilium.io/v2", "cilium.io/v2alpha1"],
    ),
    (ResourceKind::Node, &["v1"]),
    (ResourceKind::CiliumNode, &["cilium.io/v2"]),
    (ResourceKind::Namespace, &["v1"]),
    (ResourceKind::Pod, &["v1"]),
    (ResourceKind::Service, &["v1"]),
    (ResourceKind::EndpointSlice, &["discovery.k8s.io/v1"]),
    (ResourceKind::CiliumIdentity, &["cilium.io/v2"]),
    (ResourceKind::CiliumEndpoint, &["cilium.io/v2"]),
];

/// Where an object lives that does not say so, as for kubectl.
const NAMESPACE: &str = "default";
const NAME_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// A field that is wrong, and why.
pub(super) struct Fault {
    pub(super) field: &'static str,
    pub(super) reason: String,
}

/// The kind of an object, read or not.
pub(super) fn kind_of(object: &Map<String, Value>) -> Result<&String, String> {
    match object.get("kind") {
        Some(Value::String(kind)) if !kind.is_empty() => Ok(kind),
        Some(Value::String(_) | Value::Null) | None => {
            Err("kind: missing; every object needs one".to_owned())
        }
        Some(other) => Err(format!(
            "kind: {}: expected the name of a kind",
            shown(other)
        )),
    }
}

/// Name and namespace of an object of a kind that is read, or everything that
/// is wrong with its version, name and namespace.
pub(super) fn name_of(
    kind: ResourceKind,
    versions: &[&str],
    object: &Map<String, Value>,
) -> Result<(String, Option<String>), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut keep = |field, found: Result<Option<String>, String>| match found {
        Ok(found) => found,
        Err(reason) => {
            let reason = format!("{field}: {reason}");
            faults.push(Fault { field, reason });
            None
        }
    };
    let version = check_version(object.get("apiVersion"), versions);
    keep("apiVersion", version.map(|()| None));
    let none = Map::new();
    let metadata = match object.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(Value::Null) | None => &none,
        Some(other) => {
            let reason = format!("{}: expected an object: {{name: ...}}", shown(other));
            keep("metadata", Err(reason));
            return Err(faults);
        }
    };
    let name = keep("metadata.name", name(metadata.get("name")).map(Some));
    let namespace = if kind.is_namespaced() {
        keep(
            "metadata.namespace",
            namespace(metadata.get("namespace")).map(Some),
        )
    } else {
        None
    };
    match name {
        Some(name) if faults.is_empty() => Ok((name, namespace)),
        Some(_) | None => Err(faults),
    }
}

/// Whether the object is of another API that has a kind of the same name, as
/// Knative has a Service. Cilium's kinds are its own: a misspelt group must not
/// be passed over in silence.
pub(super) fn is_another_api(versions: &[&str], object: &Map<String, Value>) -> bool {
    let group = |version: &str| {
        version
            .split_once('/')
            .map_or(String::new(), |(group, _)| group.to_owned())
    };
    let found = object.get("apiVersion").and_then(Value::as_str);
    versions
        .iter()
        .all(|version| !version.starts_with("cilium"))
        && found.is_some_and(|found| {
            found.contains('/')
                && versions
                    .iter()
                    .all(|version| group(version) != group(found))
        })
}

fn check_version(found: Option<&Value>, versions: &[&str]) -> Result<(), String> {
    let quoted = versions.iter().map(|version| format!("{version:?}"));
    let known = quoted.collect::<Vec<_>>().join(" or ");
    match found {
        Some(Value::String(found)) if versions.contains(&found.as_str()) => Ok(()),
        Some(Value::Null) | None => Err(format!("missing; write {known}")),
        Some(found) => Err(format!(
            "{}: not a version that is read; write {known}",
            shown(found)
        )),
    }
}

/// Kubernetes' rule for names of objects (a DNS subdomain).
fn name(written: Option<&Value>) -> Result<String, String> {
    let name = match written {
        Some(Value::String(name)) if !name.is_empty() => name,
        Some(Value::String(_) | Value::Null) | None => {
            return Err("missing; every object needs one".to_owned());
        }
        Some(other) => return Err(not_text(other)),
    };
    if name.len() <= NAME_CHARS_MAX && name.split('.').all(is_plain) {
        return Ok(name.clone());
    }
    Err(format!(
        "{:?}: must be lower-case letters, digits, '-' and '.', at most {NAME_CHARS_MAX}, and \
         begin and end with a letter or digit",
        excerpt(name)
    ))
}

fn namespace(written: Option<&Value>) -> Result<String, String> {
    let name = match written {
        Some(Value::String(name)) if !name.is_empty() => name,
        Some(Value::String(_) | Value::Null) | None => return Ok(NAMESPACE.to_owned()),
        Some(other) => return Err(not_text(other)),
    };
    if name.len() <= LABEL_CHARS_MAX && is_plain(name) {
        return Ok(name.clone());
    }
    Err(format!(
        "{:?}: must be lower-case letters, digits and '-', at most {LABEL_CHARS_MAX}, and begin \
         and end with a letter or digit",
        excerpt(name)
    ))
}

fn not_text(found: &Value) -> String {
    let quotes = if found.is_number() || found.is_boolean() {
        "; put it in quotes"
    } else {
        ""
    };
    format!("{}: expected a string{quotes}", shown(found))
}

/// Letters, digits and `-` inside.
fn is_plain(part: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(letter)
        && bytes.last().is_some_and(letter)
        && bytes.iter().all(|byte| letter(byte) || *byte == b'-')
}

/// A value as a message may quote it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "{...}".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        Value::String(text) => format!("{:?}", excerpt(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
