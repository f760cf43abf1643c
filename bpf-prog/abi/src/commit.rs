//! The commit word: one 64-bit store makes a generation current.
//!
//! It lives in a `BPF_F_MMAPABLE` array of one element, is written as an
//! `AtomicU64` through the mapping and read once per packet by the entry
//! program, which keeps it in `skb->cb`.
//!
//! | bits | meaning |
//! |---|---|
//! | 0 | slot: 0 = A, 1 = B |
//! | 1 | ingress is enforced |
//! | 2 | egress is enforced |
//! | 3 | a missed tail call passes (default: it drops) |
//! | 4 | ingress is watched: not enforced, yet the table is asked |
//! | 5 | egress is watched |
//! | 8..32 | decision epoch, 24 bits, wraps |
//! | 32..64 | generation |

/// A decoded or encoded commit word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CommitWord(pub u64);

const SLOT: u64 = 1 << 0;
const ENFORCED_SHIFT: u32 = 1;
const MISS_PASSES: u64 = 1 << 3;
const WATCHED_SHIFT: u32 = 4;
const EPOCH_SHIFT: u32 = 8;
/// Bits of the decision epoch.
pub const EPOCH_MASK: u32 = 0x00ff_ffff;

impl CommitWord {
    /// Builds the word of a generation. `epoch` is taken modulo 2^24. A
    /// direction that is enforced is not also watched.
    #[must_use]
    pub const fn new(
        slot: u32,
        enforced: [bool; 2],
        watched: [bool; 2],
        miss_passes: bool,
        epoch: u32,
        generation: u32,
    ) -> Self {
        let mut word = (slot as u64) & SLOT;
        word |= (enforced[0] as u64) << ENFORCED_SHIFT;
        word |= (enforced[1] as u64) << (ENFORCED_SHIFT + 1);
        word |= ((watched[0] && !enforced[0]) as u64) << WATCHED_SHIFT;
        word |= ((watched[1] && !enforced[1]) as u64) << (WATCHED_SHIFT + 1);
        if miss_passes {
            word |= MISS_PASSES;
        }
        word |= ((epoch & EPOCH_MASK) as u64) << EPOCH_SHIFT;
        word |= (generation as u64) << 32;
        Self(word)
    }

    /// Rebuilds the word from the two halves kept in `skb->cb`.
    #[inline(always)]
    #[must_use]
    pub const fn from_halves(low: u32, generation: u32) -> Self {
        Self((low as u64) | ((generation as u64) << 32))
    }

    /// 0 for slot A, 1 for slot B.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 & SLOT) as u32
    }

    /// Whether policy is enforced in a direction of [`crate::direction`]: only
    /// there anything may be dropped.
    #[inline(always)]
    #[must_use]
    pub const fn enforced(self, direction: u32) -> bool {
        self.0 & (1 << (ENFORCED_SHIFT + direction)) != 0
    }

    /// Whether a direction is watched: its verdicts are reported, nothing is
    /// dropped.
    #[inline(always)]
    #[must_use]
    pub const fn watched(self, direction: u32) -> bool {
        self.0 & (1 << (WATCHED_SHIFT + direction)) != 0
    }

    /// Whether the verdict table of a direction is asked: it is enforced or
    /// watched.
    #[inline(always)]
    #[must_use]
    pub const fn asks(self, direction: u32) -> bool {
        self.0 & (((1 << ENFORCED_SHIFT) | (1 << WATCHED_SHIFT)) << direction) != 0
    }

    /// Whether a missed tail call passes the packet instead of dropping it.
    #[inline(always)]
    #[must_use]
    pub const fn miss_passes(self) -> bool {
        self.0 & MISS_PASSES != 0
    }

    /// The decision epoch: entries judged in another epoch are judged again.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        ((self.0 >> EPOCH_SHIFT) as u32) & EPOCH_MASK
    }

    /// The generation, as carried by every event.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_what_it_was_made_of() {
        for bits in 0..64u32 {
            let bit = |place: u32| (bits >> place) & 1 == 1;
            let enforced = [bit(0), bit(1)];
            let watched = [bit(2), bit(3)];
            let word = CommitWord::new(bits >> 5, enforced, watched, bit(4), 0x00ab_cdef, 7);
            assert_eq!(word.slot(), bits >> 5);
            assert_eq!(word.miss_passes(), bit(4));
            assert_eq!((word.epoch(), word.generation()), (0x00ab_cdef, 7));
            assert_eq!(
                CommitWord::from_halves(word.0 as u32, word.generation()),
                word
            );
            for direction in 0..2 {
                let place = direction as usize;
                assert_eq!(word.enforced(direction), enforced[place]);
                let watches = watched[place] && !enforced[place];
                assert_eq!(word.watched(direction), watches, "never both");
                assert_eq!(word.asks(direction), watches || enforced[place]);
            }
        }
    }

    #[test]
    fn the_epoch_wraps_and_touches_nothing_else() {
        let word = CommitWord::new(1, [true; 2], [false; 2], true, EPOCH_MASK + 5, u32::MAX);
        assert_eq!((word.epoch(), word.generation()), (4, u32::MAX));
        assert!(word.slot() == 1 && word.miss_passes() && word.enforced(1));
    }
}
