//! What the past costs: disk, and the time of a group commit.
//!
//! `PALISADE_STATE_COST=30000 cargo test --release -p palisade-state --test cost
//! -- --nocapture` prints the figures of docs/operations.md.

use std::path::Path;
use std::time::{Duration, Instant};

use palisade_state::{NewSnapshot, Retention, Store};

/// As the agent's, in src/limits.rs.
const RETENTION: Retention = Retention {
    events_max: 10_000,
    snapshots_max: 8,
    bytes_max: 64 << 20,
    age_ms_max: u64::MAX,
    events_min: 0,
};
const SNAPSHOT_EVENTS: u64 = 512;
const EVENT_BYTES: usize = 1_500;
const SNAPSHOT_BYTES: usize = 200 << 10;
const NOTE: &str = "CiliumClusterwideNetworkPolicy/web added or replaced from manifests";

fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("reads").flatten();
    let sizes = entries.map(|entry| match entry.path() {
        path if path.is_dir() => disk_bytes(&path),
        path => path.metadata().map_or(0, |about| about.len()),
    });
    sizes.sum()
}

/// Commits one event after the other; returns how long each commit took and the
/// largest size of the database.
fn run(events: u64, retention: &Retention) -> (Vec<Duration>, u64) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(dir.path()).expect("opens");
    let event = "x".repeat(EVENT_BYTES);
    let snapshot = vec![b'x'; SNAPSHOT_BYTES];
    let (mut times, mut largest, mut longest) = (Vec::new(), 0, Duration::ZERO);
    for number in 1..=events {
        let started = Instant::now();
        store.append(&event).expect("appends");
        store.flush().expect("flushes");
        store.note(&NOTE, 20_000).expect("notes");
        store.sweep(18).expect("deletes");
        times.push(started.elapsed());
        if number % SNAPSHOT_EVENTS == 0 {
            let new = NewSnapshot {
                sequence: number,
                revision: number,
                begins: false,
                newest_event_ms: 0,
                bytes: &snapshot,
            };
            let started = Instant::now();
            store.save_snapshot(&new, retention, 0).expect("saves");
            longest = longest.max(started.elapsed());
            largest = largest.max(disk_bytes(dir.path()));
        }
    }
    assert_eq!(store.problem(), None);
    let kept = store.snapshots();
    let base = kept.first().expect("snapshots").sequence;
    println!(
        "{events} events: {} snapshots, {} events kept, longest save {longest:?}",
        kept.len(),
        events - base
    );
    assert!(events - base <= retention.events_max + SNAPSHOT_EVENTS);
    assert!(kept.len() <= retention.snapshots_max);
    times.sort();
    (times, largest)
}

#[test]
fn the_past_is_bounded_on_the_disk_and_what_commits_take_is_printed() {
    let count = std::env::var("PALISADE_STATE_COST");
    let count = count.map_or(1_200, |text| text.parse().expect("a number"));
    let none = Retention {
        snapshots_max: 1,
        ..RETENTION
    };
    for (name, retention) in [("newest snapshot only", none), ("the past", RETENTION)] {
        let (times, largest) = run(count, &retention);
        let at = |part: usize| times[(times.len() - 1) * part / 1_000];
        println!(
            "{name}: commit median {:?}, 99 % {:?}, 99.9 % {:?}; at most {} KiB on the disk",
            at(500),
            at(990),
            at(999),
            largest >> 10
        );
        // sled's own waste is bounded by the rewrite.
        assert!(largest < 5 * RETENTION.bytes_max, "{largest} bytes");
    }
}
