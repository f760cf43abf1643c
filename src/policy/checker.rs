//! Collects errors and warnings, each with the path of its field.

use serde_json::{Map, Value};

use super::language::FieldError;
use super::{nearest::nearest, path};
use crate::limits::ERRORS_PER_RESOURCE_MAX;

/// A place in an object. Its path is built only when an error needs it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The object itself.
    pub(super) const ROOT: At<'static> = At {
        parent: None,
        segment: Segment::Root,
    };
    /// A field of what is here.
    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            segment: Segment::Key(key),
        }
    }
    /// An element of what is here.
    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            segment: Segment::Index(index),
        }
    }
    /// As the operator reads it.
    pub(super) fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.segment {
            Segment::Root => {}
            Segment::Key(key) => path::push_key(&mut path, key),
            Segment::Index(index) => path::push_index(&mut path, index),
        }
        path
    }
}

/// Errors and warnings of one object.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) errors: Vec<FieldError>,
    pub(super) warnings: Vec<FieldError>,
    errors_more: usize,
}

/// Everything an error may say besides its place.
pub(super) struct Fault<'a> {
    pub(super) value: Option<&'a Value>,
    pub(super) reason: String,
    pub(super) suggestion: Option<String>,
}

impl<'a> Fault<'a> {
    pub(super) fn new(value: &'a Value, reason: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            reason: reason.into(),
            suggestion: None,
        }
    }
    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self {
            value: None,
            reason: reason.into(),
            suggestion: None,
        }
    }
    pub(super) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
    fn at(self, at: &At<'_>) -> FieldError {
        FieldError {
            path: at.path(),
            value: self.value.map(shown),
            reason: self.reason,
            suggestion: self.suggestion,
            line: None,
            column: None,
        }
    }
}

/// A value as in a message: short.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    match value {
        Value::Object(_) => "{...}".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let text = value.to_string();
            if text.chars().count() <= CHARS_MAX {
                return text;
            }
            let start: String = text.chars().take(CHARS_MAX).collect();
            format!("{start}...")
        }
    }
}

impl Checker {
    /// Adds an error; past the limit they are only counted.
    pub(super) fn error(&mut self, at: &At<'_>, fault: Fault<'_>) {
        if self.errors.len() < ERRORS_PER_RESOURCE_MAX {
            self.errors.push(fault.at(at));
        } else {
            self.errors_more += 1;
        }
    }

    /// Adds a warning; past the limit they are dropped.
    pub(super) fn warn(&mut self, at: &At<'_>, fault: Fault<'_>) {
        if self.warnings.len() < ERRORS_PER_RESOURCE_MAX {
            self.warnings.push(fault.at(at));
        }
    }

    /// Ends the collection: errors and warnings.
    pub(super) fn finish(mut self) -> (Vec<FieldError>, Vec<FieldError>) {
        if self.errors_more > 0 {
            self.errors.push(FieldError {
                reason: format!("and {} more errors", self.errors_more),
                ..FieldError::default()
            });
        }
        (self.errors, self.warnings)
    }

    /// The fields of an object.
    pub(super) fn object<'v>(
        &mut self,
        at: &At<'_>,
        value: &'v Value,
    ) -> Option<&'v Map<String, Value>> {
        self.expect(at, value, value.as_object(), "an object")
    }
    /// The elements of a list.
    pub(super) fn list<'v>(&mut self, at: &At<'_>, value: &'v Value) -> Option<&'v Vec<Value>> {
        self.expect(at, value, value.as_array(), "a list")
    }
    /// A string.
    pub(super) fn string<'v>(&mut self, at: &At<'_>, value: &'v Value) -> Option<&'v str> {
        let what = if value.is_number() || value.is_boolean() {
            "a string; put it in quotes"
        } else {
            "a string"
        };
        self.expect(at, value, value.as_str(), what)
    }
    /// `true` or `false`.
    pub(super) fn boolean(&mut self, at: &At<'_>, value: &Value) -> Option<bool> {
        self.expect(at, value, value.as_bool(), "true or false")
    }

    fn expect<T>(
        &mut self,
        at: &At<'_>,
        value: &Value,
        found: Option<T>,
        expected: &str,
    ) -> Option<T> {
        if found.is_none() {
            self.error(at, Fault::new(value, format!("expected {expected}")));
        }
        found
    }

    /// Refuses fields that are not known.
    pub(super) fn known_fields(
        &mut self,
        at: &At<'_>,
        object: &Map<String, Value>,
        known: &[&str],
    ) {
        for (key, value) in unknown(object, known) {
            // Past the limit no message is made: to look for the nearest name
            // takes its time.
            if self.errors.len() < ERRORS_PER_RESOURCE_MAX {
                self.error(&at.key(key), unknown_fault(key, value, known));
            } else {
                self.errors_more += 1;
            }
        }
    }
    /// Warns of fields that are not known (metadata, status).
    pub(super) fn familiar_fields(
        &mut self,
        at: &At<'_>,
        object: &Map<String, Value>,
        known: &[&str],
    ) {
        for (key, value) in unknown(object, known).take(ERRORS_PER_RESOURCE_MAX) {
            self.warn(&at.key(key), unknown_fault(key, value, known));
        }
    }
}

fn unknown<'a>(
    object: &'a Map<String, Value>,
    known: &'a [&'a str],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object
        .iter()
        .filter(|(key, _)| !known.contains(&key.as_str()))
}

fn unknown_fault<'a>(key: &str, value: &'a Value, known: &[&str]) -> Fault<'a> {
    let turned = match key.strip_prefix("to") {
        Some(rest) => format!("from{rest}"),
        None => format!("to{}", key.strip_prefix("from").unwrap_or(key)),
    };
    let fault = Fault::new(value, "unknown field");
    if let Some(meant) = nearest(key, known.iter().copied()) {
        fault.suggest(format!("did you mean {meant:?}?"))
    } else if known.contains(&turned.as_str()) {
        fault.suggest(format!("in this direction it is {turned:?}"))
    } else if known.len() <= 12 {
        fault.suggest(format!("known here: {}", known.join(", ")))
    } else {
        fault
    }
}

/// A field of an object; null is the same as absent.
pub(super) fn field<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).filter(|value| !value.is_null())
}
