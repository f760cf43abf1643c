//! What a file holds: objects, errors, and what was passed over.

use serde::Serialize;

use super::Positions;
use crate::events::Resource;

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
