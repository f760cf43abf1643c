//! JSON documents: strict (no duplicate keys, bounded nesting), one or many
//! after another.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess};
use serde_json::{Map, Number, Value};

use super::cost::Cost;
use super::reasons;
use super::yaml::Failure;
use crate::limits::MANIFEST_NESTING_MAX;

/// Where the first `max` values of a text stand, up to the first fault. No
/// value is built: each may still be too large.
pub(super) fn extents(text: &str, max: usize) -> (Vec<Range<usize>>, Option<Failure>) {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut extents = Vec::new();
    while extents.len() < max {
        let before = stream.byte_offset();
        match stream.next() {
            None => break,
            Some(Ok(IgnoredAny)) => {
                let blank = text[before..].len() - text[before..].trim_start().len();
                extents.push(before + blank..stream.byte_offset());
            }
            Some(Err(error)) => return (extents, Some(failure(&error))),
        }
    }
    (extents, None)
}

/// The value of a text that holds exactly one, and its cost.
pub(super) fn parse(text: &str) -> Result<(Value, Cost), Failure> {
    let cost = RefCell::new(Cost::default());
    let nested = Nested {
        depth: 0,
        cost: &cost,
    };
    let value = nested
        .deserialize(&mut serde_json::Deserializer::from_str(text))
        .map_err(|error| failure(&error))?;
    Ok((value, cost.into_inner()))
}

fn failure(error: &serde_json::Error) -> Failure {
    Failure {
        line: error.line().max(1),
        column: error.column().max(1),
        reason: reasons::json(error),
    }
}

/// A value inside of as many collections.
#[derive(Clone, Copy)]
struct Nested<'c> {
    depth: usize,
    cost: &'c RefCell<Cost>,
}

impl Nested<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MANIFEST_NESTING_MAX {
            return Err(E::custom(reasons::too_deep()));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn scalar<E: serde::de::Error>(self, text_bytes: usize, value: Value) -> Result<Value, E> {
        let counted = self.cost.borrow_mut().scalar(text_bytes);
        counted.map_err(E::custom)?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Nested<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.scalar(0, Value::Null)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(0, Value::Bool(value))
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(0, Value::from(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(0, Value::from(value))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map_or(Value::Null, Value::Number);
        self.scalar(0, number)
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.scalar(value.len(), Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let counted = self.cost.borrow_mut().list();
        counted.map_err(A::Error::custom)?;
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(deeper)? {
            self.cost.borrow_mut().element();
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let counted = self.cost.borrow_mut().mapping();
        counted.map_err(A::Error::custom)?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let counted = self.cost.borrow_mut().key(&key, map.len());
            counted.map_err(A::Error::custom)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(reasons::twice(&key)));
            }
            let value = access.next_value_seed(deeper)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
