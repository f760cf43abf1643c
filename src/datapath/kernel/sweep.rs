//! The sweep of conntrack: what has expired is removed, a batch at a time.
//!
//! A dead entry is no flow to the programs, but a packet may open the flow anew
//! between our look at an entry and its removal. Such an entry must not go:
//!
//! - TCP of this host is removed in batches. Should a packet win that race, its
//!   flow loses nothing: the next packet asks the kernel's sockets who opened it.
//! - Everything else is taken out one by one, in one step that also gives what
//!   was removed. What turns out to be alive is put back at once, unless a packet
//!   was faster again. Before Linux 5.14 it is read and then removed.
//!
//! Owner: one worker thread.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6, flags};
use palisade_abi::proto;

use super::conntrack::{Key, MAPS, Walk};
use super::datapath::Shared;
use super::maps::{Map, bytes_of, kernel, value_of};
use super::{removal, sys, ticks};
use crate::datapath::DatapathError;
use crate::limits::{CT_SWEEP_MAX, CT_SWEEP_MIN};

/// Entries of one map, counted by the last sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CtOccupancy {
    pub map: &'static str,
    /// Entries that live on.
    pub entries: usize,
    pub max: u32,
    /// Expired entries that the sweep removed.
    pub removed: usize,
    /// Entries that were alive again when they were taken out, and were put back.
    pub revived: usize,
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
        let sweep = |(name, is_v6, _)| {
            let map = self.shared.maps.of(name);
            if is_v6 {
                sweep_map::<CtKey6>(map, now)
            } else {
                sweep_map::<CtKey4>(map, now)
            }
        };
        MAPS.into_iter().map(sweep).collect()
    }
}

fn sweep_map<K: Key>(map: &Map, now: u64) -> Result<CtOccupancy, DatapathError> {
    let mut walk = Walk::new(map);
    let mut occupancy = CtOccupancy {
        map: map.name,
        entries: 0,
        max: map.max_entries,
        removed: 0,
        revived: 0,
    };
    let mut heal_themselves = Vec::new();
    while let Some(batch) = walk.step::<K>()? {
        heal_themselves.clear();
        for (key, entry) in batch {
            if !ticks::is_expired(&entry, now) {
                occupancy.entries += 1;
            } else if asks_a_socket(&key, &entry) {
                heal_themselves.extend_from_slice(bytes_of(&key));
            } else {
                remove(map, &key, now, &mut occupancy)?;
            }
        }
        occupancy.removed += removal::delete_batch(map.fd(), &heal_themselves, size_of::<K>())
            .map_err(kernel(format!("sweep of map {}", map.name)))?;
    }
    Ok(occupancy)
}

/// Whether a packet of the flow would find its socket if the entry were gone.
/// What is only forwarded has none here.
fn asks_a_socket<K: Key>(key: &K, entry: &CtEntry) -> bool {
    let (_, _, proto, _) = key.parts();
    proto == proto::TCP && entry.flags & flags::UNJUDGED == 0
}

/// Removes one entry that was seen dead.
fn remove<K: Key>(
    map: &Map,
    key: &K,
    now: u64,
    occupancy: &mut CtOccupancy,
) -> Result<(), DatapathError> {
    let mut value = vec![0; size_of::<CtEntry>()];
    let taken = match removal::take(map.fd(), bytes_of(key), &mut value) {
        Ok(taken) => taken,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let entry = map.get::<K, CtEntry>(key)?;
            let dead = entry.is_some_and(|entry| ticks::is_expired(&entry, now));
            occupancy.removed += usize::from(dead && map.remove(key)?);
            occupancy.entries += usize::from(!dead && entry.is_some());
            return Ok(());
        }
        Err(error) => return Err(kernel(format!("sweep of map {}", map.name))(error)),
    };
    if !taken {
        return Ok(());
    }
    let entry: CtEntry = value_of(&value);
    if ticks::is_expired(&entry, now) {
        occupancy.removed += 1;
    } else {
        map.put_if(key, &entry, sys::NOEXIST)?;
        occupancy.entries += 1;
        occupancy.revived += 1;
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
            max: 1_000,
            removed,
            revived: 0,
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
