//! Reads one file: its form, its documents, its limits.

use std::collections::HashSet;

use super::{DocumentError, FileReading, Positions, json, split, yaml};
use crate::events::{ResourceKey, SourceName};
use crate::limits::{MANIFEST_DOCUMENT_BYTES_MAX, MANIFEST_FILE_BYTES_MAX};

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
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) source: SourceName,
    pub(super) keys: HashSet<ResourceKey>,
    pub(super) reading: FileReading,
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
