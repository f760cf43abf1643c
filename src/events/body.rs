//! An object as a source gave it, kept as text: a map of values takes ten times
//! the memory, and there are tens of thousands of objects.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A whole object. Copies share one text; the keys of its maps are in order, so
/// equal objects have equal texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body(Arc<str>);

impl Body {
    /// As JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As a value, read anew each time.
    #[must_use]
    pub fn value(&self) -> Value {
        // It was written from a value; what is nested too deeply to be read
        // again is no object, and refused as such.
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// One part of it, as a type that names what it reads.
    #[must_use]
    pub fn part<'body, T: Deserialize<'body>>(&'body self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<&Value> for Body {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Default for Body {
    fn default() -> Self {
        Value::Null.into()
    }
}

/// In records it is a value like any other.
impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_the_value_it_was_made_from() {
        let value = json!({"b": [1, -2.5, "x", null, true], "a": {"d": {}, "c": "\u{e9}\n"}});
        let body = Body::from(&value);
        assert_eq!(body.value(), value);
        assert_eq!(body.text(), value.to_string());
        let record = serde_json::to_string(&body).expect("JSON");
        assert_eq!(record, value.to_string());
        let again: Body = serde_json::from_str(&record).expect("a body");
        assert_eq!(again, body);
        assert_eq!(Body::default().value(), Value::Null);
    }
}
