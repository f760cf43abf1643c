//! One YAML document: events to a JSON value, with places on demand.
//!
//! Iterative, so that nesting costs no stack; aliases are refused, so that a
//! small document cannot become a large value.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

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

/// The value of a text that holds at most one document; None if it is empty.
pub(super) fn parse(text: &str) -> Result<Option<Value>, Failure> {
    let mut builder = Builder::default();
    run(text, &mut builder)?;
    Ok(builder.value)
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
            reason: "the YAML parser failed on this document".to_owned(),
        })
    })
}

fn drive(text: &str, builder: &mut Builder) -> Result<(), Failure> {
    let mut parser = Parser::new_from_str(text);
    while let Some(step) = parser.next_event() {
        let (event, span) = step.map_err(|error| failure(*error.marker(), error.info()))?;
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
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Failure> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(failure(span.start, "a second document without `---`"));
                }
                Ok(())
            }
            Event::Alias(_) => Err(failure(
                span.start,
                "aliases (`*name`) are refused; write the value out",
            )),
            Event::Scalar(text, style, _, tag) => {
                self.scalar(&text, style, tag.as_deref(), span.start)
            }
            Event::SequenceStart(_, tag) => {
                refuse_tag(tag.as_deref(), "seq", span.start)?;
                self.open(span.start, |path_len| Frame::Sequence {
                    items: Vec::new(),
                    path_len,
                })
            }
            Event::MappingStart(_, tag) => {
                refuse_tag(tag.as_deref(), "map", span.start)?;
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

    fn open(&mut self, at: Marker, frame: impl FnOnce(usize) -> Frame) -> Result<(), Failure> {
        if let Some(Frame::Mapping { key: None, .. }) = self.stack.last() {
            return Err(failure(at, "a key must be a string"));
        }
        if self.stack.len() >= MANIFEST_NESTING_MAX {
            return Err(failure(
                at,
                format!("nested deeper than {MANIFEST_NESTING_MAX} levels"),
            ));
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
            if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null") {
                return Err(failure(at, "a key must be a string"));
            }
            if map.contains_key(text) {
                return Err(failure(at, format!("the key {text:?} is there twice")));
            }
            self.path.truncate(*path_len);
            *key = Some((text.to_owned(), at));
            return Ok(());
        }
        let value = typed(text, style, tag, at)?;
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
            Some(Frame::Sequence { items, .. }) => items.push(value),
            None => self.value = Some(value),
        }
    }
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, at: Marker) -> Result<(), Failure> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => {
            Err(failure(at, format!("the tag {tag} is not known")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The value of a scalar: YAML's core schema, except that a number with leading
/// zeros stays text, since YAML 1.1 and 1.2 read it differently.
fn typed(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Result<Value, Failure> {
    if let Some(tag) = tag {
        let suffix = tag.suffix.as_str();
        if !tag.is_yaml_core_schema()
            || !matches!(suffix, "str" | "int" | "float" | "bool" | "null")
        {
            return Err(failure(at, format!("the tag {tag} is not known")));
        }
        let value = if suffix == "str" {
            Value::String(text.to_owned())
        } else {
            plain(text)
        };
        let fits = match suffix {
            "int" => value.is_i64() || value.is_u64(),
            "float" => value.is_number(),
            "bool" => value.is_boolean(),
            "null" => value.is_null(),
            _ => true,
        };
        if !fits {
            return Err(failure(at, format!("{text:?} does not fit its tag {tag}")));
        }
        return Ok(value);
    }
    Ok(match style {
        ScalarStyle::Plain => plain(text),
        ScalarStyle::SingleQuoted
        | ScalarStyle::DoubleQuoted
        | ScalarStyle::Literal
        | ScalarStyle::Folded => Value::String(text.to_owned()),
    })
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Value::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Value::from);
    }
    let first = digits.bytes().next()?;
    if !first.is_ascii_digit() && first != b'.' {
        return None;
    }
    let leading_zero = digits.len() > 1 && first == b'0' && digits.as_bytes()[1].is_ascii_digit();
    if leading_zero
        || !digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    if let Ok(number) = text.trim_start_matches('+').parse::<i64>() {
        return Some(Value::from(number));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(Value::from(number));
    }
    Number::from_f64(text.parse::<f64>().ok()?).map(Value::Number)
}
