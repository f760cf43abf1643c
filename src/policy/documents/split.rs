//! Splits a YAML file at its document markers, so that one broken document
//! does not hide the others.
//!
//! `---` and `...` at the start of a line end a document everywhere in YAML,
//! also inside of quoted and block scalars: no parsing is needed.

const BYTE_ORDER_MARK: char = '\u{feff}';

/// One document of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) text: &'a str,
    /// Lines of the file before it.
    pub(super) lines_before: usize,
}

/// The first `max` documents of a file; those without any content are left out.
pub(super) fn split(text: &str, max: usize) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut lines_before = 0;
    let mut content = false;
    let mut at = 0;
    for (number, line) in lines(text).enumerate() {
        let begins = is_marker(line, "---");
        let ends = is_marker(line, "...");
        if begins || ends {
            if content {
                chunks.push(Chunk {
                    text: &text[start..at],
                    lines_before,
                });
                if chunks.len() == max {
                    return chunks;
                }
            }
            content = false;
            // A `---` line belongs to the document it begins, a `...` line to none.
            start = if begins { at } else { at + line.len() };
            lines_before = if begins { number } else { number + 1 };
        }
        // Files that were put together have marks inside.
        if !content && line.starts_with(BYTE_ORDER_MARK) {
            start = at + BYTE_ORDER_MARK.len_utf8();
            lines_before = number;
        }
        content |= !ends && has_content(if begins { &line[3..] } else { line });
        at += line.len();
    }
    if content {
        chunks.push(Chunk {
            text: &text[start..],
            lines_before,
        });
    }
    chunks
}

/// The lines of a text with their ends, as YAML has them: `\n`, `\r\n`, `\r`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').flat_map(|line| {
        let body = line.strip_suffix("\r\n").unwrap_or(line);
        let (parts, last) = match body.rfind('\r') {
            // Only a lone `\r` ends a line of its own.
            Some(end) => line.split_at(end + 1),
            None => ("", line),
        };
        parts
            .split_inclusive('\r')
            .chain(Some(last).filter(|last| !last.is_empty()))
    })
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a line is more than blank, a comment, or a directive (`%YAML 1.2`).
fn has_content(line: &str) -> bool {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let trimmed = line.trim();
    !trimmed.is_empty() && !trimmed.starts_with('#') && !line.starts_with('%')
}
