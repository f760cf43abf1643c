//! A persistent map whose keys are numbers that were given one after another.
//!
//! A tree of 32 branches over the bits of the number: nothing is compared,
//! nothing moves when a key comes, and neighbours stand in one node. A copy
//! shares what does not change.

use std::marker::PhantomData;
use std::sync::Arc;

const BITS: u32 = 5;
const WIDTH: usize = 1 << BITS;

/// A key that is a number.
pub trait DenseKey: Copy {
    fn number(self) -> u32;
    fn of_number(number: u32) -> Self;
}

/// Values by number.
#[derive(Clone)]
pub struct DenseMap<K, V> {
    root: Option<Arc<Node<V>>>,
    /// Branches above each leaf.
    height: u32,
    len: usize,
    keys: PhantomData<fn(K) -> K>,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "both stand behind an Arc")]
enum Node<V> {
    Leaf([Option<V>; WIDTH]),
    Branch([Option<Arc<Node<V>>>; WIDTH]),
}

/// What stands in one of two maps otherwise than in the other: before and after.
pub type Difference<'a, K, V> = (K, Option<&'a V>, Option<&'a V>);

fn place(number: u32, height: u32) -> usize {
    (number >> (BITS * height)) as usize % WIDTH
}

/// Whether a tree of this height has a place for the number.
fn reaches(height: u32, number: u32) -> bool {
    u64::from(number) >> (BITS * (height + 1)) == 0
}

impl<V> Node<V> {
    fn new(height: u32) -> Self {
        match height {
            0 => Self::Leaf([const { None }; WIDTH]),
            _ => Self::Branch([const { None }; WIDTH]),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(values) => values.iter().all(Option::is_none),
            Self::Branch(nodes) => nodes.iter().all(Option::is_none),
        }
    }

    /// The values at `height`, the first one of which has the number `first`.
    fn visit<'a>(&'a self, height: u32, first: u32, see: &mut impl FnMut(u32, &'a V)) {
        match self {
            Self::Leaf(values) => {
                for (number, value) in (first..).zip(values) {
                    if let Some(value) = value {
                        see(number, value);
                    }
                }
            }
            Self::Branch(nodes) => {
                for (place, node) in (0..).zip(nodes) {
                    if let Some(node) = node {
                        node.visit(height - 1, first | place << (BITS * height), see);
                    }
                }
            }
        }
    }
}

impl<V: Clone> Node<V> {
    fn insert(&mut self, number: u32, height: u32, value: V) -> Option<V> {
        match self {
            Self::Leaf(values) => values[place(number, 0)].replace(value),
            Self::Branch(nodes) => {
                let below = height - 1;
                let slot = &mut nodes[place(number, height)];
                let node = slot.get_or_insert_with(|| Arc::new(Self::new(below)));
                Arc::make_mut(node).insert(number, below, value)
            }
        }
    }

    /// Removes what is there, and the nodes that hold nothing any more.
    fn remove(&mut self, number: u32, height: u32) -> Option<V> {
        match self {
            Self::Leaf(values) => values[place(number, 0)].take(),
            Self::Branch(nodes) => {
                let slot = &mut nodes[place(number, height)];
                let node = Arc::make_mut(slot.as_mut()?);
                let removed = node.remove(number, height - 1);
                if node.is_empty() {
                    *slot = None;
                }
                removed
            }
        }
    }
}

impl<K, V> Default for DenseMap<K, V> {
    fn default() -> Self {
        Self {
            root: None,
            height: 0,
            len: 0,
            keys: PhantomData,
        }
    }
}

impl<K: DenseKey, V> DenseMap<K, V> {
    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let number = key.number();
        if !reaches(self.height, number) {
            return None;
        }
        let (mut node, mut height) = (self.root.as_deref()?, self.height);
        loop {
            match node {
                Node::Leaf(values) => return values[place(number, 0)].as_ref(),
                Node::Branch(nodes) => {
                    node = nodes[place(number, height)].as_deref()?;
                    height -= 1;
                }
            }
        }
    }
    /// The largest key.
    #[must_use]
    pub fn last(&self) -> Option<K> {
        let mut node = self.root.as_deref()?;
        let mut number = 0;
        loop {
            let place = match node {
                Node::Leaf(values) => values.iter().rposition(Option::is_some)?,
                Node::Branch(nodes) => nodes.iter().rposition(Option::is_some)?,
            };
            number = number << BITS | u32::try_from(place).ok()?;
            match node {
                Node::Leaf(_) => return Some(K::of_number(number)),
                Node::Branch(nodes) => node = nodes[place].as_deref()?,
            }
        }
    }
    /// Whether a key is there.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// All keys and values, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let mut all = Vec::with_capacity(self.len);
        if let Some(root) = &self.root {
            root.visit(self.height, 0, &mut |number, value| {
                all.push((K::of_number(number), value));
            });
        }
        all.into_iter()
    }
    /// All values, by rising key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: DenseKey, V: Clone> DenseMap<K, V> {
    /// Sets the value of a key; the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let number = key.number();
        while !reaches(self.height, number) {
            self.height += 1;
            if let Some(root) = self.root.take() {
                let mut nodes = [const { None }; WIDTH];
                nodes[0] = Some(root);
                self.root = Some(Arc::new(Node::Branch(nodes)));
            }
        }
        let height = self.height;
        let root = self.root.get_or_insert_with(|| Arc::new(Node::new(height)));
        let before = Arc::make_mut(root).insert(number, height, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key; its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // What is not there must not cost a copy.
        self.get(key)?;
        let root = Arc::make_mut(self.root.as_mut()?);
        let removed = root.remove(key.number(), self.height);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get(key)?;
        let number = key.number();
        let (mut node, mut height) = (Arc::make_mut(self.root.as_mut()?), self.height);
        loop {
            match node {
                Node::Leaf(values) => return values[place(number, 0)].as_mut(),
                Node::Branch(nodes) => {
                    node = Arc::make_mut(nodes[place(number, height)].as_mut()?);
                    height -= 1;
                }
            }
        }
    }
}

impl<K: DenseKey, V> DenseMap<K, V> {
    /// What is different in `after`, by rising key, where `same` tells two
    /// values. Costs what the two maps do not share.
    pub fn diff_by<'a>(
        &'a self,
        after: &'a Self,
        mut same: impl FnMut(&V, &V) -> bool,
    ) -> Vec<Difference<'a, K, V>> {
        let mut found = Vec::new();
        let mut see = |number, before: Option<&'a V>, after: Option<&'a V>| {
            let same = match (before, after) {
                (Some(before), Some(after)) => same(before, after),
                (before, after) => before.is_none() && after.is_none(),
            };
            if !same {
                found.push((K::of_number(number), before, after));
            }
        };
        let height = self.height.max(after.height);
        compare(Part::of(self), Part::of(after), height, 0, &mut see);
        found
    }
}

impl<K: DenseKey, V: PartialEq> DenseMap<K, V> {
    /// What is different in `after`, by rising key. Costs what the two do not
    /// share.
    pub fn diff<'a>(&'a self, after: &'a Self) -> Vec<Difference<'a, K, V>> {
        self.diff_by(after, V::eq)
    }
}

/// A part of a map, which may be lower than the other one's.
struct Part<'a, V> {
    node: Option<&'a Arc<Node<V>>>,
    height: u32,
}

impl<V> Clone for Part<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V> Copy for Part<'_, V> {}

impl<'a, V> Part<'a, V> {
    fn of<K>(map: &'a DenseMap<K, V>) -> Self {
        Self {
            node: map.root.as_ref(),
            height: map.height,
        }
    }

    /// What stands at a place of the branch at `height`.
    fn below(self, place: usize, height: u32) -> Self {
        if self.height < height {
            return match place {
                0 => self,
                _ => Self { node: None, ..self },
            };
        }
        let node = match self.node.map(|node| &**node) {
            Some(Node::Branch(nodes)) => nodes[place].as_ref(),
            Some(Node::Leaf(_)) | None => None,
        };
        Self {
            node,
            height: height - 1,
        }
    }

    fn value(self, place: usize) -> Option<&'a V> {
        match &**self.node? {
            Node::Leaf(values) => values[place].as_ref(),
            Node::Branch(_) => None,
        }
    }
}

/// Shows the places of nodes that the two do not share.
fn compare<'a, V>(
    one: Part<'a, V>,
    other: Part<'a, V>,
    height: u32,
    first: u32,
    see: &mut impl FnMut(u32, Option<&'a V>, Option<&'a V>),
) {
    let same = match (one.node, other.node) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (Some(_), None) | (None, Some(_)) => false,
    };
    if same {
        return;
    }
    for (number, place) in (0..).zip(0..WIDTH) {
        let number = first | number << (BITS * height);
        if height == 0 {
            see(number, one.value(place), other.value(place));
            continue;
        }
        let (one, other) = (one.below(place, height), other.below(place, height));
        compare(one, other, height - 1, number, see);
    }
}

impl<K: DenseKey, V: PartialEq> PartialEq for DenseMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.diff(other).is_empty()
    }
}

impl<K: DenseKey, V: Eq> Eq for DenseMap<K, V> {}

impl<K: DenseKey + std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for DenseMap<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: DenseKey, V: Clone> FromIterator<(K, V)> for DenseMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        for (key, value) in pairs {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::DenseMap;
    use crate::identity::IdentityIndex;

    type Map = DenseMap<IdentityIndex, u8>;
    type Model = BTreeMap<u32, u8>;

    fn contents(map: &Map) -> Model {
        map.iter().map(|(key, value)| (key.0, *value)).collect()
    }

    fn difference(one: &Map, other: &Map) -> Vec<(u32, Option<u8>, Option<u8>)> {
        let found = one.diff(other).into_iter();
        let found = found.map(|(key, one, other)| (key.0, one.copied(), other.copied()));
        found.collect()
    }

    fn numbers() -> impl Strategy<Value = u32> {
        prop_oneof![
            0..70_u32,
            1_000..1_100_u32,
            16_777_210..16_777_300_u32,
            any::<u32>()
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn it_is_a_map_and_copies_stay(
            steps in proptest::collection::vec((numbers(), proptest::option::of(any::<u8>())), 0..80),
            more in proptest::collection::vec((numbers(), proptest::option::of(any::<u8>())), 0..20),
        ) {
            let (mut map, mut model) = (Map::default(), Model::new());
            let step = |map: &mut Map, model: &mut Model, key: u32, value: Option<u8>| {
                let index = IdentityIndex(key);
                let before = match value {
                    Some(value) => (map.insert(index, value), model.insert(key, value)),
                    None => (map.remove(&index), model.remove(&key)),
                };
                assert_eq!(before.0, before.1);
                if let Some(value) = map.get_mut(&index) {
                    *value = value.wrapping_add(1);
                    model.entry(key).and_modify(|value| *value = value.wrapping_add(1));
                }
                assert_eq!(map.get(&index), model.get(&key));
                assert_eq!(map.len(), model.len());
                let last = model.keys().next_back().copied();
                assert_eq!(map.last(), last.map(IdentityIndex));
            };
            for (key, value) in steps {
                step(&mut map, &mut model, key, value);
            }
            let (copy, copied) = (map.clone(), model.clone());
            for (key, value) in more {
                step(&mut map, &mut model, key, value);
            }
            prop_assert_eq!(&contents(&map), &model);
            prop_assert_eq!(&contents(&copy), &copied);
            let keys: std::collections::BTreeSet<u32> =
                model.keys().chain(copied.keys()).copied().collect();
            let expected: Vec<_> = keys
                .into_iter()
                .map(|key| (key, copied.get(&key).copied(), model.get(&key).copied()))
                .filter(|(_, was, is)| was != is)
                .collect();
            prop_assert_eq!(&difference(&copy, &map), &expected);
            prop_assert_eq!(copy == map, expected.is_empty());
            let anew: Map = model.iter().map(|(key, value)| (IdentityIndex(*key), *value)).collect();
            prop_assert_eq!(anew, map);
        }
    }
}
