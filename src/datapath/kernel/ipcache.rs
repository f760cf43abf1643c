//! The IPv6 ipcache trie: one trie for both slots, each value holding an identity
//! per slot, so that the meaning of an address flips with the policy.
//!
//! Invariant of every single write: the current slot's view does not change. A
//! new prefix carries, for the other slot, the identity of the prefix that
//! covers it there; a prefix that is gone carries the covering identity, and
//! leaves the trie only when neither slot needs it.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use imbl::OrdMap;
use ipnet::{Ipv4Net, Ipv6Net};
use palisade_abi::table::{IDENTITIES_MAX, IPCACHE_MAX, IpcacheValue};

use super::maps::{Map, TrieKey};
use crate::datapath::{DatapathError, IpcacheEntry};

/// Entries read back after a large write; a smaller one is read back whole.
const READ_BACK_MAX: usize = 4_096;

/// A prefix of either family. Its order puts a prefix right before those it covers.
pub(crate) trait Prefix: Copy + Ord + std::fmt::Display {
    fn covers(&self, other: &Self) -> bool;
    /// The prefix that is one bit shorter.
    fn wider(&self) -> Option<Self>;
    /// Whether the bits past the length are zero.
    fn is_network(&self) -> bool;
}

impl Prefix for Ipv4Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }
    fn wider(&self) -> Option<Self> {
        self.supernet()
    }
    fn is_network(&self) -> bool {
        *self == self.trunc()
    }
}

impl Prefix for Ipv6Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }
    fn wider(&self) -> Option<Self> {
        self.supernet()
    }
    fn is_network(&self) -> bool {
        *self == self.trunc()
    }
}

fn key(prefix: &Ipv6Net) -> TrieKey<[u8; 16]> {
    TrieKey {
        prefix_len: u32::from(prefix.prefix_len()),
        address: prefix.network().octets(),
    }
}

fn from_key(key: &TrieKey<[u8; 16]>) -> Option<Ipv6Net> {
    Ipv6Net::new(key.address.into(), u8::try_from(key.prefix_len).ok()?).ok()
}

/// Identity and index of one slot.
pub(super) type View = (u32, u32);

pub(super) fn view(value: &IpcacheValue, slot: usize) -> View {
    (value.identity[slot], value.index[slot])
}

pub(super) fn wanted(entry: &IpcacheEntry) -> View {
    (entry.identity.0, entry.index.0)
}

pub(super) fn value(slot: usize, this: View, other: View) -> IpcacheValue {
    let mut value = IpcacheValue::default();
    for (slot, view) in [(slot, this), (1 - slot, other)] {
        (value.identity[slot], value.index[slot]) = view;
    }
    value
}

/// What must be written so that a slot's view is the wanted one.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan<P> {
    pub(crate) puts: Vec<(P, IpcacheValue)>,
    pub(crate) removes: Vec<P>,
    /// Prefixes in the trie once the puts are done, before the removes.
    pub(crate) peak: usize,
}

/// The trie as we know it: read once at the start, then kept by every write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow<P>(pub(crate) BTreeMap<P, IpcacheValue>);

/// Keys of two ordered maps, in order, with the values of each.
struct Merge<'a, P, A, B>
where
    P: 'a,
    A: Iterator,
    B: Iterator,
{
    held: Peekable<A>,
    wanted: Peekable<B>,
    prefix: std::marker::PhantomData<&'a P>,
}

impl<'a, P, A, B> Iterator for Merge<'a, P, A, B>
where
    P: Prefix + 'a,
    A: Iterator<Item = (&'a P, &'a IpcacheValue)>,
    B: Iterator<Item = (&'a P, &'a IpcacheEntry)>,
{
    type Item = (P, Option<&'a IpcacheValue>, Option<&'a IpcacheEntry>);

    fn next(&mut self) -> Option<Self::Item> {
        let held = self.held.peek().map(|(prefix, _)| **prefix);
        let wanted = self.wanted.peek().map(|(prefix, _)| **prefix);
        let prefix = [held, wanted].into_iter().flatten().min()?;
        let value = (held == Some(prefix)).then(|| self.held.next()).flatten();
        let entry = (wanted == Some(prefix))
            .then(|| self.wanted.next())
            .flatten();
        Some((
            prefix,
            value.map(|(_, value)| value),
            entry.map(|(_, entry)| entry),
        ))
    }
}

/// The prefixes that cover the one at hand, outermost first, with what they carry.
struct Covers<P, V>(Vec<(P, V)>);

impl<P: Prefix, V: Copy + Default> Covers<P, V> {
    /// What the innermost prefix around `prefix` carries.
    fn around(&mut self, prefix: &P) -> V {
        while self
            .0
            .last()
            .is_some_and(|(cover, _)| !cover.covers(prefix))
        {
            self.0.pop();
        }
        self.0
            .last()
            .map_or_else(V::default, |(_, carried)| *carried)
    }
    fn push(&mut self, prefix: P, carried: V) {
        self.0.push((prefix, carried));
    }
}

impl<P: Prefix> Shadow<P> {
    fn merge<'a>(
        &'a self,
        want: &'a OrdMap<P, IpcacheEntry>,
    ) -> impl Iterator<Item = (P, Option<&'a IpcacheValue>, Option<&'a IpcacheEntry>)> {
        Merge {
            held: self.0.iter().peekable(),
            wanted: want.iter().peekable(),
            prefix: std::marker::PhantomData,
        }
    }

    /// What makes `slot`'s view equal to `want` and leaves the other slot's alone.
    pub(crate) fn plan(&self, slot: usize, want: &OrdMap<P, IpcacheEntry>) -> Plan<P> {
        let mut plan = Plan {
            puts: Vec::new(),
            removes: Vec::new(),
            peak: self.0.len(),
        };
        let mut covers = Covers::<P, (View, View)>(Vec::new());
        for (prefix, held, entry) in self.merge(want) {
            let (cover_this, cover_other) = covers.around(&prefix);
            let this = entry.map_or(cover_this, wanted);
            let other = held.map_or(cover_other, |held| view(held, 1 - slot));
            if entry.is_none() && (this, other) == (cover_this, cover_other) {
                plan.removes.push(prefix);
                continue;
            }
            let value = value(slot, this, other);
            if held != Some(&value) {
                plan.puts.push((prefix, value));
                plan.peak += usize::from(held.is_none());
            }
            covers.push(prefix, (this, other));
        }
        plan
    }

    /// Whether every address has in `slot` the identity that `want` gives it.
    pub(crate) fn holds(&self, slot: usize, want: &OrdMap<P, IpcacheEntry>) -> bool {
        let mut covers = Covers::<P, (View, View)>(Vec::new());
        self.merge(want).all(|(prefix, held, entry)| {
            let (cover_held, cover_want) = covers.around(&prefix);
            let is = held.map_or(cover_held, |held| view(held, slot));
            let want = entry.map_or(cover_want, wanted);
            covers.push(prefix, (is, want));
            is == want
        })
    }

    /// Whether both slots see every address alike.
    pub(crate) fn slots_agree(&self) -> bool {
        self.0
            .values()
            .all(|value| view(value, 0) == view(value, 1))
    }

    /// The prefixes that mean something in `slot`: not those that only carry
    /// the identity around them.
    pub(crate) fn meaningful(&self, slot: usize) -> Vec<(P, View)> {
        let mut covers = Covers::<P, View>(Vec::new());
        let mut out = Vec::new();
        for (prefix, held) in &self.0 {
            let (cover, is) = (covers.around(prefix), view(held, slot));
            covers.push(*prefix, is);
            if cover != is {
                out.push((*prefix, is));
            }
        }
        out
    }
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

/// Reads the trie whole.
pub(crate) fn read(map: &Map) -> Result<Shadow<Ipv6Net>, DatapathError> {
    let mut shadow = BTreeMap::new();
    for key in map.keys() {
        let key = key?;
        let (Some(prefix), Some(value)) = (from_key(&key), map.get(&key)?) else {
            continue;
        };
        shadow.insert(prefix, value);
    }
    Ok(Shadow(shadow))
}

/// What a piece of the audit saw and put right.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) compared: usize,
    pub(crate) changed: usize,
    /// The first that was wrong, and how.
    pub(crate) first: Option<Ipv6Net>,
    pub(crate) how: &'static str,
    /// Where to go on.
    pub(crate) last: Option<Ipv6Net>,
    pub(crate) is_end: bool,
}

impl Restored {
    fn note(&mut self, prefix: Ipv6Net, how: &'static str) {
        self.changed += 1;
        if self.first.is_none() {
            (self.first, self.how) = (Some(prefix), how);
        }
    }
}

/// Puts prefixes of the shadow back where the trie has them not, or not so; as
/// many as `max`, behind `after`.
pub(crate) fn restore(
    map: &Map,
    shadow: &Shadow<Ipv6Net>,
    after: Option<Ipv6Net>,
    max: usize,
) -> Result<Restored, DatapathError> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut restored = Restored::default();
    for (prefix, value) in shadow.0.range((from, Bound::Unbounded)).take(max) {
        let is = map.get::<_, IpcacheValue>(&key(prefix))?;
        if is != Some(*value) {
            map.put(&key(prefix), value)?;
            restored.note(*prefix, is.map_or("missing", |_| "of another identity"));
        }
        restored.compared += 1;
        restored.last = Some(*prefix);
    }
    restored.is_end = restored.compared < max;
    Ok(restored)
}

/// Removes prefixes that the shadow does not know, among `max` behind `after`.
pub(crate) fn remove_strangers(
    map: &Map,
    shadow: &Shadow<Ipv6Net>,
    after: Option<Ipv6Net>,
    max: usize,
) -> Result<Restored, DatapathError> {
    let mut restored = Restored {
        last: after,
        ..Restored::default()
    };
    let mut strangers = Vec::new();
    for next in map.keys_after(after.as_ref().map(key).as_ref()).take(max) {
        let next: TrieKey<[u8; 16]> = next?;
        restored.compared += 1;
        match from_key(&next).filter(|prefix| shadow.0.contains_key(prefix)) {
            Some(prefix) => restored.last = Some(prefix),
            None => strangers.push(next),
        }
    }
    restored.is_end = restored.compared < max;
    for stranger in &strangers {
        map.remove(stranger)?;
        restored.note(from_key(stranger).unwrap_or_default(), "nobody's");
    }
    Ok(restored)
}

impl<P: Prefix> Plan<P> {
    /// Refuses a plan that the trie has no room for.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), DatapathError> {
        let max = IPCACHE_MAX as usize;
        if self.peak > max {
            return Err(DatapathError::DoesNotFit {
                what,
                needed: self.peak,
                max,
            });
        }
        Ok(())
    }
}

impl Plan<Ipv6Net> {
    /// Writes the plan; `shadow` follows each write, so that an error leaves
    /// both equal. The number of writes.
    pub(crate) fn apply(
        self,
        map: &Map,
        shadow: &mut Shadow<Ipv6Net>,
    ) -> Result<usize, DatapathError> {
        for (prefix, value) in &self.puts {
            map.put(&key(prefix), value)?;
            shadow.0.insert(*prefix, *value);
        }
        for prefix in &self.removes {
            map.remove(&key(prefix))?;
            shadow.0.remove(prefix);
        }
        let step = self.puts.len().div_ceil(READ_BACK_MAX).max(1);
        for (prefix, value) in self.puts.iter().step_by(step) {
            if map.get::<_, IpcacheValue>(&key(prefix))? != Some(*value) {
                return Err(DatapathError::ReadBack {
                    what: format!("prefix {prefix} in map {}", map.name),
                });
            }
        }
        Ok(self.puts.len() + self.removes.len())
    }
}
