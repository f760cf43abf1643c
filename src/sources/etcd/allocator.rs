//! Numbers of labels, the same for all nodes.
//!
//! A number is a *master* key: `id/<number>` -> labels, which stays. A node that
//! uses labels has a *slave* key: `value/<labels>/<node>` -> number, under its
//! lease. Each step is one transaction of etcd, so nothing depends on who is
//! faster:
//!
//! | found | step | only if |
//! |---|---|---|
//! | a node uses the labels | join: own slave key | the master says the same |
//! | its master is not there | mend: master and slave key | it is still not there, the other still uses it |
//! | a master, nobody uses it | take: own slave key | the master says the same, nobody came since |
//! | neither | give the next free number: master, slave and cursor | all is as found |
//!
//! Whatever does not hold is looked at again. The cursor goes around: a number
//! that was collected is given again only after all others.
//!
//! Nothing that was true once is trusted later: a store may be wiped, set back
//! or edited. What names a number is written only in a transaction that finds
//! the number still held ([`Allocator::fence`]), and now and then all that is
//! held is verified; what does not hold is acquired again.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Client, Failure};
use super::keys::{CURSOR, MASTERS, master, slaves};
use super::wire::{Compare, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse};
use crate::identity::IdentityNumber;
use crate::limits::{ETCD_ATTEMPTS_MAX, ETCD_OPERATIONS_MAX};

const FIRST: u32 = IdentityNumber::CLUSTER_FIRST.0;
const LAST: u32 = IdentityNumber::CLUSTER_LAST.0;

/// Why there is no number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoNumber {
    Failed(Failure),
    /// All are in use.
    Full,
    /// Others were faster each time.
    Contended,
}

impl From<Failure> for NoNumber {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl std::fmt::Display for NoNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Full => write!(f, "all numbers from {FIRST} to {LAST} are in use"),
            Self::Contended => f.write_str("other nodes were faster each time"),
        }
    }
}

/// What etcd holds about some labels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// As of this revision.
    pub(super) revision: i64,
    /// The number that nodes use for the labels. One whose master says other labels
    /// does not count: who uses it has not heard yet.
    pub(super) used: Option<u32>,
    /// The slave key that says so, and its revision.
    pub(super) used_by: (String, i64),
    /// The number that was given last, and the revision of that.
    pub(super) cursor: (u32, i64),
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Join(u32),
    Mend(u32),
    Take(u32),
    Give(u32),
}

impl Step {
    pub(super) fn number(self) -> u32 {
        let (Self::Join(number) | Self::Mend(number) | Self::Take(number) | Self::Give(number)) =
            self;
        number
    }

    /// The step as one transaction.
    fn transaction(self, labels: &str, node: &str, lease: i64, found: &Found) -> TxnRequest {
        let all = slaves(labels);
        let slave = RequestOp::put(&format!("{all}{node}"), self.number().to_string(), lease);
        let at = master(self.number());
        let new = RequestOp::put(&at, labels, 0);
        let (compare, success) = match self {
            Self::Join(_) => (vec![Compare::value(&at, labels)], vec![slave]),
            Self::Mend(_) => {
                let (other, revision) = &found.used_by;
                let still = Compare::unchanged(other, *revision);
                (vec![Compare::absent(&at), still], vec![new, slave])
            }
            Self::Take(_) => (
                vec![
                    Compare::value(&at, labels),
                    Compare::nothing_newer(&all, found.revision),
                ],
                vec![slave],
            ),
            Self::Give(number) => (
                vec![
                    Compare::absent(&at),
                    Compare::nothing_newer(&all, found.revision),
                    Compare::unchanged(CURSOR, found.cursor.1),
                ],
                vec![new, slave, RequestOp::put(CURSOR, number.to_string(), 0)],
            ),
        };
        TxnRequest {
            compare,
            success,
            failure: Vec::new(),
        }
    }
}

/// The masters, as far as they are known: what is missing here, transactions
/// find out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Masters {
    by_number: BTreeMap<u32, String>,
    by_labels: BTreeSet<(String, u32)>,
    /// Newer ones have not been read.
    revision: i64,
}

impl Masters {
    pub(super) fn put(&mut self, number: u32, labels: &str) {
        self.forget(number);
        self.by_number.insert(number, labels.to_owned());
        self.by_labels.insert((labels.to_owned(), number));
    }

    pub(super) fn forget(&mut self, number: u32) {
        if let Some(labels) = self.by_number.remove(&number) {
            self.by_labels.remove(&(labels, number));
        }
    }

    /// The least number of labels: all nodes choose the same.
    fn number_of(&self, labels: &str) -> Option<u32> {
        let first = (labels.to_owned(), 0);
        let (found, number) = self.by_labels.range(first..).next()?;
        (found == labels).then_some(*number)
    }

    /// The next step towards a number for labels. None: all numbers are in use.
    /// `mends`: the master of the number in use was found missing.
    pub(super) fn next(&self, labels: &str, found: &Found, mends: bool) -> Option<Step> {
        match (found.used, self.number_of(labels)) {
            (Some(number), _) if mends => Some(Step::Mend(number)),
            (Some(number), _) => Some(Step::Join(number)),
            (None, Some(number)) => Some(Step::Take(number)),
            (None, None) => {
                let last = found.cursor.0.clamp(FIRST - 1, LAST);
                let mut after = (last + 1..=LAST).chain(FIRST..=last);
                let free = after.find(|number| !self.by_number.contains_key(number));
                free.map(Step::Give)
            }
        }
    }

    /// A step did not hold: what was believed of its number is not so.
    /// Whether the master of a number in use may be missing.
    fn refuted(&mut self, step: Step) -> bool {
        match step {
            Step::Take(number) => self.forget(number),
            // Somebody has just made it: it is read with the next look.
            Step::Mend(_) | Step::Give(_) => {}
            Step::Join(_) => return true,
        }
        false
    }

    /// Takes what was read of the masters and of some labels.
    fn read(&mut self, answer: TxnResponse, labels: &str) -> Found {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let mut ranges = answer.ranges();
        let mut next = || ranges.next().unwrap_or_default().kvs;
        let (masters, used, cursor) = (next(), next(), next());
        for pair in masters {
            let number = number_in(&pair.key, MASTERS);
            if let (Some(number), Ok(labels)) = (number, std::str::from_utf8(&pair.value)) {
                self.put(number, labels);
            }
        }
        self.revision = revision;
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        // The least, should nodes disagree.
        let used = used
            .iter()
            .filter_map(|pair| Some((number(&pair.value)?, pair)));
        let is_right = |number: &u32| {
            let known = self.by_number.get(number);
            known.is_none_or(|known| known == labels)
        };
        let used = used.filter(|(number, _)| is_right(number));
        let used = used.min_by_key(|(number, _)| *number);
        Found {
            revision,
            used: used.map(|(number, _)| number),
            used_by: used.map_or_else(Default::default, |(_, pair)| {
                let key = String::from_utf8_lossy(&pair.key);
                (key.into_owned(), pair.mod_revision)
            }),
            cursor: cursor.first().map_or((0, 0), |pair| {
                (number(&pair.value).unwrap_or_default(), pair.mod_revision)
            }),
        }
    }

    /// Masters that are new, who uses the labels, the cursor: at one revision.
    fn question(&self, labels: &str) -> TxnRequest {
        let newer = RangeRequest {
            min_mod_revision: self.revision + 1,
            ..RangeRequest::prefix(MASTERS)
        };
        let ranges = [
            newer,
            RangeRequest::prefix(&slaves(labels)),
            RangeRequest::one(CURSOR),
        ];
        TxnRequest {
            success: ranges.map(RequestOp::range).into(),
            ..TxnRequest::default()
        }
    }
}

/// What a look at all numbers in use found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Some were not held any more.
    pub has_lost: bool,
    /// Another node writes the same slave keys.
    pub has_rival: bool,
}

/// The number at the end of a key.
pub(super) fn number_in(key: &[u8], prefix: &str) -> Option<u32> {
    std::str::from_utf8(key)
        .ok()?
        .strip_prefix(prefix)?
        .parse()
        .ok()
}

/// Gets numbers for one node.
#[derive(Debug, Default)]
pub struct Allocator {
    masters: Masters,
    /// Of labels that this node uses.
    used: BTreeMap<String, u32>,
}

impl Allocator {
    /// The number of labels, whoever gave it. From here on the node uses it, for
    /// as long as the lease lives.
    ///
    /// # Errors
    /// When etcd does not answer, or there is no number left.
    pub async fn acquire(
        &mut self,
        client: &Client,
        (node, lease): (&str, i64),
        labels: &str,
    ) -> Result<u32, NoNumber> {
        if let Some(number) = self.used.get(labels) {
            return Ok(*number);
        }
        let mut mends = false;
        for _ in 0..ETCD_ATTEMPTS_MAX {
            let answer = client.transact(self.masters.question(labels)).await?;
            let found = self.masters.read(answer, labels);
            let step = self
                .masters
                .next(labels, &found, mends)
                .ok_or(NoNumber::Full)?;
            let transaction = step.transaction(labels, node, lease, &found);
            if client.transact(transaction).await?.succeeded {
                self.masters.put(step.number(), labels);
                self.used.insert(labels.to_owned(), step.number());
                return Ok(step.number());
            }
            mends = self.masters.refuted(step);
        }
        // Numbers that were collected are still believed to be in use.
        self.masters = Masters::default();
        Err(NoNumber::Contended)
    }

    /// The node uses the labels no more.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn release(
        &mut self,
        client: &Client,
        (node, lease): (&str, i64),
        labels: &str,
    ) -> Result<(), Failure> {
        let slave = format!("{}{node}", slaves(labels));
        let transaction = TxnRequest {
            compare: vec![Compare::lease(&slave, lease)],
            success: vec![RequestOp::delete(&slave)],
            failure: Vec::new(),
        };
        client.transact(transaction).await?;
        self.used.remove(labels);
        Ok(())
    }

    /// Under another name of the node: the new slave keys come before the old ones
    /// go, so that nobody finds the numbers unused.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn rename(
        &mut self,
        client: &Client,
        (from, to): (&str, &str),
        lease: i64,
    ) -> Result<(), Failure> {
        for (labels, number) in self.used.clone() {
            let all = slaves(&labels);
            let (old, new) = (format!("{all}{from}"), format!("{all}{to}"));
            let transaction = TxnRequest {
                compare: vec![Compare::lease(&old, lease)],
                success: vec![
                    RequestOp::put(&new, number.to_string(), lease),
                    RequestOp::delete(&old),
                ],
                failure: Vec::new(),
            };
            if !client.transact(transaction).await?.succeeded {
                self.used.remove(&labels);
            }
        }
        Ok(())
    }

    /// What must hold for a transaction that names the number of some labels: the
    /// master says the same, and this node's slave key keeps it.
    #[must_use]
    pub fn fence(&self, (node, lease): (&str, i64), labels: &str) -> Option<[Compare; 2]> {
        let number = self.used.get(labels)?;
        Some([
            Compare::value(&master(*number), labels),
            Compare::lease(&format!("{}{node}", slaves(labels)), lease),
        ])
    }

    /// Looks whether all numbers are still held, and lets go of those that are
    /// not: they are acquired again. A master that somebody deleted meanwhile is
    /// made again as it was, while this node's slave key still keeps the number.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn verify(
        &mut self,
        client: &Client,
        node: (&str, i64),
    ) -> Result<Verified, Failure> {
        let mut verified = Verified::default();
        let all: Vec<(String, u32)> = self.used.clone().into_iter().collect();
        // Two comparisons each.
        for some in all.chunks(ETCD_OPERATIONS_MAX) {
            let fences = some
                .iter()
                .filter_map(|(labels, _)| self.fence(node, labels));
            let transaction = TxnRequest {
                compare: fences.flatten().collect(),
                ..TxnRequest::default()
            };
            if client.transact(transaction).await?.succeeded {
                continue;
            }
            for (labels, number) in some {
                self.verify_one(client, node, (labels, *number), &mut verified)
                    .await?;
            }
        }
        Ok(verified)
    }

    async fn verify_one(
        &mut self,
        client: &Client,
        (node, lease): (&str, i64),
        (labels, number): (&str, u32),
        verified: &mut Verified,
    ) -> Result<(), Failure> {
        let (at, slave) = (master(number), format!("{}{node}", slaves(labels)));
        let mend = TxnRequest {
            compare: vec![
                Compare::absent(&at),
                Compare::lease(&slave, lease),
                Compare::value(&slave, number.to_string()),
            ],
            success: vec![RequestOp::put(&at, labels, 0)],
            failure: [&at, &slave]
                .map(|key| RequestOp::range(RangeRequest::one(key)))
                .into(),
        };
        let answer = client.transact(mend).await?;
        if answer.succeeded {
            return Ok(());
        }
        let mut ranges = answer.ranges();
        let mut next = || ranges.next().and_then(|range| range.kvs.into_iter().next());
        let (master, slave) = (next(), next());
        let is_ours = slave.as_ref().is_some_and(|slave| slave.lease == lease);
        if is_ours && master.is_some_and(|master| master.value == labels.as_bytes()) {
            return Ok(());
        }
        self.used.remove(labels);
        self.masters.forget(number);
        verified.has_lost = true;
        verified.has_rival |= slave.is_some_and(|slave| slave.lease != lease);
        Ok(())
    }

    /// Numbers of the labels that this node uses.
    #[must_use]
    pub fn used(&self) -> &BTreeMap<String, u32> {
        &self.used
    }

    /// The lease is gone, and with it what this node used; the store may be another
    /// one.
    pub fn lost(&mut self) {
        *self = Self::default();
    }

    /// What was read of masters is old: collected numbers are free again.
    pub fn forget_masters(&mut self) {
        self.masters = Masters::default();
    }
}

/// The number that a node uses: the value of its slave key.
pub(super) fn used_numbers(slaves: &RangeResponse) -> BTreeSet<u32> {
    let values = slaves
        .kvs
        .iter()
        .filter_map(|pair| std::str::from_utf8(&pair.value).ok());
    values.filter_map(|value| value.parse().ok()).collect()
}
