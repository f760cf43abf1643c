//! Keys: one byte that names the family, then big-endian numbers, so that the
//! order of keys is the order of numbers.

use crate::envelope::RecordKind;

pub(crate) const JOURNAL: u8 = b'j';
pub(crate) const CHUNK: u8 = b'c';
pub(crate) const RECORD: u8 = b'r';
pub(crate) const NOTE: u8 = b'n';
/// All of them.
pub(crate) const FAMILIES: [u8; 4] = [RECORD, CHUNK, JOURNAL, NOTE];

pub(crate) fn journal(sequence: u64) -> Vec<u8> {
    number(JOURNAL, sequence)
}
pub(crate) fn chunk(sequence: u64, number_of_chunk: u32) -> Vec<u8> {
    let mut key = number(CHUNK, sequence);
    key.extend(number_of_chunk.to_be_bytes());
    key
}
pub(crate) fn note(number_of_note: u64) -> Vec<u8> {
    number(NOTE, number_of_note)
}
pub(crate) fn record(kind: RecordKind, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![RECORD, kind as u8, high, low]
}
/// The number behind the family's byte.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let bytes = key.get(1..9)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
fn number(family: u8, number: u64) -> Vec<u8> {
    let mut key = vec![family];
    key.extend(number.to_be_bytes());
    key
}
