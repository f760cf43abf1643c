//! Words for the operator: what the parsers found, and what to write instead.

use crate::limits::MANIFEST_NESTING_MAX;

/// The start of a text, as a message may quote it.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_none() {
        start
    } else {
        format!("{start}...")
    }
}

/// What a document may not hold at any depth.
pub(super) fn too_deep() -> String {
    format!("nested deeper than {MANIFEST_NESTING_MAX} levels; no manifest needs that")
}

pub(super) fn twice(key: &str) -> String {
    format!(
        "the key {:?} is there twice; keep one of the two",
        excerpt(key)
    )
}

pub(super) const ALIAS: &str = "aliases (`*name`) are refused; write the value out";
pub(super) const MERGE_KEY: &str = "merge keys (`<<`) are refused; write the fields out";
pub(super) const KEY_NOT_TEXT: &str = "a key must be a string; put it in quotes";

/// Parts of the YAML parser's messages, and what they mean to an operator.
/// The first that fits counts.
const YAML: [(&str, &str); 25] = [
    ("unknown anchor", ALIAS),
    (
        "duplicated anchor",
        "anchors (`&name`) are of no use here; remove it",
    ),
    (
        "anchor",
        "`&` and `*` begin anchors and aliases, which are refused; put such a text in quotes",
    ),
    (
        "tag",
        "`!` begins a tag, which is refused; put a text that begins with it in quotes",
    ),
    (
        "tab",
        "a tab where YAML wants spaces; indent with spaces alone",
    ),
    (
        "quoted scalar, found unexpected end",
        "a quoted text is not closed; write the closing quote",
    ),
    (
        "quoted scalar, found unexpected document",
        "a quoted text is not closed before the next document; write the closing quote",
    ),
    (
        "indentation in quoted scalar",
        "a quoted text goes on in a line that is not indented; write the closing quote",
    ),
    (
        "escape c",
        "unknown escape in double quotes; write `\\\\` for a backslash, or use single quotes",
    ),
    (
        "hexadecimal",
        "an escape in double quotes lacks its hexadecimal digits; write `\\\\` for a backslash",
    ),
    (
        "after double-quoted",
        "text after a closing quote; write `\\\"` for a quote inside of double quotes",
    ),
    (
        "flow sequence",
        "a list that began with `[` is not closed; write `,` or `]`",
    ),
    (
        "flow mapping",
        "a mapping that began with `{` is not closed; write `,` or `}`",
    ),
    (
        "flow construct",
        "a line inside of `[...]` or `{...}` must be indented more; is a bracket not closed?",
    ),
    (
        "illegal placement of ':'",
        "a `:` cannot stand here; is a `[` or `{` before it not closed?",
    ),
    (
        "did not find expected node content",
        "a value is missing here; write one, or remove the character",
    ),
    (
        "did not find expected key",
        "expected `key: value` here; check the indentation of this line and of those above it",
    ),
    (
        "did not find expected '-'",
        "expected `- ` here; the elements of a list begin in the same column",
    ),
    (
        "mapping values are not allowed",
        "a `: ` cannot stand here; put a text that holds it in quotes, or check the indentation",
    ),
    (
        "mapping keys are not allowed",
        "a key cannot stand here; check the indentation",
    ),
    (
        "block sequence entries",
        "`- ` cannot stand here; begin the list in a line of its own",
    ),
    (
        "simple key",
        "expected `key: value`; write `:` and a space after the key",
    ),
    (
        "document start",
        "text after the end of the document; check the indentation, or begin another with `---`",
    ),
    (
        "directive",
        "a line that begins with `%` is a directive, which no manifest needs; remove it",
    ),
    (
        "unexpected eof",
        "the document ends too soon; a bracket or quote is not closed",
    ),
];

/// The YAML parser's message in the operator's words.
pub(super) fn yaml(message: &str) -> String {
    if message.contains("recursion limit") {
        return too_deep();
    }
    match YAML.iter().find(|(part, _)| message.contains(part)) {
        Some((_, words)) => (*words).to_owned(),
        None => format!("not valid YAML: {message}"),
    }
}

/// The JSON parser's message without its place, in the operator's words.
pub(super) fn json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    if error.is_data() {
        return message.to_owned();
    }
    if error.is_eof() {
        return "the JSON ends too soon; a quote, bracket or brace is not closed".to_owned();
    }
    match message {
        "trailing comma" => "a comma before a closing bracket; remove it".to_owned(),
        "key must be a string" => KEY_NOT_TEXT.to_owned(),
        "number out of range" => "a number too large to be read; write a smaller one".to_owned(),
        other => format!("not valid JSON: {other}"),
    }
}
