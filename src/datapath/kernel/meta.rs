//! What user space keeps beside the pins, so that a new agent knows what the
//! kernel holds. The programs never read it.

use super::maps::{MapName, Maps};
use crate::datapath::DatapathError;

/// One slot's record, in the array `pal_meta` (key: slot). It is written before
/// the commit word and counts only if its generation is the word's. Its layout
/// falls under the ABI version like every other pinned map's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct SlotMeta {
    /// Revision of the repository that the slot's verdicts were computed from.
    pub(crate) revision: u64,
    /// Checksum over rows, blocks and settings of the slot.
    pub(crate) checksum: u64,
    /// Generation that made the slot current last.
    pub(crate) generation: u32,
    /// Drawn when the generation was staged: tells it from another one of its
    /// number (agents of this layout that drew none wrote the blocks in use).
    pub(crate) nonce: u32,
}

const _: () = assert!(size_of::<SlotMeta>() == 24);

pub(crate) fn read(maps: &Maps, slot: u32) -> Result<SlotMeta, DatapathError> {
    Ok(maps.of(MapName::Meta).get(&slot)?.unwrap_or_default())
}

/// A nonce. Without randomness all are alike, and numbers alone count.
pub(crate) fn nonce() -> u32 {
    let mut drawn = [0; 4];
    // At this size it is all or nothing.
    let _count = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(drawn)
}

pub(crate) fn write(maps: &Maps, slot: u32, meta: &SlotMeta) -> Result<(), DatapathError> {
    maps.of(MapName::Meta).put(&slot, meta)
}
