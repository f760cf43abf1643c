//! Hash maps whose keys are numbers of our own making: nobody outside chooses
//! them, so a product spreads them well enough, at a fraction of the cost of a
//! hash that withstands an attacker.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from numbers of our own, or from things that are told apart by such.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Odd, with bits everywhere (2^64 by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Sums and products of words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        // The upper bits know most; a map looks at the lowest and the highest.
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(FACTOR);
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher as _, BuildHasherDefault};

    use super::NumberHasher;

    #[test]
    fn neighbours_and_pairs_are_spread() {
        let build = BuildHasherDefault::<NumberHasher>::default();
        let pairs = (0..256_u32).flat_map(|one| (0..256_u32).map(move |other| (one, other)));
        let hashes: Vec<u64> = pairs.map(|pair| build.hash_one(pair)).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        // As many buckets as pairs: chance alone leaves 37 % of them empty.
        let used: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
        assert!(used.len() > 36_000, "{} buckets of 65,536", used.len());
        let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert_eq!(tags.len(), 128);
    }
}
