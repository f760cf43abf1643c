//! Which snapshots are kept, and with them which events. Pure.
//!
//! A revision is rebuilt from the nearest snapshot at or before it and the
//! events behind that one. So the past is only cut at a snapshot: the oldest
//! one kept is the base, and no event behind the base is ever missing.

use serde::{Deserialize, Serialize};

/// How much of the past is kept. Whatever limit is reached first counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Events behind the oldest snapshot.
    pub events_max: u64,
    pub snapshots_max: usize,
    /// Snapshots and events together, as they were written.
    pub bytes_max: u64,
    /// Age of the newest event between two snapshots.
    pub age_ms_max: u64,
    /// The newest events stay, whatever their age: a wall clock that jumps must
    /// not take the past along.
    pub events_min: u64,
}

/// A snapshot that is kept: its place, and what lies between it and the one
/// before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// It covers the journal up to here.
    pub sequence: u64,
    pub chunks: u32,
    pub bytes: u64,
    /// Revision of the repository in it; 0 if an older agent saved it.
    #[serde(default)]
    pub revision: u64,
    /// It does not follow from the events before it: these were damaged, or the
    /// count began anew.
    #[serde(default)]
    pub begins: bool,
    /// When the newest event that it covers was accepted.
    #[serde(default)]
    pub newest_event_ms: u64,
    /// Bytes of the events since the snapshot before.
    #[serde(default)]
    pub events_bytes: u64,
    /// Newest note when it was saved.
    #[serde(default)]
    pub notes: u64,
}

/// Parts the snapshots, oldest first, into those that stay and those that go.
/// The newest always stays.
pub(crate) fn select(
    mut kept: Vec<Kept>,
    retention: &Retention,
    now_ms: u64,
) -> (Vec<Kept>, Vec<Kept>) {
    let mut gone = Vec::new();
    while kept.len() > 1 && base_must_go(&kept, retention, now_ms) {
        gone.push(kept.remove(0));
    }
    while kept.len() > retention.snapshots_max.max(1) {
        match thinnest(&kept) {
            Some(place) => {
                let thinned = kept.remove(place);
                kept[place].events_bytes += thinned.events_bytes;
                gone.push(thinned);
            }
            None => gone.push(kept.remove(0)),
        }
    }
    (kept, gone)
}

fn base_must_go(kept: &[Kept], retention: &Retention, now_ms: u64) -> bool {
    let events = kept[kept.len() - 1].sequence - kept[0].sequence;
    let snapshots: u64 = kept.iter().map(|snapshot| snapshot.bytes).sum();
    let behind: u64 = kept[1..].iter().map(|next| next.events_bytes).sum();
    let age_ms = now_ms.saturating_sub(kept[1].newest_event_ms);
    let events_left = kept[kept.len() - 1].sequence - kept[1].sequence;
    events > retention.events_max
        || snapshots + behind > retention.bytes_max
        || (age_ms > retention.age_ms_max && events_left >= retention.events_min)
}

/// The snapshot without which the longest replay grows least: neither the base
/// nor the newest, nor one over which no replay leads.
fn thinnest(kept: &[Kept]) -> Option<usize> {
    (1..kept.len().saturating_sub(1))
        .filter(|place| !kept[*place].begins)
        .min_by_key(|place| kept[place + 1].sequence - kept[place - 1].sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention {
        events_max: 100,
        snapshots_max: 4,
        bytes_max: 1_000,
        age_ms_max: 50,
        events_min: 10,
    };

    fn kept(sequences: &[u64]) -> Vec<Kept> {
        let of = |sequence: &u64| Kept {
            sequence: *sequence,
            bytes: 10,
            events_bytes: 20,
            newest_event_ms: *sequence,
            ..Kept::default()
        };
        sequences.iter().map(of).collect()
    }

    #[track_caller]
    fn check(sequences: &[u64], now_ms: u64, stay: &[u64]) {
        let (kept, gone) = select(kept(sequences), &RETENTION, now_ms);
        let numbers = |list: &[Kept]| -> Vec<u64> { list.iter().map(|s| s.sequence).collect() };
        assert_eq!(numbers(&kept), stay);
        assert_eq!(kept.len() + gone.len(), sequences.len());
    }

    #[test]
    fn the_first_limit_that_is_reached_counts() {
        check(&[1, 50, 101], 100, &[1, 50, 101]);
        check(&[1, 50, 102], 100, &[50, 102]);
        // The newest event between 1 and 50 is too old, that up to 60 is not.
        check(&[1, 50, 60], 101, &[50, 60]);
        check(&[1], 1_000_000, &[1]);
        check(&[1, 1_000], 1_000, &[1_000]);
        let mut heavy = kept(&[1, 2, 3]);
        heavy[2].bytes = 960;
        let (stay, _) = select(heavy, &RETENTION, 0);
        assert_eq!(stay.len(), 2, "10 + 960 + 20 bytes fit");
    }

    #[test]
    fn a_clock_that_jumps_takes_little_of_the_past_along() {
        let future = 1_000_000;
        check(&[1, 50, 60], future, &[50, 60]);
        check(&[1, 55, 60], future, &[1, 55, 60]);
        check(&[1, 40, 50, 60], future, &[50, 60]);
        // Back again: what seems to come from the future stays.
        check(&[40, 50, 60], 0, &[40, 50, 60]);
    }

    #[test]
    fn too_many_snapshots_are_thinned_and_no_event_is_lost() {
        check(&[1, 10, 20, 25, 40], 40, &[1, 10, 25, 40]);
        let (stay, gone) = select(kept(&[1, 10, 20, 25, 40]), &RETENTION, 40);
        assert_eq!(gone[0].sequence, 20);
        assert_eq!(stay[2].events_bytes, 40);
        let mut barred = kept(&[1, 10, 20, 25, 40]);
        barred[1..4].iter_mut().for_each(|kept| kept.begins = true);
        let (stay, _) = select(barred, &RETENTION, 40);
        assert_eq!(stay[0].sequence, 10);
    }
}
