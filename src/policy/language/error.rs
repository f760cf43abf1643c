//! Errors and warnings about one field, for the operator.

use serde::{Deserialize, Serialize};

/// What is wrong with one field, and what would be valid.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FieldError {
    /// `spec.ingress[2].toPorts[0].ports[1].port`; empty for the whole object.
    pub path: String,
    /// The value as written; None where a field is missing.
    pub value: Option<String>,
    pub reason: String,
    /// What would be valid.
    pub suggestion: Option<String>,
    /// One-based, where known.
    pub line: Option<usize>,
    pub column: Option<usize>,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.reason)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}
