//! The sweep of conntrack: ways of flows that have expired become free.
//!
//! To the programs a dead flow is none, and they give its way away when they need
//! one; a sweep tells what lives, and keeps old flows from being asked about. A
//! packet may open the flow anew between our look at its tag and the removal:
//! then the tag is another one, and the flow stays.
//!
//! Owner: one worker thread.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_abi::flows::{BUSY, FREE, ONE_SIDED, Tag};

use super::flows::{FlowTable, Key};
use super::shared::Shared;
use super::ticks;
use crate::datapath::DatapathError;
use crate::limits::{CT_SWEEP_MAX, CT_SWEEP_MIN};

/// Entries of one map, counted by the last sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CtOccupancy {
    pub map: &'static str,
    /// Flows that live on.
    pub entries: usize,
    /// Those of them that were seen from one side only.
    pub one_sided: usize,
    pub max: u32,
    /// Expired flows that the sweep removed.
    pub removed: usize,
}

/// Removes expired entries. Owner: one worker thread.
#[derive(Debug)]
pub struct Sweeper {
    shared: Arc<Shared>,
}

impl Sweeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// One sweep over all maps; what each holds afterwards.
    pub fn sweep(&self) -> Result<Vec<CtOccupancy>, DatapathError> {
        let now = ticks::now(&self.shared.programs)?;
        let maps = &self.shared.maps;
        Ok(vec![
            sweep_table(&FlowTable::v4(maps)?, now)?,
            sweep_table(&FlowTable::v6(maps)?, now)?,
        ])
    }
}

fn sweep_table<K: Key>(table: &FlowTable<'_, K>, now: u64) -> Result<CtOccupancy, DatapathError> {
    let mut occupancy = CtOccupancy {
        map: table.map.name,
        entries: 0,
        one_sided: 0,
        max: table.entries_max(),
        removed: 0,
    };
    let mut overflowed = Vec::new();
    for window in table.windows() {
        let (first, window) = window?;
        for index in 0..window.sets {
            let set = window.set(index);
            let count = set.overflowed.load(Ordering::SeqCst);
            if count != 0 {
                overflowed.push((first + index, count));
            }
            for way in set.ways() {
                let tag = way.tag();
                if tag.is_alive(now) {
                    occupancy.entries += 1;
                    occupancy.one_sided += usize::from(tag.kind() == ONE_SIDED);
                } else if tag.kind() != FREE && !tag.is_timely(now) && way.replace(tag, Tag::FREE) {
                    // What was being written when its writer died was no flow yet.
                    occupancy.removed += usize::from(tag.kind() != BUSY);
                }
            }
        }
    }
    if !overflowed.is_empty() {
        forget_overflows(table, &overflowed)?;
    }
    Ok(occupancy)
}

/// Lets lookups end in the first set again, where none of its flows stands in
/// the other one any more. `overflowed`: sets, and their counts before the walk;
/// a count that has changed since stays.
fn forget_overflows<K: Key>(
    table: &FlowTable<'_, K>,
    overflowed: &[(u32, u64)],
) -> Result<(), DatapathError> {
    let mut needed = HashSet::new();
    for window in table.windows() {
        let (first_set, window) = window?;
        for index in 0..window.sets {
            for (_, key, _) in window.set(index).ways().filter_map(|way| way.read::<K>()) {
                let [first, _] = table.places(&key);
                if first != first_set + index {
                    needed.insert(first);
                }
            }
        }
    }
    for (set, count) in overflowed {
        if !needed.contains(set) {
            let window = table.window(*set, 1)?;
            let counter = window.set(0).overflowed;
            // Refused where it has changed: a flow was put elsewhere meanwhile.
            let _ = counter.compare_exchange(*count, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// When to sweep again, by what the last sweep found. Dead entries that took a
/// quarter of a map ask for haste; a map that stays clean does not.
#[must_use]
pub fn next_sweep(last: Duration, found: &[CtOccupancy]) -> Duration {
    let dead_percent = |map: &CtOccupancy| map.removed * 100 / (map.max as usize).max(1);
    match found.iter().map(dead_percent).max().unwrap_or(0) {
        25.. => (last / 2).max(CT_SWEEP_MIN),
        5..25 => last,
        0..5 => (last * 2).min(CT_SWEEP_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CT_SWEEP_FIRST;

    fn found(removed: usize) -> Vec<CtOccupancy> {
        let of = |removed| CtOccupancy {
            map: "pal_ct4",
            entries: 0,
            one_sided: 0,
            max: 1_000,
            removed,
        };
        vec![of(0), of(removed)]
    }

    #[test]
    fn a_sweep_that_finds_much_is_soon_followed_by_another() {
        let mut span = CT_SWEEP_FIRST;
        for _ in 0..20 {
            span = next_sweep(span, &found(249));
        }
        assert_eq!(
            span, CT_SWEEP_FIRST,
            "between the two limits nothing changes"
        );
        for _ in 0..20 {
            let before = span;
            span = next_sweep(span, &found(250));
            assert!(span <= before);
        }
        assert_eq!(span, CT_SWEEP_MIN);
        assert_eq!(next_sweep(span, &found(1_000)), CT_SWEEP_MIN);
        for _ in 0..20 {
            span = next_sweep(span, &found(49));
        }
        assert_eq!(span, CT_SWEEP_MAX);
        assert_eq!(next_sweep(CT_SWEEP_MAX, &[]), CT_SWEEP_MAX);
    }
}
