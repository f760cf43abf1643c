//! Reads one file: its form, its documents, its limits.

use std::collections::HashMap;

use super::cost::Cost;
use super::{DocumentError, FileReading, Positions, json, split, yaml};
use crate::events::{ResourceKey, SourceName};
use crate::limits::{
    MANIFEST_DOCUMENT_BYTES_MAX, MANIFEST_ERRORS_MAX, MANIFEST_FILE_BYTES_MAX,
    MANIFEST_FILE_MEMORY_BYTES_MAX, MANIFEST_FILE_VALUES_MAX, MANIFEST_OBJECTS_MAX,
};

/// Reads one file (YAML or JSON, any number of documents, `List` kinds).
/// `file` is its name in messages.
#[must_use]
pub fn read(file: &str, bytes: &[u8], source: SourceName) -> FileReading {
    let mut reader = Reader {
        file,
        source,
        keys: HashMap::new(),
        reading: FileReading::default(),
        objects: 0,
        cost: Cost::default(),
        errors_more: 0,
        refused: false,
    };
    match checked_text(bytes) {
        Ok(text) => reader.text(text),
        Err((line, column, reason)) => reader.error(0, line, column, reason),
    }
    reader.finish()
}

/// The text of a file, or the place and reason of the first thing that no
/// manifest may hold.
fn checked_text(bytes: &[u8]) -> Result<&str, (usize, usize, String)> {
    if bytes.len() as u64 > MANIFEST_FILE_BYTES_MAX {
        let reason = format!(
            "the file has {} bytes, at most {MANIFEST_FILE_BYTES_MAX} are read; split it",
            bytes.len()
        );
        return Err((1, 1, reason));
    }
    let at = |offset: usize| {
        let before = &bytes[..offset];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let line_before = String::from_utf8_lossy(&bytes[line_start..offset]);
        (line, line_before.chars().count() + 1)
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let (line, column) = at(offset);
        let form = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
            _ => "another encoding",
        };
        let byte = bytes[offset];
        let reason = format!(
            "the byte 0x{byte:02x} is not valid UTF-8 (is it {form}?); save the file as UTF-8"
        );
        (line, column, reason)
    })?;
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        let (line, column) = at(offset);
        let reason = "a NUL byte; manifests are text, remove it".to_owned();
        return Err((line, column, reason));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// State of reading one file.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) source: SourceName,
    /// Resources and the line where each stands.
    pub(super) keys: HashMap<ResourceKey, usize>,
    pub(super) reading: FileReading,
    /// Objects so far, whatever became of them.
    objects: usize,
    /// Of all documents so far.
    cost: Cost,
    /// Errors that are counted, but not listed.
    errors_more: usize,
    /// A limit of the file is exceeded: nothing of it counts.
    refused: bool,
}

impl Reader<'_> {
    fn finish(mut self) -> FileReading {
        if self.errors_more > 0 {
            let last = self.reading.errors.last();
            let (document, line, column) = last.map_or((0, 1, 1), |error| {
                (error.document, error.line, error.column)
            });
            let reason = format!(
                "and {} more errors in this file; correct these first",
                self.errors_more
            );
            let error = self.at(document, line, column, reason);
            self.reading.errors.push(error);
        }
        self.reading
    }

    fn text(&mut self, text: &str) {
        let named_json = self.file.ends_with(".json");
        let looks_json = text.trim_start().starts_with(['{', '[']);
        if named_json || looks_json {
            let (extents, fault) = json::extents(text, MANIFEST_OBJECTS_MAX + 1);
            // A YAML flow mapping may begin like JSON.
            if named_json || fault.is_none() {
                let count = extents.len();
                self.json(text, extents);
                return match fault {
                    Some(fault) if !self.refused => {
                        self.error(count, fault.line, fault.column, fault.reason);
                    }
                    Some(_) | None => {}
                };
            }
        }
        self.yaml(text);
    }

    fn yaml(&mut self, text: &str) {
        let chunks = split::split(text, MANIFEST_OBJECTS_MAX + 1);
        if let Some(chunk) = chunks.get(MANIFEST_OBJECTS_MAX) {
            return self.too_many_objects(MANIFEST_OBJECTS_MAX, chunk.lines_before + 1);
        }
        for (number, chunk) in chunks.into_iter().enumerate() {
            let line = chunk.lines_before + 1;
            if self.too_large(number, line, 1, chunk.text.len()) {
                continue;
            }
            let (parsed, cost) = yaml::parse(chunk.text);
            match parsed {
                Ok(Some(value)) => {
                    if !self.pay(number, line, cost) {
                        return;
                    }
                    let positions = Positions::new(chunk.text, chunk.lines_before, 0);
                    self.document(number, value, &positions);
                }
                Ok(None) => {}
                Err(failure) => {
                    // What is not kept costs time all the same.
                    let cost = Cost { bytes: 0, ..cost };
                    if !self.pay(number, line, cost) {
                        return;
                    }
                    let line = chunk.lines_before + failure.line;
                    self.error(number, line, failure.column, failure.reason);
                }
            }
            if self.refused {
                return;
            }
        }
    }

    fn json(&mut self, text: &str, documents: Vec<std::ops::Range<usize>>) {
        let mut lines_before = 0;
        let mut columns_before = 0;
        let mut seen = 0;
        for (number, extent) in documents.into_iter().enumerate() {
            let between = &text[seen..extent.start];
            let last_line = match between.rfind('\n') {
                Some(newline) => {
                    lines_before += between.matches('\n').count();
                    columns_before = 0;
                    &between[newline + 1..]
                }
                None => between,
            };
            columns_before += last_line.chars().count();
            seen = extent.start;
            let line = lines_before + 1;
            if number >= MANIFEST_OBJECTS_MAX {
                return self.too_many_objects(number, line);
            }
            if self.too_large(number, line, columns_before + 1, extent.len()) {
                continue;
            }
            let document = &text[extent];
            match json::parse(document) {
                Ok((value, cost)) => {
                    if !self.pay(number, line, cost) {
                        return;
                    }
                    let positions = Positions::new(document, lines_before, columns_before);
                    self.document(number, value, &positions);
                }
                Err(failure) => {
                    let on_first = if failure.line == 1 { columns_before } else { 0 };
                    let line = lines_before + failure.line;
                    self.error(number, line, failure.column + on_first, failure.reason);
                }
            }
            if self.refused {
                return;
            }
        }
    }

    /// Adds the cost of a document; false if the file costs too much with it.
    fn pay(&mut self, document: usize, line: usize, cost: Cost) -> bool {
        self.cost.values += cost.values;
        self.cost.bytes += cost.bytes;
        if self.cost.values > MANIFEST_FILE_VALUES_MAX {
            let reason = format!(
                "the file has more than {MANIFEST_FILE_VALUES_MAX} values (fields and list \
                 elements); split it"
            );
            self.refuse_file(document, line, reason);
        } else if self.cost.bytes > MANIFEST_FILE_MEMORY_BYTES_MAX {
            let reason = format!(
                "the objects of the file need more than {} MiB of memory; split it",
                MANIFEST_FILE_MEMORY_BYTES_MAX >> 20
            );
            self.refuse_file(document, line, reason);
        }
        !self.refused
    }

    /// Counts an object; false if the file has too many.
    pub(super) fn count_object(&mut self, document: usize, line: usize) -> bool {
        self.objects += 1;
        if self.objects > MANIFEST_OBJECTS_MAX && !self.refused {
            self.too_many_objects(document, line);
        }
        !self.refused
    }

    fn too_many_objects(&mut self, document: usize, line: usize) {
        let reason = format!(
            "the file has more than {MANIFEST_OBJECTS_MAX} objects, of which this is the first; \
             split it"
        );
        self.refuse_file(document, line, reason);
    }

    /// A limit of the whole file: half of a file could close what the other
    /// half opens, so nothing of it counts.
    fn refuse_file(&mut self, document: usize, line: usize, reason: String) {
        self.refused = true;
        self.errors_more = 0;
        self.reading = FileReading::default();
        let reason = format!("{reason}; nothing of this file is read");
        self.error(document, line, 1, reason);
    }

    fn too_large(&mut self, document: usize, line: usize, column: usize, bytes: usize) -> bool {
        let large = bytes > MANIFEST_DOCUMENT_BYTES_MAX;
        if large {
            let reason = format!(
                "the document has {bytes} bytes, at most {MANIFEST_DOCUMENT_BYTES_MAX} are read; \
                 split it"
            );
            self.error(document, line, column, reason);
        }
        large
    }

    fn error(&mut self, document: usize, line: usize, column: usize, reason: String) {
        let error = self.at(document, line, column, reason);
        self.list_error(error);
    }

    fn at(&self, document: usize, line: usize, column: usize, reason: String) -> DocumentError {
        DocumentError {
            file: self.file.to_owned(),
            document,
            line,
            column,
            resource: None,
            reason,
        }
    }

    /// Adds an error; past the limit they are only counted.
    pub(super) fn list_error(&mut self, error: DocumentError) {
        if self.reading.errors.len() < MANIFEST_ERRORS_MAX {
            self.reading.errors.push(error);
        } else {
            self.errors_more += 1;
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether errors are still listed: the place of others need not be found.
    pub(super) fn lists_errors(&self) -> bool {
        self.reading.errors.len() < MANIFEST_ERRORS_MAX
    }
}
