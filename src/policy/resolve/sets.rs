//! Sets of small numbers that share what they have in common.
//!
//! A set is a number itself: equal sets have equal numbers, whatever way they
//! came about. Adding or removing one element makes a logarithmic number of new
//! nodes; so a sweep over 100,000 borders keeps all its sets in little memory.

use super::hashing::NumberMap;

/// A set, within its [`Sets`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Set(u32);

impl Set {
    /// The empty set, also as a part of another.
    pub(super) const EMPTY: Self = Self(0);
}

/// What a node of the tree is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Node {
    /// Up to 64 elements, one bit each.
    Leaf(u64),
    /// The lower and the upper half.
    Pair(Set, Set),
}

/// All sets over the elements `0..count`.
#[derive(Debug)]
pub(super) struct Sets {
    nodes: Vec<Node>,
    numbers: NumberMap<Node, Set>,
    /// Unions that are done.
    unions: NumberMap<(Set, Set), Set>,
    /// Pairs above each leaf.
    height: u32,
}

const LEAF_BITS: u32 = 6;

impl Sets {
    pub(super) fn new(count: usize) -> Self {
        let leaves = count.div_ceil(1 << LEAF_BITS).max(1);
        Self {
            nodes: vec![Node::Leaf(0)],
            numbers: NumberMap::default(),
            unions: NumberMap::default(),
            height: leaves.next_power_of_two().trailing_zeros(),
        }
    }

    /// Pairs above each leaf: a node at height 0 is a leaf.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    pub(super) fn node(&self, set: Set) -> Node {
        self.nodes[set.0 as usize]
    }

    /// The set with one element more if it was not there, else with one less.
    pub(super) fn toggled(&mut self, set: Set, element: u32) -> Set {
        self.toggled_at(set, element, self.height)
    }

    fn toggled_at(&mut self, set: Set, element: u32, height: u32) -> Set {
        if height == 0 {
            let bits = match self.node(set) {
                Node::Leaf(bits) => bits,
                Node::Pair(..) => 0,
            };
            let bit = 1 << (element % (1 << LEAF_BITS));
            return self.number(Node::Leaf(bits ^ bit));
        }
        let (low, high) = match self.node(set) {
            Node::Pair(low, high) => (low, high),
            Node::Leaf(_) => (Set::EMPTY, Set::EMPTY),
        };
        let upper = element >> (LEAF_BITS + height - 1) & 1 == 1;
        let pair = if upper {
            (low, self.toggled_at(high, element, height - 1))
        } else {
            (self.toggled_at(low, element, height - 1), high)
        };
        match pair {
            (Set::EMPTY, Set::EMPTY) => Set::EMPTY,
            (low, high) => self.number(Node::Pair(low, high)),
        }
    }

    /// The elements of either. Costs what the two do not share.
    pub(super) fn union(&mut self, one: Set, other: Set) -> Set {
        if one == other || other == Set::EMPTY {
            return one;
        }
        if one == Set::EMPTY {
            return other;
        }
        let key = (one.min(other), one.max(other));
        if let Some(done) = self.unions.get(&key) {
            return *done;
        }
        let union = match (self.node(one), self.node(other)) {
            (Node::Leaf(one), Node::Leaf(other)) => Node::Leaf(one | other),
            (Node::Pair(low, high), Node::Pair(other_low, other_high)) => {
                Node::Pair(self.union(low, other_low), self.union(high, other_high))
            }
            // Sets of one tree have leaves at one height only.
            (Node::Leaf(_), Node::Pair(..)) | (Node::Pair(..), Node::Leaf(_)) => return one,
        };
        let union = self.number(union);
        self.unions.insert(key, union);
        union
    }

    /// Whether the set has the element.
    pub(super) fn contains(&self, set: Set, element: u32) -> bool {
        let (mut set, mut height) = (set, self.height);
        loop {
            match self.node(set) {
                Node::Leaf(bits) => return bits >> (element % (1 << LEAF_BITS)) & 1 == 1,
                Node::Pair(low, high) => {
                    let upper = element >> (LEAF_BITS + height - 1) & 1 == 1;
                    set = if upper { high } else { low };
                    height -= 1;
                }
            }
        }
    }

    /// Nodes and unions kept.
    pub(super) fn size(&self) -> usize {
        self.nodes.len() + self.unions.len()
    }

    fn number(&mut self, node: Node) -> Set {
        if node == Node::Leaf(0) {
            return Set::EMPTY;
        }
        *self.numbers.entry(node).or_insert_with(|| {
            let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            self.nodes.push(node);
            Set(next)
        })
    }
}

/// The elements of a leaf.
pub(super) fn elements(bits: u64) -> impl Iterator<Item = usize> {
    (0..1 << LEAF_BITS).filter(move |bit| bits >> bit & 1 == 1)
}

/// How many elements lie before the upper half of a pair at `height`.
pub(super) fn half(height: u32) -> usize {
    1 << (LEAF_BITS + height - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Node, Set, Sets, elements, half};

    fn collect(sets: &Sets, set: Set, height: u32, base: usize, into: &mut BTreeSet<usize>) {
        match sets.node(set) {
            Node::Leaf(bits) => into.extend(elements(bits).map(|bit| base + bit)),
            Node::Pair(low, high) => {
                collect(sets, low, height - 1, base, into);
                collect(sets, high, height - 1, base + half(height), into);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn equal_sets_have_equal_numbers(
            count in 1..700usize,
            toggles in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut sets = Sets::new(count);
            let mut set = Set::EMPTY;
            let mut model = BTreeSet::new();
            for toggle in &toggles {
                let element = toggle.index(count);
                set = sets.toggled(set, u32::try_from(element).expect("small"));
                if !model.remove(&element) {
                    model.insert(element);
                }
            }
            let mut found = BTreeSet::new();
            collect(&sets, set, sets.height(), 0, &mut found);
            prop_assert_eq!(&found, &model);
            let mut again = Set::EMPTY;
            for element in model.iter().rev() {
                again = sets.toggled(again, u32::try_from(*element).expect("small"));
            }
            prop_assert_eq!(again, set);
            for element in 0..count {
                let held = sets.contains(set, u32::try_from(element).expect("small"));
                prop_assert_eq!(held, model.contains(&element));
            }
        }

        #[test]
        fn a_union_has_what_either_has(
            count in 1..700u32,
            one in proptest::collection::btree_set(0..700u32, 0..60),
            other in proptest::collection::btree_set(0..700u32, 0..60),
        ) {
            let mut sets = Sets::new(count as usize);
            let mut of = |list: &BTreeSet<u32>| {
                let inside = list.iter().filter(|at| **at < count);
                inside.fold(Set::EMPTY, |set, element| sets.toggled(set, *element))
            };
            let (left, right) = (of(&one), of(&other));
            let both = of(&one.union(&other).copied().collect());
            prop_assert_eq!(sets.union(left, right), both);
            prop_assert_eq!(sets.union(right, left), both);
        }
    }
}
