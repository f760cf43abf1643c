//! From the value of a document to resources: kinds, names, `List`s.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::reader::Reader;
use super::reasons::excerpt;
use super::{Document, DocumentError, Positions, Skipped};
use crate::events::{Origin, Resource, ResourceKey, ResourceKind};
use crate::limits::MANIFEST_OBJECTS_MAX;
use crate::policy::nearest::nearest;

/// Kinds that are read, with their `apiVersion`s.
const READ: [(ResourceKind, &[&str]); 11] = [
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

/// An item of a `List`, or the document itself.
struct Place<'a> {
    document: usize,
    positions: &'a Positions,
    line: usize,
}

impl Reader<'_> {
    /// Takes the value of one document apart.
    pub(super) fn document(&mut self, document: usize, value: Value, positions: &Positions) {
        let place = Place {
            document,
            positions,
            line: positions.first_line(),
        };
        let object = match value {
            Value::Object(object) => object,
            // A document of nothing but comments.
            Value::Null => return,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return self.fault(
                    &place,
                    "",
                    None,
                    "not an object; expected apiVersion, kind, metadata",
                );
            }
        };
        let list_of = match object.get("kind").and_then(Value::as_str) {
            Some(kind) if object.get("items").is_some_and(Value::is_array) => {
                kind.strip_suffix("List").map(str::to_owned)
            }
            Some(_) | None => None,
        };
        match list_of {
            Some(item_kind) => self.list(&place, object, &item_kind),
            None => self.object(&place, object),
        }
    }

    fn list(&mut self, place: &Place<'_>, mut list: Map<String, Value>, item_kind: &str) {
        let api_version = list.remove("apiVersion");
        let Some(Value::Array(items)) = list.remove("items") else {
            return;
        };
        let count = items.len().min(MANIFEST_OBJECTS_MAX + 1);
        let positions = place.positions.items(count);
        for (item, positions) in items.into_iter().zip(&positions) {
            let place = Place {
                document: place.document,
                positions,
                line: positions.first_line(),
            };
            let Value::Object(mut object) = item else {
                if !self.count_object(place.document, place.line) {
                    return;
                }
                self.fault(&place, "", None, "an item of a list must be an object");
                continue;
            };
            // Typed lists (`NodeList`) name the kind of their items only once.
            if !item_kind.is_empty() && !object.contains_key("kind") {
                object.insert("kind".to_owned(), Value::String(item_kind.to_owned()));
                if let Some(version) = &api_version {
                    object.entry("apiVersion").or_insert(version.clone());
                }
            }
            self.object(&place, object);
            if self.is_refused() {
                return;
            }
        }
    }

    fn object(&mut self, place: &Place<'_>, object: Map<String, Value>) {
        if !self.count_object(place.document, place.line) {
            return;
        }
        let Some(kind_name) = object.get("kind").and_then(Value::as_str) else {
            return self.fault(place, "kind", None, "kind: missing; every object needs one");
        };
        let name = object
            .get("metadata")
            .and_then(|metadata| metadata.get("name"))
            .and_then(Value::as_str)
            .unwrap_or("");
        let Some((kind, versions)) = READ.iter().find(|(kind, _)| kind.as_str() == kind_name)
        else {
            let (kind_name, name) = (kind_name.to_owned(), name.to_owned());
            return self.not_read(place, &kind_name, &name);
        };
        let subject = Some(format!("{kind_name}/{}", excerpt(name)));
        if let Err(reason) = check_version(object.get("apiVersion"), versions) {
            return self.fault(place, "apiVersion", subject, &reason);
        }
        if let Err(reason) = check_name(name) {
            return self.fault(place, "metadata.name", subject, &reason);
        }
        let namespace = match namespace_of(*kind, &object) {
            Ok(namespace) => namespace,
            Err(reason) => return self.fault(place, "metadata.namespace", subject, &reason),
        };
        let key = ResourceKey {
            kind: *kind,
            namespace,
            name: name.to_owned(),
        };
        if !self.keys.insert(key.clone()) {
            return self.fault(
                place,
                "metadata.name",
                subject,
                "defined twice in this file; the first one counts",
            );
        }
        self.reading.documents.push(Document {
            resource: Resource {
                key,
                source: self.source,
                origin: Origin {
                    item_lines: BTreeMap::new(),
                    file: self.file.to_owned(),
                    document: place.document,
                    line: place.line,
                },
                body: Value::Object(object),
            },
            positions: place.positions.clone(),
        });
    }

    fn not_read(&mut self, place: &Place<'_>, kind: &str, name: &str) {
        let known = READ.iter().map(|(kind, _)| kind.as_str());
        let reason = if let Some(meant) = nearest(kind, known) {
            // A misspelt policy must not be passed over in silence.
            let reason = format!("kind: {kind:?}: unknown; did you mean {meant:?}?");
            return self.fault(place, "kind", None, &reason);
        } else {
            "palisade does not read this kind".to_owned()
        };
        self.reading.skipped.push(Skipped {
            file: self.file.to_owned(),
            document: place.document,
            line: place.line,
            kind: excerpt(kind),
            name: excerpt(name),
            reason,
        });
    }

    fn fault(&mut self, place: &Place<'_>, field: &str, resource: Option<String>, reason: &str) {
        let found = if self.lists_errors() {
            place.positions.get(field)
        } else {
            None
        };
        let (line, column) = found.unwrap_or((place.line, 1));
        self.list_error(DocumentError {
            file: self.file.to_owned(),
            document: place.document,
            line,
            column,
            resource,
            reason: reason.to_owned(),
        });
    }
}

fn check_version(found: Option<&Value>, versions: &[&str]) -> Result<(), String> {
    let known: Vec<String> = versions
        .iter()
        .map(|version| format!("{version:?}"))
        .collect();
    let known = known.join(" or ");
    match found {
        Some(Value::String(found)) if versions.contains(&found.as_str()) => Ok(()),
        Some(found) => Err(format!("apiVersion: {found}: {known} is what is read")),
        None => Err(format!("apiVersion: missing; expected {known}")),
    }
}

/// None for kinds that live in no namespace.
fn namespace_of(kind: ResourceKind, object: &Map<String, Value>) -> Result<Option<String>, String> {
    if !kind.is_namespaced() {
        return Ok(None);
    }
    let written = object
        .get("metadata")
        .and_then(|metadata| metadata.get("namespace"));
    match written {
        None | Some(Value::Null) => Ok(Some(NAMESPACE.to_owned())),
        Some(Value::String(name)) if name.is_empty() => Ok(Some(NAMESPACE.to_owned())),
        Some(Value::String(name)) if is_dns_label(name) => Ok(Some(name.clone())),
        Some(other) => {
            let shown: String = other.to_string().chars().take(80).collect();
            Err(format!(
                "metadata.namespace: {shown}: must be lower-case letters, digits and '-', at \
                 most 63"
            ))
        }
    }
}

fn is_dns_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte))
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

/// Kubernetes' rule for names of objects (a DNS subdomain).
fn check_name(name: &str) -> Result<(), String> {
    const NAME_MAX: usize = 253;
    if name.is_empty() {
        return Err("metadata.name: missing; every object needs one".to_owned());
    }
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = name.len() <= NAME_MAX
        && name.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| letters(*byte))
                && bytes.last().is_some_and(|byte| letters(*byte))
                && bytes.iter().all(|byte| letters(*byte) || *byte == b'-')
        });
    if valid {
        return Ok(());
    }
    let shown = excerpt(name);
    Err(format!(
        "metadata.name: {shown:?}: must be lower-case letters, digits, '-' and '.', at most \
         {NAME_MAX}"
    ))
}
