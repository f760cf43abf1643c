//! What is kept of the past, and that no death between two writes tears it.

use super::*;
use crate::journal::Replay;
use crate::memory::MemoryDisk;

const RETENTION: Retention = Retention {
    events_max: 12,
    snapshots_max: 3,
    bytes_max: 1 << 20,
    age_ms_max: 1_000,
    events_min: 0,
};

/// The state of the test's machine after `sequence` events: their sum.
fn state(sequence: u64) -> u64 {
    (1..=sequence).sum()
}

fn save(store: &Store, sequence: u64, now_ms: u64) -> Result<(), StoreError> {
    // Larger than a chunk, so that a snapshot takes several writes.
    let bytes = format!("{}{}", "0".repeat(150_000), state(sequence));
    let new = NewSnapshot {
        sequence,
        revision: sequence,
        begins: false,
        newest_event_ms: now_ms,
        bytes: bytes.as_bytes(),
    };
    store.save_snapshot(&new, &RETENTION, now_ms)
}

/// Some life: groups of events, each flushed, now and then a snapshot; what is
/// waste goes a few records at a time. Ends when the process dies. Returns the
/// last sequence that was acknowledged.
fn live(store: &Store, events: u64) -> u64 {
    let mut acknowledged = 0;
    for number in 1..=events {
        let appended = store.append(&(number * 7));
        if appended.is_err() || store.note(&number, 20).is_err() {
            return acknowledged;
        }
        if number % 2 == 0 {
            match store.flush() {
                Ok(durable) => acknowledged = durable,
                Err(_) => return acknowledged,
            }
        }
        if number % 5 == 0 && save(store, number, number).is_err() {
            return acknowledged;
        }
        if store.sweep(3).is_err() {
            return acknowledged;
        }
    }
    acknowledged
}

/// Every snapshot that is kept is whole and says what is true, and no event
/// behind the oldest is missing.
#[track_caller]
fn check(store: &Store, acknowledged: u64) {
    let kept = store.snapshots();
    assert!(kept.len() <= RETENTION.snapshots_max);
    for snapshot in &kept {
        let loaded = store.snapshot(snapshot).expect("it is whole");
        let text = String::from_utf8(loaded.bytes).expect("a number");
        assert_eq!(text.parse(), Ok(state(snapshot.sequence)));
    }
    let base = kept.first().map_or(0, |kept| kept.sequence);
    let replay: Replay<u64> = store.journal_after(base).expect("it reads");
    assert_eq!(replay.problem, None);
    for (place, (sequence, body)) in (base + 1..).zip(&replay.events) {
        assert_eq!((*sequence, *body), (place, place * 7));
    }
    let last = base + replay.events.len() as u64;
    assert_eq!(last, store.appended());
    assert!(last >= acknowledged, "{acknowledged} was acknowledged");
}

#[test]
fn what_is_kept_stays_within_the_limits() {
    let store = Store::on(MemoryDisk::new()).expect("opens");
    live(&store, 60);
    let kept: Vec<u64> = store.snapshots().iter().map(|kept| kept.sequence).collect();
    assert_eq!(kept, [50, 55, 60]);
    while store.sweep(1).expect("deletes") > 0 {}
    // The last is 60: the base and what is behind it.
    let (mut events, mut chunks) = (0, 0);
    let backend = store.backend.read();
    backend
        .visit(key::JOURNAL, &mut |_, _| events += 1)
        .expect("reads");
    backend
        .visit(key::CHUNK, &mut |_, _| chunks += 1)
        .expect("reads");
    drop(backend);
    assert_eq!((events, chunks), (10, 6));
    check(&store, 60);
    save(&store, 61, 5_000).expect("saves");
    let kept = store.snapshots();
    assert_eq!(kept.len(), 2, "older than the limit: {kept:?}");
}

#[test]
fn a_death_between_any_two_writes_leaves_a_whole_past() {
    let mut deaths = 0;
    for writes in 0.. {
        let before = deaths;
        for kept in [0, 1, 2, usize::MAX] {
            let disk = MemoryDisk::new();
            let store = Store::on(disk.clone()).expect("opens");
            disk.die_after(writes);
            let acknowledged = live(&store, 26);
            let is_dead = disk.is_dead();
            disk.crash(kept);
            let store = Store::on(disk.clone()).expect("opens again");
            check(&store, acknowledged);
            // The next life goes on from there and cleans up.
            save(&store, store.appended(), 41).expect("saves");
            check(&store, acknowledged);
            while store.sweep(2).expect("deletes") > 0 {}
            check(&store, acknowledged);
            if is_dead {
                deaths += 1;
            }
        }
        if deaths == before {
            // It lived to the end.
            break;
        }
    }
    assert!(deaths > 300, "it hardly ever died: {deaths}");
}

#[test]
fn a_failed_flush_of_the_head_drops_nothing_too_early() {
    for failing in 1..=3 {
        let disk = MemoryDisk::new();
        let store = Store::on(disk.clone()).expect("opens");
        live(&store, 21);
        disk.fail_flushes(failing);
        while save(&store, store.appended(), 22).is_err() {
            store.sweep(usize::MAX).expect("deletes");
            check(&store, 20);
        }
        store.sweep(usize::MAX).expect("deletes");
        check(&store, 20);
        disk.crash(0);
        check(&Store::on(disk).expect("opens"), 20);
    }
}

#[test]
fn a_snapshot_of_an_older_agent_is_the_base() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    let chunk = encode(RecordKind::SnapshotChunk, b"old").expect("small");
    disk.put(&key::chunk(3, 0), chunk).expect("puts");
    let body = br#"{"sequence":3,"chunks":1,"bytes":3}"#;
    let head = encode(RecordKind::SnapshotHead, body).expect("small");
    disk.put(&key::record(RecordKind::SnapshotHead, 0), head)
        .expect("puts");
    drop(store);
    let store = Store::on(disk).expect("opens");
    assert_eq!(store.appended(), 3);
    let loaded = store.load_snapshot().expect("loads").expect("there is one");
    assert_eq!(loaded.bytes, b"old");
    store.append(&28).expect("appends");
    save(&store, 4, 0).expect("saves");
    let kept: Vec<u64> = store.snapshots().iter().map(|kept| kept.sequence).collect();
    assert_eq!(kept, [3, 4]);
    // And the older agent reads what this one wrote.
    #[derive(Deserialize)]
    struct OldHead {
        sequence: u64,
        chunks: u32,
        bytes: u64,
    }
    let head: OldHead = store
        .get(RecordKind::SnapshotHead, 0)
        .expect("reads")
        .expect("there is one");
    assert_eq!((head.sequence, head.chunks, head.bytes), (4, 2, 150_002));
}

#[test]
fn a_suspended_store_keeps_its_past() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    let mut acknowledged = live(&store, 20);
    store.suspend("disk full");
    check(&store, acknowledged);
    for number in 21..=40 {
        acknowledged = store.append(&(number * 7)).expect("appends");
        if number % 4 == 0 {
            save(&store, number, 0).expect("saves");
            while store.sweep(3).expect("deletes") > 0 {}
        }
        check(&store, acknowledged);
    }
    assert!(store.resume().expect("resumes"));
    check(&store, acknowledged);
    disk.crash(0);
    check(&Store::on(disk).expect("opens"), acknowledged);
}

#[test]
fn notes_are_numbered_over_restarts_and_limited() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    for number in 1..=5_u64 {
        assert_eq!(store.note(&number, 3).expect("adds"), number);
    }
    store.flush().expect("flushes");
    disk.crash(0);
    let store = Store::on(disk.clone()).expect("opens");
    assert_eq!(store.last_note(), 5);
    let notes = |store: &Store| store.notes_from::<u64>(0).expect("reads");
    assert_eq!(notes(&store), [(3, Some(3)), (4, Some(4)), (5, Some(5))]);
    disk.damage(key::NOTE, |bytes| bytes.truncate(12));
    assert_eq!(notes(&store)[0], (3, None));
    store.drop_notes(3..5).expect("drops");
    assert_eq!(notes(&store), [(5, None)]);
    assert_eq!(store.note(&6_u64, 3).expect("adds"), 6);
}
