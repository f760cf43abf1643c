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
//! | 8..32 | decision epoch, 24 bits, wraps |
//! | 32..64 | generation |

/// A decoded or encoded commit word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CommitWord(pub u64);

const SLOT: u64 = 1 << 0;
const ENFORCED_SHIFT: u32 = 1;
const MISS_PASSES: u64 = 1 << 3;
const EPOCH_SHIFT: u32 = 8;
/// Bits of the decision epoch.
pub const EPOCH_MASK: u32 = 0x00ff_ffff;

impl CommitWord {
    /// Builds the word of a generation. `epoch` is taken modulo 2^24.
    #[must_use]
    pub const fn new(
        slot: u32,
        enforced: [bool; 2],
        miss_passes: bool,
        epoch: u32,
        generation: u32,
    ) -> Self {
        let mut word = (slot as u64) & SLOT;
        word |= (enforced[0] as u64) << ENFORCED_SHIFT;
        word |= (enforced[1] as u64) << (ENFORCED_SHIFT + 1);
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

    /// Whether policy is enforced in a direction of [`crate::direction`].
    #[inline(always)]
    #[must_use]
    pub const fn enforced(self, direction: u32) -> bool {
        self.0 & (1 << (ENFORCED_SHIFT + direction)) != 0
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
