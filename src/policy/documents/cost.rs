//! What the values of a document cost: a bound that holds before they are
//! built, since two bytes of text can become a hundred in memory.

use crate::limits::{MANIFEST_DOCUMENT_VALUES_MAX, MANIFEST_KEY_BYTES_MAX};

/// What the allocator adds to a piece of text, rounding included.
const PIECE_BYTES: usize = 24;
/// A list has room for four values from the first one on, and doubles its room
/// when it is full.
const LIST_BYTES: usize = 128;
const ELEMENT_BYTES: usize = 48;
/// A leaf of the tree behind a mapping holds 11 keys, and at least 5.
const LEAF_BYTES: usize = 640;
const LEAF_KEYS: usize = 6;

/// What was read of one document so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cost {
    /// Fields and list elements.
    pub(super) values: usize,
    /// Memory, estimated.
    pub(super) bytes: usize,
}

impl Cost {
    /// A string, a number, or the like; `text_bytes` is what is kept of it.
    pub(super) fn scalar(&mut self, text_bytes: usize) -> Result<(), String> {
        let text = if text_bytes == 0 {
            0
        } else {
            text_bytes + PIECE_BYTES
        };
        self.value(text)
    }

    /// A list, as yet empty.
    pub(super) fn list(&mut self) -> Result<(), String> {
        self.value(LIST_BYTES)
    }

    /// A mapping, as yet empty.
    pub(super) fn mapping(&mut self) -> Result<(), String> {
        self.value(0)
    }

    /// The place of a value in a list.
    pub(super) fn element(&mut self) {
        self.bytes += ELEMENT_BYTES;
    }

    /// A key of a mapping that holds `others` already.
    pub(super) fn key(&mut self, key: &str, others: usize) -> Result<(), String> {
        if key.len() > MANIFEST_KEY_BYTES_MAX {
            return Err(format!(
                "a key of {} bytes; at most {MANIFEST_KEY_BYTES_MAX} are read",
                key.len()
            ));
        }
        let leaf = if others.is_multiple_of(LEAF_KEYS) {
            LEAF_BYTES
        } else {
            0
        };
        self.bytes += key.len() + PIECE_BYTES + leaf;
        Ok(())
    }

    fn value(&mut self, more_bytes: usize) -> Result<(), String> {
        self.values += 1;
        self.bytes += more_bytes;
        if self.values > MANIFEST_DOCUMENT_VALUES_MAX {
            return Err(format!(
                "the document has more than {MANIFEST_DOCUMENT_VALUES_MAX} values (fields and \
                 list elements); split it"
            ));
        }
        Ok(())
    }
}
