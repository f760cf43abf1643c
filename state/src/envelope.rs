//! Bytes of a record: a header that names kind, version, length and checksum,
//! then the body. Pure.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..2 | `P` `L` |
//! | 2 | kind |
//! | 3 | version of the body |
//! | 4..8 | length of the body, little endian |
//! | 8..12 | crc32 of bytes 2..8 and the body, little endian |
//! | 12.. | body |

/// Kinds of records. The number is on the disk: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    JournalEvent = 1,
    SnapshotHead = 2,
    SnapshotChunk = 3,
    Endpoint = 4,
    Audit = 5,
    Generations = 6,
    Boot = 7,
    Schema = 8,
    Identity = 9,
    Note = 10,
}

impl RecordKind {
    /// Version of the body that this code writes, and the newest it reads.
    #[must_use]
    pub const fn version(self) -> u8 {
        match self {
            Self::JournalEvent
            | Self::SnapshotHead
            | Self::SnapshotChunk
            | Self::Endpoint
            | Self::Audit
            | Self::Generations
            | Self::Boot
            | Self::Schema
            | Self::Identity
            | Self::Note => 1,
        }
    }
    /// Largest body.
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        match self {
            // A document of 1 MiB, with room for JSON's escapes.
            Self::JournalEvent => 8 << 20,
            Self::SnapshotChunk => 128 << 10,
            Self::SnapshotHead
            | Self::Endpoint
            | Self::Audit
            | Self::Generations
            | Self::Boot
            | Self::Schema
            | Self::Identity
            | Self::Note => 64 << 10,
        }
    }
}

/// Bytes before the body.
pub const ENVELOPE_BYTES: usize = 12;
const MAGIC: [u8; 2] = *b"PL";

/// What is wrong with a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("{kind:?} of {bytes} bytes exceeds its limit of {max} bytes")]
    TooLarge {
        kind: RecordKind,
        bytes: usize,
        max: usize,
    },
    #[error("record is torn: {found} bytes where {needed} are due")]
    Torn { found: usize, needed: usize },
    #[error("record is not ours, or of another kind than {expected:?}")]
    Foreign { expected: RecordKind },
    #[error("{kind:?} has version {found}; this agent reads up to {known}")]
    Newer {
        kind: RecordKind,
        found: u8,
        known: u8,
    },
    #[error("checksum of {kind:?} is wrong")]
    Checksum { kind: RecordKind },
}

/// The record's bytes.
pub fn encode(kind: RecordKind, body: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let max = kind.body_bytes_max();
    let too_large = EnvelopeError::TooLarge {
        kind,
        bytes: body.len(),
        max,
    };
    if body.len() > max {
        return Err(too_large);
    }
    let length = u32::try_from(body.len()).map_err(|_| too_large)?;
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend([kind as u8, kind.version()]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(&bytes[2..8], body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// Version and body of a record of the expected kind.
pub fn decode(expected: RecordKind, bytes: &[u8]) -> Result<(u8, &[u8]), EnvelopeError> {
    let torn = |needed| EnvelopeError::Torn {
        found: bytes.len(),
        needed,
    };
    let (header, body) = bytes
        .split_at_checked(ENVELOPE_BYTES)
        .ok_or_else(|| torn(ENVELOPE_BYTES))?;
    if header[..2] != MAGIC || header[2] != expected as u8 {
        return Err(EnvelopeError::Foreign { expected });
    }
    if header[3] > expected.version() {
        return Err(EnvelopeError::Newer {
            kind: expected,
            found: header[3],
            known: expected.version(),
        });
    }
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if body.len() != length {
        return Err(torn(ENVELOPE_BYTES + length));
    }
    let sum = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if sum != checksum(&header[2..8], body) {
        return Err(EnvelopeError::Checksum { kind: expected });
    }
    Ok((header[3], body))
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}
