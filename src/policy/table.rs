//! The end of policy: verdict tables as the datapath takes them.
//!
//! Invariant: two equal sets of (rules, identities, options) give equal tables,
//! bit for bit; so a restart that finds the same table in the kernel writes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use palisade_abi::table::{Cell, FRAGMENT, IDENTITIES_MAX, decide, key};
use serde::{Deserialize, Serialize};

use crate::events::{EndpointId, ResourceKey, Revision};
use crate::identity::{DenseMap, IdentityIndex};
use crate::policy::row::{Row, block_count};

/// The way of a packet as seen from the endpoint. Its number is the ABI's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress = 0,
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
    /// The ABI's number.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }
    /// `ingress` or `egress`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Section of a rule in which an item stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Section {
    #[serde(rename = "ingress")]
    Ingress,
    #[serde(rename = "ingressDeny")]
    IngressDeny,
    #[serde(rename = "egress")]
    Egress,
    #[serde(rename = "egressDeny")]
    EgressDeny,
    /// An entry of `--failsafe`, not of a policy.
    #[serde(rename = "failsafe")]
    Failsafe,
}

impl Section {
    /// The sections of a rule, in the order of their numbers.
    pub const OF_RULES: [Self; 4] = [
        Self::Ingress,
        Self::IngressDeny,
        Self::Egress,
        Self::EgressDeny,
    ];
    /// The direction it is about; None for a failsafe entry, which has its own.
    #[must_use]
    pub fn direction(self) -> Option<Direction> {
        match self {
            Self::Ingress | Self::IngressDeny => Some(Direction::Ingress),
            Self::Egress | Self::EgressDeny => Some(Direction::Egress),
            Self::Failsafe => None,
        }
    }
    /// Whether its items deny.
    #[must_use]
    pub fn is_deny(self) -> bool {
        match self {
            Self::IngressDeny | Self::EgressDeny => true,
            Self::Ingress | Self::Egress | Self::Failsafe => false,
        }
    }
    /// The field's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::IngressDeny => "ingressDeny",
            Self::Egress => "egress",
            Self::EgressDeny => "egressDeny",
            Self::Failsafe => "failsafe",
        }
    }
}

/// Stable number of one rule item, from 1; 0 means that no rule matched.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RuleNumber(pub u32);

/// What a rule number stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// None for a failsafe entry.
    pub resource: Option<ResourceKey>,
    pub section: Section,
    /// Zero-based index of the item in its section; over `spec` and `specs`
    /// the sections are concatenated in order.
    pub index: usize,
}

/// What is known of a numbered item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleEntry {
    pub rule: RuleRef,
    /// `log.value` of its rule.
    pub log: Option<String>,
    /// Where it was read; empty for a failsafe entry.
    pub file: String,
    /// One-based; None where the source has no lines.
    pub line: Option<usize>,
}

impl RuleEntry {
    /// An entry of the failsafe list.
    #[must_use]
    pub fn failsafe(index: usize) -> Self {
        Self {
            rule: RuleRef {
                resource: None,
                section: Section::Failsafe,
                index,
            },
            log: None,
            file: String::new(),
            line: None,
        }
    }
}

/// All rule numbers of a revision.
pub type RuleCatalogue = OrdMap<RuleNumber, Arc<RuleEntry>>;

/// The verdicts of one endpoint, both directions.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointPolicy {
    pub endpoint: EndpointId,
    /// The revision it was computed from.
    pub revision: Revision,
    /// By [`Direction::number`].
    pub directions: [Arc<DirectionPolicy>; 2],
    pub rules: RuleCatalogue,
}

impl EndpointPolicy {
    /// The policy of one direction.
    #[must_use]
    pub fn direction(&self, direction: Direction) -> &DirectionPolicy {
        &self.directions[direction as usize]
    }
}

/// The verdicts of one endpoint in one direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DirectionPolicy {
    /// Whether anything can be dropped. Neither enforced nor watched: the table
    /// is not asked.
    pub enforced: bool,
    /// Not enforced, yet the table is asked: policies in audit watch it. Every
    /// cell allows or carries the audit bit. Excludes `enforced`.
    pub watched: bool,
    /// Denials are reported and passed (the cells carry the audit bit).
    pub audit: bool,
    /// The policies that made the direction default-deny.
    pub enforcing: OrdSet<ResourceKey>,
    /// The policies in audit that would make it default-deny.
    pub auditing: OrdSet<ResourceKey>,
    pub table: VerdictTable,
}

/// The lookups of `palisade_abi::table`, as data. Two tables share what they
/// have in common: the rows of identities that did not change, and parts of rows.
#[derive(Clone, Debug, Default)]
pub struct VerdictTable {
    /// Row of each identity; who has none has that of the unknown identity, the
    /// first. What everyone's items say is not in it, but where policies in audit
    /// have a word.
    pub rows: DenseMap<IdentityIndex, Row>,
    /// What is denied to everyone.
    pub denied: Row,
    /// What becomes of keys that no other row decides about.
    pub everyone: Row,
}

impl PartialEq for VerdictTable {
    /// Costs what the two do not share.
    fn eq(&self, other: &Self) -> bool {
        // Many identities may have one row: it is compared once.
        let mut equal = HashSet::new();
        let same = |one: &Row, other: &Row| {
            let pair = (one.identity(), other.identity());
            pair.0 == pair.1 || equal.contains(&pair) || (one == other && equal.insert(pair))
        };
        self.denied == other.denied
            && self.everyone == other.everyone
            && self.rows.len() == other.rows.len()
            && self.rows.diff_by(&other.rows, same).is_empty()
    }
}
impl Eq for VerdictTable {}

impl VerdictTable {
    /// The row of an identity, or of nobody; None only where there is no row.
    #[must_use]
    pub fn row(&self, identity: IdentityIndex) -> Option<&Row> {
        let row = self.rows.get(&identity);
        row.or_else(|| self.rows.get(&IdentityIndex(0)))
    }

    /// The rows of the first `count` indexes.
    fn rows_by_index(&self, count: usize) -> impl Iterator<Item = Option<&Row>> {
        let unknown = self.rows.get(&IdentityIndex(0));
        let mut live = self.rows.iter().peekable();
        (0..count).map(move |index| {
            let own = live.next_if(|(live, _)| live.0 as usize == index);
            own.map(|(_, row)| row).or(unknown)
        })
    }

    /// The rows as a slot has them: of each index, then everyone's two.
    pub(crate) fn rows_of_slot(&self) -> impl Iterator<Item = Option<&Row>> {
        let of_everyone = [Some(&self.everyone), Some(&self.denied)];
        self.rows_by_index(IDENTITIES_MAX).chain(of_everyone)
    }

    /// The different rows, in the order of the first identities that have them,
    /// and which of them each index has.
    #[must_use]
    pub fn different_rows(&self) -> (Vec<&Row>, Vec<u32>) {
        let count = self.rows.last().map_or(0, |last| last.0 as usize + 1);
        let (mut numbers, mut rows) = (HashMap::new(), Vec::new());
        let of_index = self.rows_by_index(count).flatten().map(|row| {
            *numbers.entry(row.identity()).or_insert_with(|| {
                rows.push(row);
                u32::try_from(rows.len() - 1).unwrap_or(u32::MAX)
            })
        });
        let of_index = of_index.collect();
        (rows, of_index)
    }

    /// Different blocks of all rows, counted by their places in memory.
    #[must_use]
    pub fn block_count(&self) -> usize {
        let of_everyone = [&self.denied, &self.everyone];
        block_count(self.rows.values().chain(of_everyone))
    }

    /// The verdict, read as the datapath reads it. `class` is one of
    /// `palisade_abi::table::class`, `value` a port or type of it.
    #[must_use]
    pub fn lookup(&self, identity: IdentityIndex, class: u32, value: u16) -> Cell {
        let key = key(class, value);
        let own = self.row(identity);
        let own = own.map_or(Cell::UNDECIDED, |row| row.get(key));
        let cell = decide(own, || self.denied.get(key), || self.everyone.get(key));
        if key == FRAGMENT {
            return cell.of_fragment();
        }
        cell
    }
}
