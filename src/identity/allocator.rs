//! Numbers and indexes of node-local identities.
//!
//! Deterministic: the same sequence of calls gives the same numbers. Cursors
//! only move forward (and around), so that a number which was released does not
//! soon name someone else in an old record.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use palisade_abi::table::IDENTITIES_MAX;
use serde::{Deserialize, Serialize};

use super::{IdentityIndex, IdentityNumber, Reserved};

/// What a node-local identity stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum IdentityKey {
    /// What is outside of the cluster, within a prefix that a rule names.
    Cidr(IpNet),
    /// Nodes of the cluster within a prefix that a failsafe entry names.
    RemoteNode(IpNet),
}

impl IdentityKey {
    /// Identities whose number and index are fixed.
    fn fixed(self) -> Option<Allocated> {
        let reserved = match self {
            Self::Cidr(prefix) if prefix.prefix_len() > 0 => return None,
            Self::Cidr(IpNet::V4(_)) => Reserved::WorldIpv4,
            Self::Cidr(IpNet::V6(_)) => Reserved::WorldIpv6,
            Self::RemoteNode(_) => return None,
        };
        Some(Allocated::reserved(reserved))
    }
    fn scope(self) -> usize {
        match self {
            Self::Cidr(_) => 0,
            Self::RemoteNode(_) => 1,
        }
    }
}

/// Number and index of a live identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocated {
    pub number: IdentityNumber,
    pub index: IdentityIndex,
}

impl Allocated {
    /// Those of a reserved identity: both are its fixed number.
    #[must_use]
    pub fn reserved(reserved: Reserved) -> Self {
        let number = reserved.number();
        Self {
            number,
            index: IdentityIndex(number.0),
        }
    }
}

/// First and last number of each scope.
const SCOPES: [(u32, u32); 2] = [
    (IdentityNumber::LOCAL_FIRST.0, (2 << 24) - 1),
    (IdentityNumber::NODE_FIRST.0, (3 << 24) - 1),
];
const INDEX_FIRST: u32 = Reserved::WorldIpv6 as u32 + 1;
#[expect(
    clippy::cast_possible_truncation,
    reason = "a constant of the ABI, asserted below"
)]
const INDEX_LAST: u32 = IDENTITIES_MAX as u32 - 1;
const _: () = assert!(IDENTITIES_MAX <= 1 << 24);
const _: () = assert!(INDEX_FIRST as usize == Reserved::ALL.len());

/// The allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityAllocator {
    live: BTreeMap<IdentityKey, Allocated>,
    numbers: BTreeSet<u32>,
    indexes: BTreeSet<u32>,
    number_next: [u32; 2],
    index_next: u32,
}

impl Default for IdentityAllocator {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            numbers: BTreeSet::new(),
            indexes: BTreeSet::new(),
            number_next: SCOPES.map(|(first, _)| first),
            index_next: INDEX_FIRST,
        }
    }
}

impl IdentityAllocator {
    /// How many more identities fit.
    #[must_use]
    pub fn free(&self) -> usize {
        (INDEX_LAST - INDEX_FIRST + 1) as usize - self.indexes.len()
    }

    /// The live identities, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityKey, Allocated)> + '_ {
        self.live.iter().map(|(key, allocated)| (*key, *allocated))
    }

    /// The identity of `key`; a new one if it has none. None: all are in use.
    pub fn allocate(&mut self, key: IdentityKey) -> Option<Allocated> {
        if let Some(allocated) = key.fixed().or_else(|| self.live.get(&key).copied()) {
            self.live.insert(key, allocated);
            return Some(allocated);
        }
        let (first, last) = SCOPES[key.scope()];
        let number_next = &mut self.number_next[key.scope()];
        let number = take(&mut self.numbers, number_next, first, last)?;
        let index = take(
            &mut self.indexes,
            &mut self.index_next,
            INDEX_FIRST,
            INDEX_LAST,
        );
        let Some(index) = index else {
            self.numbers.remove(&number);
            return None;
        };
        let allocated = Allocated {
            number: IdentityNumber(number),
            index: IdentityIndex(index),
        };
        self.live.insert(key, allocated);
        Some(allocated)
    }

    /// Ends the identity of `key`.
    pub fn release(&mut self, key: IdentityKey) -> Option<Allocated> {
        let allocated = self.live.remove(&key)?;
        if key.fixed().is_none() {
            self.numbers.remove(&allocated.number.0);
            self.indexes.remove(&allocated.index.0);
        }
        Some(allocated)
    }

    /// The whole state.
    #[must_use]
    pub fn export(&self) -> AllocatorRecord {
        AllocatorRecord {
            live: self.iter().collect(),
            number_next: self.number_next,
            index_next: self.index_next,
        }
    }

    /// The allocator of a record; what contradicts itself in it is left out and
    /// gets new numbers.
    #[must_use]
    pub fn import(record: &AllocatorRecord) -> Self {
        let mut allocator = Self::default();
        for (key, allocated) in &record.live {
            if key.fixed().is_some() {
                continue;
            }
            let (first, last) = SCOPES[key.scope()];
            let fits = (first..=last).contains(&allocated.number.0)
                && (INDEX_FIRST..=INDEX_LAST).contains(&allocated.index.0)
                && !allocator.live.contains_key(key)
                && !allocator.numbers.contains(&allocated.number.0)
                && !allocator.indexes.contains(&allocated.index.0);
            if fits {
                allocator.numbers.insert(allocated.number.0);
                allocator.indexes.insert(allocated.index.0);
                allocator.live.insert(*key, *allocated);
            }
        }
        for (scope, (first, last)) in SCOPES.into_iter().enumerate() {
            allocator.number_next[scope] = record.number_next[scope].clamp(first, last);
        }
        allocator.index_next = record.index_next.clamp(INDEX_FIRST, INDEX_LAST);
        allocator
    }
}

/// The allocator as the journal's snapshot holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AllocatorRecord {
    pub live: Vec<(IdentityKey, Allocated)>,
    pub number_next: [u32; 2],
    pub index_next: u32,
}

/// Takes the next free number from the cursor on, around the end.
fn take(used: &mut BTreeSet<u32>, next: &mut u32, first: u32, last: u32) -> Option<u32> {
    if used.len() > (last - first) as usize {
        return None;
    }
    let mut candidate = *next;
    while used.contains(&candidate) {
        candidate = if candidate == last {
            first
        } else {
            candidate + 1
        };
    }
    used.insert(candidate);
    *next = if candidate == last {
        first
    } else {
        candidate + 1
    };
    Some(candidate)
}

#[cfg(test)]
mod tests {
    use super::{IdentityAllocator, IdentityKey};

    fn cidr(text: &str) -> IdentityKey {
        IdentityKey::Cidr(text.parse().expect("a prefix"))
    }

    #[test]
    fn numbers_are_kept_released_and_not_reused_soon() {
        let mut allocator = IdentityAllocator::default();
        let mut numbers = |keys: &[&str]| -> Vec<(u32, u32)> {
            keys.iter()
                .map(|key| allocator.allocate(cidr(key)).expect("room"))
                .map(|allocated| (allocated.number.0, allocated.index.0))
                .collect()
        };
        let first = numbers(&["10.0.0.0/8", "2001:db8::/32", "10.0.0.0/8"]);
        assert_eq!(
            first,
            [(16_777_217, 11), (16_777_218, 12), (16_777_217, 11)]
        );
        assert_eq!(numbers(&["0.0.0.0/0", "::/0"]), [(9, 9), (10, 10)]);
        allocator.release(cidr("10.0.0.0/8"));
        let again = allocator.allocate(cidr("10.0.0.0/8")).expect("room");
        assert_eq!((again.number.0, again.index.0), (16_777_219, 13));
        let node = IdentityKey::RemoteNode("10.0.0.0/8".parse().expect("a prefix"));
        assert_eq!(allocator.allocate(node).expect("room").number.0, 33_554_433);
    }

    #[test]
    fn a_record_gives_the_same_allocator() {
        let mut allocator = IdentityAllocator::default();
        for prefix in ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"] {
            allocator.allocate(cidr(prefix));
        }
        allocator.release(cidr("10.0.0.0/8"));
        let mut copy = IdentityAllocator::import(&allocator.export());
        copy.allocate(cidr("0.0.0.0/0"));
        assert_eq!(copy, allocator);
    }

    #[test]
    fn a_full_space_is_told() {
        let mut allocator = IdentityAllocator::default();
        for number in 0..allocator.free() {
            let [_, b, c, d] = u32::try_from(number).expect("small").to_be_bytes();
            assert!(
                allocator
                    .allocate(cidr(&format!("10.{b}.{c}.{d}/32")))
                    .is_some()
            );
        }
        assert_eq!(allocator.free(), 0);
        assert_eq!(allocator.allocate(cidr("11.0.0.0/8")), None);
        allocator.release(cidr("10.0.0.7/32"));
        assert!(allocator.allocate(cidr("11.0.0.0/8")).is_some());
    }
}
