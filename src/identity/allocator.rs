//! Numbers and indexes of identities that are not fixed.
//!
//! Deterministic: the same sequence of calls gives the same numbers. Cursors
//! only move forward (and around), so that a number which was released does not
//! soon name someone else in an old record.

use ipnet::IpNet;
use palisade_abi::table::IDENTITIES_MAX;
use serde::{Deserialize, Serialize};

use super::key::KeyRecord;
use super::{
    Allocated, IdentityIndex, IdentityKey, IdentityNumber, IdentityTable, LiveIdentity, Reserved,
};

/// First and last number of each scope: prefixes, nodes, pods, and pods that
/// wait for a number of the cluster.
const SCOPES: [(u32, u32); 4] = [
    (IdentityNumber::LOCAL_FIRST.0, (2 << 24) - 1),
    (IdentityNumber::NODE_FIRST.0, (3 << 24) - 1),
    (
        IdentityNumber::CLUSTER_FIRST.0,
        IdentityNumber::CLUSTER_LAST.0,
    ),
    (IdentityNumber::UNSHARED_FIRST.0, (4 << 24) - 1),
];
const WORKLOADS: usize = 2;
const UNSHARED: usize = 3;
const INDEX_FIRST: u32 = Reserved::WorldIpv6 as u32 + 1;
#[expect(
    clippy::cast_possible_truncation,
    reason = "a constant of the ABI, asserted below"
)]
const INDEX_LAST: u32 = IDENTITIES_MAX as u32 - 1;
const _: () = assert!(IDENTITIES_MAX <= 1 << 24);
const _: () = assert!(INDEX_FIRST as usize == Reserved::ALL.len());

/// Where the next numbers are looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cursors {
    numbers: [u32; 4],
    index: u32,
}

impl Default for Cursors {
    fn default() -> Self {
        Self {
            numbers: SCOPES.map(|(first, _)| first),
            index: INDEX_FIRST,
        }
    }
}

/// No identity can be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// All indexes are in use.
    Indexes,
    /// All numbers that pods may have are in use.
    WorkloadNumbers,
}

impl Full {
    /// What does not fit, and how many do.
    #[must_use]
    pub fn words(self) -> (&'static str, usize) {
        match self {
            Self::Indexes => ("identities", IDENTITIES_MAX),
            Self::WorkloadNumbers => {
                let (first, last) = SCOPES[WORKLOADS];
                ("identities of pods", (last - first + 1) as usize)
            }
        }
    }
}

impl IdentityTable {
    fn scope(&self, key: &IdentityKey) -> usize {
        match key {
            IdentityKey::Reserved(_) | IdentityKey::Cidr(_) => 0,
            IdentityKey::Node { .. } => 1,
            IdentityKey::Workload { .. } if self.numbers_are_shared => UNSHARED,
            IdentityKey::Workload { .. } => WORKLOADS,
        }
    }

    /// Whether an identity may have a number that others did not give it.
    fn may_have(&self, key: &IdentityKey, number: IdentityNumber) -> bool {
        let (first, last) = SCOPES[self.scope(key)];
        (first..=last).contains(&number.0)
    }

    /// Whether an identity has a number of the cluster.
    #[must_use]
    pub fn is_from_the_cluster(&self, identity: &LiveIdentity) -> bool {
        self.numbers_are_shared && !self.may_have(&identity.key, identity.number)
    }

    /// Identities that fit, the reserved ones included.
    pub const MAX: usize = IDENTITIES_MAX;

    /// Makes an identity, unless it is live. `wanted`: the number that others
    /// have given it; `taken`: numbers that mean something else to them.
    pub fn allocate(
        &mut self,
        key: &IdentityKey,
        wanted: Option<IdentityNumber>,
        taken: impl Fn(IdentityNumber) -> bool,
    ) -> Result<IdentityIndex, Full> {
        match self.index_of(key) {
            Some(index) => Ok(index),
            None => self.allocate_new(key.clone(), 0, wanted, taken),
        }
    }

    /// Makes the identity of a prefix that has none, and that so many list.
    pub fn allocate_prefix(&mut self, prefix: IpNet, users: u32) -> Result<IdentityIndex, Full> {
        self.allocate_new(IdentityKey::Cidr(prefix), users, None, |_| false)
    }

    fn allocate_new(
        &mut self,
        key: IdentityKey,
        users: u32,
        wanted: Option<IdentityNumber>,
        taken: impl Fn(IdentityNumber) -> bool,
    ) -> Result<IdentityIndex, Full> {
        let wanted = wanted.filter(|number| self.get(*number).is_none());
        let number = match wanted {
            Some(number) => number,
            None => self.next_number(&key, taken)?,
        };
        let index = self.next_index().ok_or(Full::Indexes)?;
        self.insert(LiveIdentity { key, number, index }, users);
        Ok(index)
    }

    /// Gives a live identity another number; its index stays. None: the next
    /// free one.
    pub fn renumber(
        &mut self,
        index: IdentityIndex,
        wanted: Option<IdentityNumber>,
        taken: impl Fn(IdentityNumber) -> bool,
    ) -> Result<(), Full> {
        let Some(identity) = self.live_at(index).cloned() else {
            return Ok(());
        };
        let number = match wanted {
            Some(number) => number,
            None => self.next_number(&identity.key, taken)?,
        };
        let users = match &identity.key {
            IdentityKey::Cidr(prefix) => self.of_prefix(prefix).map_or(0, |known| known.users),
            IdentityKey::Reserved(_) | IdentityKey::Node { .. } | IdentityKey::Workload { .. } => 0,
        };
        self.remove(index);
        self.insert(LiveIdentity { number, ..identity }, users);
        Ok(())
    }

    fn next_number(
        &mut self,
        key: &IdentityKey,
        taken: impl Fn(IdentityNumber) -> bool,
    ) -> Result<IdentityNumber, Full> {
        let scope = self.scope(key);
        let (first, last) = SCOPES[scope];
        let mut candidate = self.cursors.numbers[scope].clamp(first, last);
        for _ in first..=last {
            let number = IdentityNumber(candidate);
            candidate = if candidate == last {
                first
            } else {
                candidate + 1
            };
            if self.get_live(number).is_none() && !taken(number) {
                self.cursors.numbers[scope] = candidate;
                return Ok(number);
            }
        }
        Err(Full::WorkloadNumbers)
    }

    fn next_index(&mut self) -> Option<IdentityIndex> {
        if self.len() >= IDENTITIES_MAX {
            return None;
        }
        let mut candidate = self.cursors.index.clamp(INDEX_FIRST, INDEX_LAST);
        while self.live_at(IdentityIndex(candidate)).is_some() {
            candidate = after(candidate);
        }
        self.cursors.index = after(candidate);
        Some(IdentityIndex(candidate))
    }

    /// The whole state, as the journal keeps it.
    #[must_use]
    pub fn export(&self) -> AllocatorRecord {
        let record = |identity: &LiveIdentity| {
            let allocated = Allocated {
                number: identity.number,
                index: identity.index,
            };
            Some((KeyRecord::of(&identity.key)?, allocated))
        };
        AllocatorRecord {
            live: self.live().filter_map(record).collect(),
            number_next: self.cursors.numbers.to_vec(),
            index_next: self.cursors.index,
        }
    }

    /// Makes the identities of a record live; what contradicts itself in it is
    /// left out and gets new numbers.
    pub fn import(&mut self, record: &AllocatorRecord) {
        for (key, allocated) in &record.live {
            let key = key.key();
            // Numbers that others have given are anywhere in the cluster's range.
            let may_be_given = matches!(key, IdentityKey::Workload { .. })
                && (IdentityNumber::GIVEN_FIRST..IdentityNumber::GIVEN_END)
                    .contains(&allocated.number);
            let fits = key.fixed().is_none()
                && (may_be_given || self.may_have(&key, allocated.number))
                && (INDEX_FIRST..=INDEX_LAST).contains(&allocated.index.0)
                && self.index_of(&key).is_none()
                && self.get_live(allocated.number).is_none()
                && self.live_at(allocated.index).is_none();
            if fits {
                let (number, index) = (allocated.number, allocated.index);
                self.insert(LiveIdentity { key, number, index }, 0);
            }
        }
        for (cursor, next) in self.cursors.numbers.iter_mut().zip(&record.number_next) {
            *cursor = *next;
        }
        self.cursors.index = record.index_next;
    }
}

fn after(index: u32) -> u32 {
    if index >= INDEX_LAST {
        INDEX_FIRST
    } else {
        index + 1
    }
}

/// The identities as the journal's snapshot holds them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AllocatorRecord {
    pub live: Vec<(KeyRecord, Allocated)>,
    /// By scope.
    pub number_next: Vec<u32>,
    pub index_next: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Full, IdentityKey, IdentityTable};
    use crate::identity::{IdentityNumber, Label};

    fn cidr(text: &str) -> IdentityKey {
        IdentityKey::Cidr(text.parse().expect("a prefix"))
    }

    fn pods(app: &str) -> IdentityKey {
        let labels = [Label::new("k8s", "app", app)].into_iter().collect();
        IdentityKey::workload(Arc::new(labels), None)
    }

    fn allocate(table: &mut IdentityTable, key: &IdentityKey) -> (u32, u32) {
        let index = table.allocate(key, None, |_| false).expect("room");
        let identity = table.live_at(index).expect("live");
        (identity.number.0, index.0)
    }

    #[test]
    fn numbers_are_kept_released_and_not_reused_soon() {
        let table = &mut IdentityTable::default();
        assert_eq!(allocate(table, &cidr("10.0.0.0/8")), (16_777_217, 11));
        assert_eq!(allocate(table, &cidr("2001:db8::/32")), (16_777_218, 12));
        assert_eq!(allocate(table, &cidr("10.0.0.0/8")), (16_777_217, 11));
        assert_eq!(allocate(table, &cidr("0.0.0.0/0")), (9, 9));
        assert_eq!(allocate(table, &cidr("::/0")), (10, 10));
        let index = table.index_of(&cidr("10.0.0.0/8")).expect("live");
        table.remove(index);
        assert_eq!(allocate(table, &cidr("10.0.0.0/8")), (16_777_219, 13));
        let labels = Arc::new(crate::identity::Reserved::RemoteNode.labels());
        let node = IdentityKey::node(labels, Some("10.0.0.0/8".parse().expect("a prefix")));
        assert_eq!(allocate(table, &node).0, 33_554_433);
        assert_eq!(allocate(table, &pods("a")), (256, 15));
    }

    #[test]
    fn numbers_that_others_give_are_kept_and_given_up() {
        let table = &mut IdentityTable::default();
        let wanted = Some(IdentityNumber(4_242));
        let index = table.allocate(&pods("a"), wanted, |_| false).expect("room");
        assert_eq!(table.live_at(index).expect("live").number.0, 4_242);
        let taken = |number: IdentityNumber| number.0 == 256;
        let other = table.allocate(&pods("b"), None, taken).expect("room");
        assert_eq!(table.live_at(other).expect("live").number.0, 257);
        table.renumber(other, None, taken).expect("room");
        assert_eq!(table.live_at(other).expect("live").number.0, 258);
        assert!(table.get(IdentityNumber(257)).is_none());
    }

    #[test]
    fn a_record_gives_the_same_table() {
        let mut table = IdentityTable::default();
        for prefix in ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"] {
            allocate(&mut table, &cidr(prefix));
        }
        allocate(&mut table, &pods("a"));
        let gone = table.index_of(&cidr("10.0.0.0/8")).expect("live");
        table.remove(gone);
        let mut copy = IdentityTable::default();
        copy.import(&table.export());
        assert_eq!(copy, table);
    }

    #[test]
    fn a_full_space_is_told() {
        let mut table = IdentityTable::default();
        for number in table.len()..IdentityTable::MAX {
            let [_, b, c, d] = u32::try_from(number).expect("small").to_be_bytes();
            allocate(&mut table, &cidr(&format!("10.{b}.{c}.{d}/32")));
        }
        let more = cidr("11.0.0.0/8");
        let full = table.allocate(&more, None, |_| false);
        assert_eq!(full, Err(Full::Indexes));
        let gone = table.index_of(&cidr("10.0.0.77/32")).expect("live");
        table.remove(gone);
        assert!(table.allocate(&more, None, |_| false).is_ok());
    }
}
