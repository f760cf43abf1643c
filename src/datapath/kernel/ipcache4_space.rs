//! Who owns which words of a slot's pool. Pure: user space's own account, made
//! again from the places in the buckets when an agent starts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The free words of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Space {
    segment: usize,
    /// First word and length of each free part; no two of a segment touch.
    free: BTreeMap<usize, usize>,
    /// The same parts by length, smallest first.
    sizes: BTreeSet<(usize, usize)>,
}

impl Space {
    /// Of so many words, in segments of so many: no part stands in two of them.
    pub(super) fn empty(words: usize, segment: usize) -> Self {
        let mut space = Self {
            segment,
            free: BTreeMap::new(),
            sizes: BTreeSet::new(),
        };
        space.insert_all(0, words);
        space
    }

    /// With these parts taken; None where two of them overlap or one lies outside.
    pub(super) fn with(words: usize, segment: usize, mut taken: Vec<Range<usize>>) -> Option<Self> {
        taken.sort_unstable_by_key(|part| part.start);
        let mut space = Self::empty(0, segment);
        let mut at = 0;
        for part in taken {
            space.insert_all(at, part.start.checked_sub(at)?);
            at = part.end;
        }
        space.insert_all(at, words.checked_sub(at)?);
        Some(space)
    }

    /// The smallest part that has so many words; None if there is none.
    pub(super) fn take(&mut self, words: usize) -> Option<usize> {
        let (length, start) = *self.sizes.range((words, 0)..).next()?;
        self.remove(start, length);
        self.insert(start + words, length - words);
        Some(start)
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, part: Range<usize>) {
        let (mut start, mut end) = (part.start, part.end);
        if let Some((before, length)) = self.free.range(..start).next_back()
            && before + length == start
            && !start.is_multiple_of(self.segment)
        {
            let (before, length) = (*before, *length);
            self.remove(before, length);
            start = before;
        }
        if let Some(length) = self.free.get(&end).copied()
            && !end.is_multiple_of(self.segment)
        {
            self.remove(end, length);
            end += length;
        }
        self.insert(start, end - start);
    }

    /// As many parts as there are segments.
    fn insert_all(&mut self, start: usize, length: usize) {
        let (mut start, end) = (start, start + length);
        while start < end {
            let next = end.min((start + 1).next_multiple_of(self.segment));
            self.insert(start, next - start);
            start = next;
        }
    }

    fn insert(&mut self, start: usize, length: usize) {
        if length != 0 {
            self.free.insert(start, length);
            self.sizes.insert((length, start));
        }
    }

    fn remove(&mut self, start: usize, length: usize) {
        self.free.remove(&start);
        self.sizes.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Space;

    proptest! {
        /// Against a plain list of words, each with its owner.
        #[test]
        fn no_word_has_two_owners_and_none_is_lost(
            steps in proptest::collection::vec((1usize..9, any::<prop::sample::Index>(), any::<bool>()), 1..64)
        ) {
            const WORDS: usize = 48;
            const SEGMENT: usize = 16;
            let mut space = Space::empty(WORDS, SEGMENT);
            let mut taken: Vec<std::ops::Range<usize>> = Vec::new();
            for (words, which, takes) in steps {
                if takes || taken.is_empty() {
                    let owned = |word: usize| taken.iter().any(|part| part.contains(&word));
                    let fits = (0..WORDS).any(|at| at % SEGMENT + words <= SEGMENT && !(at..at + words).any(owned));
                    let start = space.take(words);
                    prop_assert_eq!(start.is_some(), fits);
                    if let Some(start) = start {
                        prop_assert!(start % SEGMENT + words <= SEGMENT && !(start..start + words).any(owned));
                        taken.push(start..start + words);
                    }
                } else {
                    space.give(taken.swap_remove(which.index(taken.len())));
                }
                prop_assert_eq!(Space::with(WORDS, SEGMENT, taken.clone()), Some(space.clone()));
            }
            for part in taken {
                space.give(part);
            }
            prop_assert_eq!(space, Space::empty(WORDS, SEGMENT));
        }
    }

    #[test]
    fn parts_that_overlap_or_lie_outside_are_no_account() {
        assert_eq!(Space::with(8, 8, vec![0..4, 3..5]), None);
        assert_eq!(Space::with(8, 8, vec![0..4, 6..9]), None);
        let full = Space::with(8, 8, vec![4..8, 0..3]);
        assert_eq!(full.map(|mut space| space.take(2)), Some(None));
    }
}
