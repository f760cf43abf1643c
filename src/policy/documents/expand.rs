//! From the value of a document to resources: kinds, names, `List`s.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::header::{READ, is_another_api, kind_of, name_of, shown};
use super::reader::Reader;
use super::reasons::excerpt;
use super::{Document, DocumentError, Positions, Skipped};
use crate::events::{Origin, Resource, ResourceKey};
use crate::limits::{ITEM_LINES_MAX, MANIFEST_OBJECTS_MAX};
use crate::policy::nearest::nearest;
use crate::policy::{Section, path};

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
                let reason = format!(
                    "{}: not an object; write apiVersion, kind, metadata and what belongs to the \
                     kind",
                    shown(&value)
                );
                return self.fault(&place, "", None, &reason);
            }
        };
        let has_items = object.get("items").is_some_and(Value::is_array);
        let list_of = object
            .get("kind")
            .and_then(Value::as_str)
            .and_then(|kind| kind.strip_suffix("List"))
            .filter(|item_kind| has_items || is_listed(item_kind))
            .map(str::to_owned);
        match list_of {
            Some(item_kind) => self.list(&place, object, &item_kind),
            None => self.object(&place, object),
        }
    }

    fn list(&mut self, place: &Place<'_>, mut list: Map<String, Value>, item_kind: &str) {
        let api_version = list.remove("apiVersion");
        let items = match list.remove("items") {
            Some(Value::Array(items)) => items,
            // What kubectl prints of nothing.
            Some(Value::Null) => return,
            Some(other) => {
                let reason = format!("items: {}: expected a list", shown(&other));
                return self.fault(place, "items", None, &reason);
            }
            None => {
                let reason = "items: missing; a list needs its items, even if there are none";
                return self.fault(place, "items", None, reason);
            }
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
                let reason = format!("{}: an item of a list must be an object", shown(&item));
                self.fault(&place, "", None, &reason);
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
        let kind_name = match kind_of(&object) {
            Ok(kind) => kind,
            Err(reason) => return self.fault(place, "kind", None, &reason),
        };
        let name = object
            .get("metadata")
            .and_then(|metadata| metadata.get("name"))
            .and_then(Value::as_str)
            .unwrap_or("");
        let read = READ.iter().find(|(kind, _)| kind.as_str() == kind_name);
        let Some((kind, versions)) = read else {
            let (kind_name, name) = (kind_name.clone(), name.to_owned());
            return self.not_read(place, &kind_name, &name);
        };
        if is_another_api(versions, &object) {
            let reason = format!(
                "another kind of this name; palisade reads {}",
                versions.join(", ")
            );
            return self.skip(place, kind_name, name, reason);
        }
        let subject = if name.is_empty() {
            kind_name.clone()
        } else {
            format!("{kind_name}/{}", excerpt(name))
        };
        let (name, namespace) = match name_of(*kind, versions, &object) {
            Ok(found) => found,
            Err(faults) => {
                for fault in faults {
                    self.fault(place, fault.field, Some(subject.clone()), &fault.reason);
                }
                return;
            }
        };
        let key = ResourceKey {
            kind: *kind,
            namespace,
            name,
        };
        if let Some(line) = self.keys.get(&key) {
            let reason = format!(
                "defined twice in this file; the first one counts, in line {line}: rename or \
                 remove one of them"
            );
            return self.fault(place, "metadata.name", Some(subject), &reason);
        }
        self.keys.insert(key.clone(), place.line);
        self.keep(place, key, Value::Object(object));
    }

    fn keep(&mut self, place: &Place<'_>, key: ResourceKey, body: Value) {
        let item_lines = if key.kind.is_policy() {
            place.positions.lines(item_paths(&body))
        } else {
            BTreeMap::new()
        };
        self.reading.documents.push(Document {
            resource: Resource {
                key,
                source: self.source,
                origin: Origin {
                    item_lines,
                    file: self.file.to_owned(),
                    document: place.document,
                    line: place.line,
                },
                body: body.into(),
            },
            positions: place.positions.clone(),
        });
    }

    fn not_read(&mut self, place: &Place<'_>, kind: &str, name: &str) {
        let known = READ.iter().map(|(kind, _)| kind.as_str());
        if kind.strip_suffix("List").is_some_and(is_listed) {
            let reason = format!(
                "kind: {:?}: a list inside of a list; write its items into the outer one",
                excerpt(kind)
            );
            return self.fault(place, "kind", None, &reason);
        }
        if let Some(meant) = nearest(kind, known) {
            // A misspelt policy must not be passed over in silence.
            let reason = format!("kind: {kind:?}: unknown; did you mean {meant:?}?");
            return self.fault(place, "kind", None, &reason);
        }
        let reason = "palisade does not read this kind".to_owned();
        self.skip(place, kind, name, reason);
    }

    fn skip(&mut self, place: &Place<'_>, kind: &str, name: &str, reason: String) {
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

/// Whether `List` after it makes a list for sure: other kinds may end so.
fn is_listed(item_kind: &str) -> bool {
    item_kind.is_empty() || READ.iter().any(|(kind, _)| kind.as_str() == item_kind)
}

/// The paths of the rule items of a policy, up to a limit.
fn item_paths(body: &Value) -> Vec<String> {
    let spec = body.get("spec").map(|spec| ("spec".to_owned(), spec));
    let specs = body.get("specs").and_then(Value::as_array);
    let specs = specs.into_iter().flatten().enumerate();
    let rules = spec
        .into_iter()
        .chain(specs.map(|(index, spec)| (path::index("specs", index), spec)));
    rules
        .flat_map(|(rule, spec)| {
            Section::OF_RULES.into_iter().flat_map(move |section| {
                let list = spec.get(section.as_str()).and_then(Value::as_array);
                let section = format!("{rule}.{}", section.as_str());
                (0..list.map_or(0, Vec::len)).map(move |item| path::index(&section, item))
            })
        })
        .take(ITEM_LINES_MAX)
        .collect()
}
