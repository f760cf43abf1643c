//! The bytes of each record format that was ever written. A change that breaks
//! one of these breaks the stores of running agents: raise the version instead.

use palisade_state::{EnvelopeError, RecordKind, decode, encode};

const JOURNAL_EVENT_V1: &[u8] = b"PL\x01\x01\x07\0\0\0\x3A\xB5\x0B\xAB{\"a\":1}";

#[test]
fn journal_event_v1() {
    let bytes = encode(RecordKind::JournalEvent, br#"{"a":1}"#).expect("small");
    assert_eq!(
        bytes,
        JOURNAL_EVENT_V1,
        "{}",
        String::from_utf8_lossy(&bytes).escape_debug()
    );
    let (version, body) = decode(RecordKind::JournalEvent, JOURNAL_EVENT_V1).expect("reads");
    assert_eq!((version, body), (1, br#"{"a":1}"#.as_slice()));
}

#[test]
fn every_prefix_and_every_flipped_bit_is_noticed() {
    for length in 0..JOURNAL_EVENT_V1.len() {
        assert!(decode(RecordKind::JournalEvent, &JOURNAL_EVENT_V1[..length]).is_err());
    }
    for bit in 0..JOURNAL_EVENT_V1.len() * 8 {
        let mut bytes = JOURNAL_EVENT_V1.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            decode(RecordKind::JournalEvent, &bytes).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let mut bytes = JOURNAL_EVENT_V1.to_vec();
    bytes[3] = 2;
    assert_eq!(
        decode(RecordKind::JournalEvent, &bytes),
        Err(EnvelopeError::Newer {
            kind: RecordKind::JournalEvent,
            found: 2,
            known: 1
        })
    );
}

#[test]
fn kinds_keep_their_numbers() {
    let kinds = [
        RecordKind::JournalEvent,
        RecordKind::SnapshotHead,
        RecordKind::SnapshotChunk,
        RecordKind::Endpoint,
        RecordKind::Audit,
        RecordKind::Generations,
        RecordKind::Boot,
        RecordKind::Schema,
        RecordKind::Identity,
        RecordKind::Note,
    ];
    for (kind, number) in kinds.into_iter().zip(1_u8..) {
        assert_eq!(kind as u8, number, "{kind:?}");
        assert_eq!(encode(kind, b"").expect("small")[2], number);
    }
}
