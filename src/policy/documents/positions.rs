//! Where the fields of an object stand in their file.
//!
//! Only errors ask, so the text is kept and read again when one does: a map of
//! all paths would cost more than the objects. An item of a list reads only
//! its own part of the text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::yaml;
use crate::policy::language::FieldError;
use crate::policy::path;

/// The text of an object, able to tell where a field stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Positions {
    /// The whole document.
    text: Arc<str>,
    /// The part that is the object.
    part: Range<usize>,
    /// Lines of the file before it, and characters of its first line.
    lines_before: usize,
    columns_before: usize,
}

impl Positions {
    /// Of a whole document that begins after as many lines of its file, and as
    /// many characters of its first line.
    pub(super) fn new(text: &str, lines_before: usize, columns_before: usize) -> Self {
        Self {
            text: Arc::from(text),
            part: 0..text.len(),
            lines_before,
            columns_before,
        }
    }

    /// The first line with content, one-based.
    pub(super) fn first_line(&self) -> usize {
        let content = |line: &str| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            !line.is_empty() && !line.starts_with('#')
        };
        let lines = self.text[self.part.clone()].lines();
        self.lines_before + 1 + lines.into_iter().position(content).unwrap_or(0)
    }

    /// The same for each of the first `count` items of a `List`; two passes.
    pub(super) fn items(&self, count: usize) -> Vec<Self> {
        let path = |index| path::index("items", index);
        let wanted = (0..count).map(|index| (path(index), None)).collect();
        let (text, shift) = self.readable();
        let places = yaml::locate(&text, wanted);
        let mut walk = Walk::new(&text);
        let starts: Vec<Start> = (0..count)
            .map(|index| {
                if let Some(Some(place)) = places.get(&path(index)) {
                    walk.to(place.line, place.column);
                }
                walk.here
            })
            .collect();
        // What was put before the text for reading is not part of it.
        let added = text.len() - self.part.len();
        let offset = |at: usize| self.part.start + at.saturating_sub(added);
        (0..count)
            .map(|index| {
                let start = starts[index];
                let end = starts.get(index + 1).map_or(text.len(), |next| {
                    // What leads to the next item is `- ` at most.
                    let lead = &text[next.line_start..next.offset];
                    let alone = lead.bytes().all(|byte| matches!(byte, b' ' | b'-'));
                    let end = if alone { next.line_start } else { next.offset };
                    end.max(start.offset)
                });
                let first_line_shift = if start.line == 1 { shift } else { 0 };
                Self {
                    text: Arc::clone(&self.text),
                    part: offset(start.offset)..offset(end),
                    lines_before: self.lines_before + start.line - 1,
                    columns_before: start.column - 1 + first_line_shift,
                }
            })
            .collect()
    }

    /// The lines of some fields that are there, by their paths; one pass, and
    /// none where all is one line, as programs write JSON.
    pub(super) fn lines(&self, paths: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
        if !self.text[self.part.clone()].contains(['\n', '\r']) {
            let paths = paths.into_iter();
            return paths.map(|path| (path, self.lines_before + 1)).collect();
        }
        let wanted: yaml::Places = paths.into_iter().map(|path| (path, None)).collect();
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let (text, _) = self.readable();
        yaml::locate(&text, wanted)
            .into_iter()
            .filter_map(|(path, place)| Some((path, place?.line + self.lines_before)))
            .collect()
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
            let mut around = Some(error.path.as_str());
            while let Some(path) = around {
                around = path::parent(path);
                wanted.insert(path.to_owned(), None);
            }
        }
        wanted.insert(String::new(), None);
        let (text, shift) = self.readable();
        let places = yaml::locate(&text, wanted);
        for error in errors {
            let mut path = error.path.as_str();
            let place = loop {
                if let Some(Some(place)) = places.get(path) {
                    break Some(*place);
                }
                if path.is_empty() {
                    break None;
                }
                path = path::parent(path).unwrap_or("");
            };
            error.line = place.map(|place| place.line + self.lines_before);
            error.column = place.map(|place| {
                let first_line_shift = if place.line == 1 { shift } else { 0 };
                place.column + first_line_shift
            });
        }
    }

    /// The text as the parser must see it, and by how much its first line
    /// stands to the left of where it does in the file. In block style the
    /// first line must keep its indentation; in flow style it means nothing,
    /// and may be as long as the document.
    fn readable(&self) -> (Cow<'_, str>, usize) {
        let part = &self.text[self.part.clone()];
        if self.columns_before == 0 || part.starts_with(['{', '[', '"']) {
            return (Cow::Borrowed(part), self.columns_before);
        }
        let indent = " ".repeat(self.columns_before);
        (Cow::Owned(indent + part), 0)
    }
}

/// A place in a text, one-based but for the offsets.
#[derive(Clone, Copy)]
struct Start {
    offset: usize,
    line_start: usize,
    line: usize,
    column: usize,
}

/// Finds places in a text, each after the one before it: one pass for all.
struct Walk<'a> {
    text: &'a str,
    here: Start,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str) -> Self {
        let here = Start {
            offset: 0,
            line_start: 0,
            line: 1,
            column: 1,
        };
        Self { text, here }
    }

    fn to(&mut self, line: usize, column: usize) {
        let mut chars = self.text[self.here.offset..].chars().peekable();
        while (self.here.line, self.here.column) < (line, column)
            && let Some(char) = chars.next()
        {
            self.here.offset += char.len_utf8();
            self.here.column += 1;
            let ends_line = char == '\n' || (char == '\r' && chars.peek() != Some(&'\n'));
            if ends_line {
                self.here.line += 1;
                self.here.column = 1;
                self.here.line_start = self.here.offset;
            }
        }
    }
}
