//! What both families' ipcaches have in common: prefixes, and what tells two
//! maps of them apart. Pure.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::{Ipv4Net, Ipv6Net};
use palisade_abi::table::{IDENTITIES_MAX, IPCACHE_MAX};

use crate::datapath::{DatapathError, IpcacheEntry};

type Want<P> = OrdMap<P, IpcacheEntry>;

/// A prefix of either family.
pub(super) trait Prefix: Copy + Ord + std::fmt::Display {
    /// The prefix that is one bit shorter.
    fn wider(&self) -> Option<Self>;
    /// Whether the bits past the length are zero.
    fn is_network(&self) -> bool;
}

impl Prefix for Ipv4Net {
    fn wider(&self) -> Option<Self> {
        self.supernet()
    }
    fn is_network(&self) -> bool {
        *self == self.trunc()
    }
}

impl Prefix for Ipv6Net {
    fn wider(&self) -> Option<Self> {
        self.supernet()
    }
    fn is_network(&self) -> bool {
        *self == self.trunc()
    }
}

/// Identity and index.
pub(super) type View = (u32, u32);

fn wanted(entry: &IpcacheEntry) -> View {
    (entry.identity.0, entry.index.0)
}

/// Refuses more prefixes than the maps have room for.
pub(super) fn check_count(what: &'static str, needed: usize) -> Result<(), DatapathError> {
    let max = IPCACHE_MAX as usize;
    if needed > max {
        return Err(DatapathError::DoesNotFit { what, needed, max });
    }
    Ok(())
}

/// Refuses entries that the maps cannot hold.
pub(super) fn check<'a, P: Prefix + 'a>(
    entries: impl Iterator<Item = (&'a P, &'a IpcacheEntry)>,
) -> Result<(), DatapathError> {
    for (prefix, entry) in entries {
        if !prefix.is_network() {
            return Err(DatapathError::Other(format!(
                "the ipcache prefix {prefix} has bits set past its length"
            )));
        }
        let index = entry.index.0 as usize;
        if index >= IDENTITIES_MAX {
            return Err(DatapathError::DoesNotFit {
                what: "identity indexes of the ipcache",
                needed: index + 1,
                max: IDENTITIES_MAX,
            });
        }
    }
    Ok(())
}

/// What a map has that another one had not, or not so.
pub(super) fn changed_entries<'a, P: Prefix>(
    before: &'a Want<P>,
    after: &'a Want<P>,
) -> impl Iterator<Item = (&'a P, &'a IpcacheEntry)> {
    before.diff(after).filter_map(|item| match item {
        DiffItem::Add(prefix, entry) => Some((prefix, entry)),
        DiffItem::Update { new, .. } => Some(new),
        DiffItem::Remove(..) => None,
    })
}

/// The prefixes that two maps do not know alike; None if they are more than `max`.
pub(super) fn changed_prefixes<P: Prefix>(
    one: &Want<P>,
    other: &Want<P>,
    max: usize,
) -> Option<Vec<P>> {
    let changed: Vec<P> = one.diff(other).map(prefix).take(max + 1).collect();
    (changed.len() <= max).then_some(changed)
}

fn prefix<P: Prefix>(item: DiffItem<'_, '_, P, IpcacheEntry>) -> P {
    match item {
        DiffItem::Add(prefix, _) | DiffItem::Remove(prefix, _) => *prefix,
        DiffItem::Update { new, .. } => *new.0,
    }
}

/// Whether both maps answer alike for each prefix that they do not know alike.
pub(super) fn same_answers<P: Prefix>(one: &Want<P>, other: &Want<P>) -> bool {
    one.diff(other).map(prefix).all(|prefix| {
        let answer = |map: &Want<P>| map.get(&prefix).map_or_else(|| cover(map, &prefix), wanted);
        answer(one) == answer(other)
    })
}

/// What the innermost prefix around `prefix` carries.
fn cover<P: Prefix>(map: &Want<P>, prefix: &P) -> View {
    let mut around = *prefix;
    while let Some(wider) = around.wider() {
        if let Some(entry) = map.get(&wider) {
            return wanted(entry);
        }
        around = wider;
    }
    View::default()
}

#[cfg(test)]
#[path = "ipcache_tests.rs"]
mod tests;
