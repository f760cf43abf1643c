//! Reads manifest files: bytes to objects, each with its place.
//!
//! Files come from anywhere: never panics, never recurses or grows without
//! bound (limits.rs), and one broken document does not hide the others.

mod expand;
mod json;
mod positions;
mod split;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::HashSet;

use serde::Serialize;

use crate::events::{Resource, ResourceKey, SourceName};
use crate::limits::{MANIFEST_DOCUMENT_BYTES_MAX, MANIFEST_FILE_BYTES_MAX};
pub use positions::Positions;

/// One object of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    pub resource: Resource,
    /// Where its fields stand.
    pub positions: Positions,
}

/// A document that could not be read at all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DocumentError {
    pub file: String,
    /// Zero-based number of the document in the file.
    pub document: usize,
    /// One-based; 0 where unknown.
    pub line: usize,
    pub column: usize,
    /// The resource, where it got that far: `Kind/name`.
    pub resource: Option<String>,
    pub reason: String,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: document {}", self.file, self.document + 1)?;
        if self.line > 0 {
            write!(f, ", line {}, column {}", self.line, self.column)?;
        }
        if let Some(resource) = &self.resource {
            write!(f, ": {resource}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// An object of a kind that is not read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Skipped {
    pub file: String,
    pub document: usize,
    pub line: usize,
    pub kind: String,
    pub name: String,
    pub reason: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            line,
            kind,
            name,
            reason,
            ..
        } = self;
        write!(f, "{file}: line {line}: {kind}/{name} skipped: {reason}")
    }
}

/// What one file holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FileReading {
    pub documents: Vec<Document>,
    pub errors: Vec<DocumentError>,
    pub skipped: Vec<Skipped>,
}

/// Reads one file (YAML or JSON, any number of documents, `List` kinds).
/// `file` is its name in messages.
#[must_use]
pub fn read(file: &str, bytes: &[u8], source: SourceName) -> FileReading {
    let mut reader = Reader {
        file,
        source,
        keys: HashSet::new(),
        reading: FileReading::default(),
    };
    match checked_text(bytes) {
        Ok(text) => reader.text(text),
        Err((line, column, reason)) => reader.error(0, line, column, reason),
    }
    reader.reading
}

/// The text of a file, or the place and reason of the first thing that no
/// manifest may hold.
fn checked_text(bytes: &[u8]) -> Result<&str, (usize, usize, String)> {
    if bytes.len() as u64 > MANIFEST_FILE_BYTES_MAX {
        let reason = format!(
            "the file has {} bytes, at most {MANIFEST_FILE_BYTES_MAX} are read; split it",
            bytes.len()
        );
        return Err((0, 0, reason));
    }
    let at = |offset: usize| {
        let before = &bytes[..offset];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, offset - line_start + 1)
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = at(error.valid_up_to());
        (line, column, "not valid UTF-8".to_owned())
    })?;
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        let (line, column) = at(offset);
        return Err((line, column, "a NUL byte".to_owned()));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// State of reading one file.
struct Reader<'a> {
    file: &'a str,
    source: SourceName,
    keys: HashSet<ResourceKey>,
    reading: FileReading,
}

impl Reader<'_> {
    fn text(&mut self, text: &str) {
        let named_json = self.file.ends_with(".json");
        let looks_json = text.trim_start().starts_with(['{', '[']);
        if named_json || looks_json {
            match json_documents(text) {
                Ok(documents) => return self.json(text, documents),
                Err(failure) if named_json => {
                    return self.error(0, failure.line, failure.column, failure.reason);
                }
                // A YAML flow mapping may begin like JSON.
                Err(_) => {}
            }
        }
        self.yaml(text);
    }

    fn yaml(&mut self, text: &str) {
        for (number, chunk) in split::split(text).into_iter().enumerate() {
            let line = chunk.lines_before + 1;
            if self.too_large(number, line, chunk.text.len()) {
                continue;
            }
            match yaml::parse(chunk.text) {
                Ok(Some(value)) => {
                    let positions = Positions::new(chunk.text, chunk.lines_before);
                    self.document(number, value, &positions);
                }
                Ok(None) => {}
                Err(failure) => {
                    let line = chunk.lines_before + failure.line;
                    self.error(number, line, failure.column, failure.reason);
                }
            }
        }
    }

    fn json(&mut self, text: &str, documents: Vec<(usize, usize, serde_json::Value)>) {
        for (number, (start, end, value)) in documents.into_iter().enumerate() {
            let lines_before = text[..start].matches('\n').count();
            if self.too_large(number, lines_before + 1, end - start) {
                continue;
            }
            let positions = Positions::new(&text[start..end], lines_before);
            self.document(number, value, &positions);
        }
    }

    fn too_large(&mut self, document: usize, line: usize, bytes: usize) -> bool {
        let large = bytes > MANIFEST_DOCUMENT_BYTES_MAX;
        if large {
            let reason = format!(
                "the document has {bytes} bytes, at most {MANIFEST_DOCUMENT_BYTES_MAX} are read; \
                 split it"
            );
            self.error(document, line, 1, reason);
        }
        large
    }

    fn error(&mut self, document: usize, line: usize, column: usize, reason: String) {
        self.reading.errors.push(DocumentError {
            file: self.file.to_owned(),
            document,
            line,
            column,
            resource: None,
            reason,
        });
    }
}

/// Start, end and value of each JSON value of a text.
fn json_documents(text: &str) -> Result<Vec<(usize, usize, serde_json::Value)>, yaml::Failure> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<json::Strict>();
    let mut documents = Vec::new();
    loop {
        let before = stream.byte_offset();
        let Some(next) = stream.next() else {
            return Ok(documents);
        };
        let value = next.map_err(|error| yaml::Failure {
            line: error.line(),
            column: error.column().max(1),
            reason: error.to_string(),
        })?;
        let blank = text[before..].len() - text[before..].trim_start().len();
        documents.push((before + blank, stream.byte_offset(), value.0));
    }
}
