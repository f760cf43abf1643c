//! Where the fields of an object stand in their file.
//!
//! Only errors ask, so the text is kept and read again when one does: a map of
//! all paths would cost more than the objects.

use std::sync::Arc;

use super::yaml;
use crate::policy::language::FieldError;
use crate::policy::path;

/// The text of a document, able to tell where a field stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Positions {
    text: Arc<str>,
    lines_before: usize,
    /// Path of the object inside of its document: `items[3]`, or empty.
    prefix: String,
}

impl Positions {
    pub(super) fn new(text: &str, lines_before: usize) -> Self {
        Self {
            text: Arc::from(text),
            lines_before,
            prefix: String::new(),
        }
    }

    /// The first line with content, one-based.
    pub(super) fn first_line(&self) -> usize {
        let content = |line: &str| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            !line.is_empty() && !line.starts_with('#')
        };
        self.lines_before + 1 + self.text.lines().position(content).unwrap_or(0)
    }

    /// The first line of each of the first `count` items of a `List`; one pass.
    pub(super) fn item_lines(&self, count: usize) -> Vec<usize> {
        let path = |index| path::index("items", index);
        let wanted = (0..count).map(|index| (path(index), None)).collect();
        let places = yaml::locate(&self.text, wanted);
        (0..count)
            .map(|index| match places.get(&path(index)) {
                Some(Some(place)) => place.line + self.lines_before,
                Some(None) | None => self.first_line(),
            })
            .collect()
    }

    /// The same document, seen from one item of a `List`.
    pub(super) fn within(&self, index: usize) -> Self {
        let mut prefix = path::key(&self.prefix, "items");
        path::push_index(&mut prefix, index);
        Self {
            prefix,
            ..self.clone()
        }
    }

    /// Line and column (one-based) of a field, or of the nearest object around
    /// it where the field itself is missing.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<(usize, usize)> {
        let mut error = [FieldError {
            path: field.to_owned(),
            ..FieldError::default()
        }];
        self.locate(&mut error);
        let [error] = error;
        error.line.zip(error.column)
    }

    /// Fills in line and column of each error.
    pub fn locate(&self, errors: &mut [FieldError]) {
        let mut wanted = yaml::Places::new();
        for error in errors.iter() {
            let mut around = Some(self.full(&error.path));
            while let Some(path) = around {
                around = path::parent(&path).map(str::to_owned);
                wanted.insert(path, None);
            }
        }
        wanted.insert(self.prefix.clone(), None);
        wanted.insert(String::new(), None);
        let places = yaml::locate(&self.text, wanted);
        for error in errors {
            let mut path = self.full(&error.path);
            let place = loop {
                if let Some(Some(place)) = places.get(&path) {
                    break Some(*place);
                }
                if path.is_empty() {
                    break None;
                }
                path = path::parent(&path).unwrap_or("").to_owned();
            };
            error.line = place.map(|place| place.line + self.lines_before);
            error.column = place.map(|place| place.column);
        }
    }

    fn full(&self, field: &str) -> String {
        match (self.prefix.is_empty(), field.is_empty()) {
            (_, true) => self.prefix.clone(),
            (true, false) => field.to_owned(),
            (false, false) if field.starts_with('[') => format!("{}{field}", self.prefix),
            (false, false) => format!("{}.{field}", self.prefix),
        }
    }
}
