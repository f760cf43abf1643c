//! One YAML document: events to a JSON value, with places on demand.
//!
//! Iterative, so that nesting costs no stack; aliases are refused, so that a
//! small document cannot become a large value.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::cost::Cost;
use super::reasons::{self, excerpt};
use crate::limits::MANIFEST_NESTING_MAX;
use crate::policy::path;

/// Why a document could not be read, and where (one-based, in the text given).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) reason: String,
}

/// A place in the text given, one-based.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The value of a text that holds at most one document, None if it is empty;
/// and what it cost, also where it failed.
pub(super) fn parse(text: &str) -> (Result<Option<Value>, Failure>, Cost) {
    let mut builder = Builder::default();
    let read = run(text, &mut builder).map(|()| builder.value.take());
    (read, builder.cost)
}

/// The places of some paths. What is not found (or not readable) is left out.
pub(super) fn locate(text: &str, mut wanted: BTreeMap<String, Option<Place>>) -> Places {
    for place in wanted.values_mut() {
        *place = None;
    }
    let mut builder = Builder {
        wanted,
        ..Builder::default()
    };
    // A document that is broken further down still has the places before that.
    let _ = run(text, &mut builder);
    builder.wanted
}

/// Paths and their places, as far as known.
pub(super) type Places = BTreeMap<String, Option<Place>>;

fn run(text: &str, builder: &mut Builder) -> Result<(), Failure> {
    // The parser is not ours and reads hostile files: a panic in it must be an
    // error of this one document.
    catch_unwind(AssertUnwindSafe(|| drive(text, builder))).unwrap_or_else(|_| {
        Err(Failure {
            line: 1,
            column: 1,
            reason: "the YAML parser failed on this document; write it in plain block style"
                .to_owned(),
        })
    })
}

fn drive(text: &str, builder: &mut Builder) -> Result<(), Failure> {
    let mut parser = Parser::new_from_str(text);
    while let Some(step) = parser.next_event() {
        let (event, span) =
            step.map_err(|error| failure(*error.marker(), reasons::yaml(error.info())))?;
        builder.take(event, span)?;
    }
    Ok(())
}

fn failure(marker: Marker, reason: impl Into<String>) -> Failure {
    let place = place(marker);
    Failure {
        line: place.line,
        column: place.column,
        reason: reason.into(),
    }
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line().max(1),
        // The parser counts columns from 0.
        column: marker.col() + 1,
    }
}

/// A collection that is not finished yet.
enum Frame {
    Mapping {
        map: Map<String, Value>,
        key: Option<(String, Marker)>,
        path_len: usize,
    },
    Sequence {
        items: Vec<Value>,
        path_len: usize,
    },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    documents: usize,
    value: Option<Value>,
    path: String,
    wanted: Places,
    cost: Cost,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Failure> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let reason = "a second document begins here; write `---` in a line before it";
                    return Err(failure(span.start, reason));
                }
                Ok(())
            }
            Event::Alias(_) => Err(failure(span.start, reasons::ALIAS)),
            Event::Scalar(text, style, _, tag) => {
                self.scalar(&text, style, tag.as_deref(), span.start)
            }
            Event::SequenceStart(_, tag) => {
                refuse_tag(tag.as_deref(), "seq", span.start)?;
                self.pay(span.start, Cost::list)?;
                self.open(span.start, |path_len| Frame::Sequence {
                    items: Vec::new(),
                    path_len,
                })
            }
            Event::MappingStart(_, tag) => {
                refuse_tag(tag.as_deref(), "map", span.start)?;
                self.pay(span.start, Cost::mapping)?;
                self.open(span.start, |path_len| Frame::Mapping {
                    map: Map::new(),
                    key: None,
                    path_len,
                })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                match self.stack.pop() {
                    Some(Frame::Mapping { map, .. }) => self.put(Value::Object(map)),
                    Some(Frame::Sequence { items, .. }) => self.put(Value::Array(items)),
                    None => {}
                }
                Ok(())
            }
        }
    }

    fn pay(
        &mut self,
        at: Marker,
        price: impl FnOnce(&mut Cost) -> Result<(), String>,
    ) -> Result<(), Failure> {
        price(&mut self.cost).map_err(|reason| failure(at, reason))
    }

    fn open(&mut self, at: Marker, frame: impl FnOnce(usize) -> Frame) -> Result<(), Failure> {
        if let Some(Frame::Mapping { key: None, .. }) = self.stack.last() {
            return Err(failure(at, reasons::KEY_NOT_TEXT));
        }
        if self.stack.len() >= MANIFEST_NESTING_MAX {
            return Err(failure(at, reasons::too_deep()));
        }
        self.enter(at, false);
        self.stack.push(frame(self.path.len()));
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Marker,
    ) -> Result<(), Failure> {
        if let Some(Frame::Mapping {
            map,
            key: key @ None,
            path_len,
        }) = self.stack.last_mut()
        {
            if style == ScalarStyle::Plain {
                match text {
                    "" | "~" | "null" => return Err(failure(at, reasons::KEY_NOT_TEXT)),
                    "<<" => return Err(failure(at, reasons::MERGE_KEY)),
                    _ => {}
                }
            }
            if map.contains_key(text) {
                return Err(failure(at, reasons::twice(text)));
            }
            self.cost
                .key(text, map.len())
                .map_err(|reason| failure(at, reason))?;
            self.path.truncate(*path_len);
            *key = Some((text.to_owned(), at));
            return Ok(());
        }
        let value = typed(text, style, tag, at)?;
        let kept_bytes = value.as_str().map_or(0, str::len);
        self.pay(at, |cost| cost.scalar(kept_bytes))?;
        self.enter(at, !value.is_null());
        self.put(value);
        Ok(())
    }

    /// Sets the path to the value that begins here, and notes its place.
    fn enter(&mut self, at: Marker, own_place: bool) {
        let mut marker = at;
        match self.stack.last() {
            Some(Frame::Mapping { key, path_len, .. }) => {
                self.path.truncate(*path_len);
                if let Some((key, key_at)) = key {
                    path::push_key(&mut self.path, key);
                    if !own_place {
                        marker = *key_at;
                    }
                }
            }
            Some(Frame::Sequence { items, path_len }) => {
                self.path.truncate(*path_len);
                path::push_index(&mut self.path, items.len());
            }
            None => {}
        }
        if let Some(wanted) = self.wanted.get_mut(&self.path) {
            *wanted = Some(place(marker));
        }
    }

    fn put(&mut self, value: Value) {
        match self.stack.last_mut() {
            Some(Frame::Mapping { map, key, .. }) => {
                if let Some((key, _)) = key.take() {
                    map.insert(key, value);
                }
            }
            Some(Frame::Sequence { items, .. }) => {
                self.cost.element();
                items.push(value);
            }
            None => self.value = Some(value),
        }
    }
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, at: Marker) -> Result<(), Failure> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => {
            Err(unknown_tag(tag, at))
        }
        Some(_) | None => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: Marker) -> Failure {
    let tag = excerpt(&tag.to_string());
    let reason = format!("the tag {tag} is refused; write the value without it");
    failure(at, reason)
}

/// The value of a scalar: YAML's core schema, except that a number with leading
/// zeros stays text, since YAML 1.1 and 1.2 read it differently.
fn typed(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Result<Value, Failure> {
    if let Some(tag) = tag {
        let suffix = tag.suffix.as_str();
        if !tag.is_yaml_core_schema()
            || !matches!(suffix, "str" | "int" | "float" | "bool" | "null")
        {
            return Err(unknown_tag(tag, at));
        }
        let value = if suffix == "str" {
            Value::String(text.to_owned())
        } else {
            plain(text, at)?
        };
        let fits = match suffix {
            "int" => value.is_i64() || value.is_u64(),
            "float" => value.is_number(),
            "bool" => value.is_boolean(),
            "null" => value.is_null(),
            _ => true,
        };
        if !fits {
            let text = excerpt(text);
            return Err(failure(
                at,
                format!("{text:?} does not fit its tag {tag}; write the value without it"),
            ));
        }
        return Ok(value);
    }
    Ok(match style {
        ScalarStyle::Plain => plain(text, at)?,
        ScalarStyle::SingleQuoted
        | ScalarStyle::DoubleQuoted
        | ScalarStyle::Literal
        | ScalarStyle::Folded => Value::String(text.to_owned()),
    })
}

fn plain(text: &str, at: Marker) -> Result<Value, Failure> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if !is_number(text) {
        return Ok(Value::String(text.to_owned()));
    }
    number(text).ok_or_else(|| {
        let text = excerpt(text);
        failure(
            at,
            format!("the number {text} is too large to be read; put it in quotes"),
        )
    })
}

/// Whether a plain scalar is a number of the core schema.
fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let bytes = digits.as_bytes();
    let leading_zero = bytes.len() > 1 && bytes[0] == b'0' && bytes[1].is_ascii_digit();
    let known =
        |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    !leading_zero
        && bytes
            .first()
            .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
        && bytes.iter().all(known)
        && digits.parse::<f64>().is_ok()
}

/// None if it is larger than any number that is read.
fn number(text: &str) -> Option<Value> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Value::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Value::from);
    }
    if let Ok(number) = text.trim_start_matches('+').parse::<i64>() {
        return Some(Value::from(number));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(Value::from(number));
    }
    Number::from_f64(text.parse::<f64>().ok()?).map(Value::Number)
}
