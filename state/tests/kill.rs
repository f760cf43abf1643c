//! What was acknowledged is there after kill -9 at any instant.
//!
//! The test runs itself as a child that appends, flushes in groups and prints
//! each acknowledged sequence; the parent kills it and reads the store.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use palisade_state::{NewSnapshot, Replay, Retention, Store};

const CHILD: &str = "PALISADE_STATE_TEST_CHILD";
/// Small, so that each life saves, thins and drops many times.
const RETENTION: Retention = Retention {
    events_max: 100,
    snapshots_max: 3,
    bytes_max: 1 << 20,
    age_ms_max: u64::MAX,
    events_min: 0,
};

#[test]
fn acknowledged_events_survive_sigkill() {
    if let Ok(dir) = std::env::var(CHILD) {
        acknowledge_forever(dir.as_ref());
    }
    for round in 0..5_u64 {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Later rounds kill a store that was killed before.
        for life in 1..=2_u64 {
            let acknowledged = run_and_kill(dir.path(), 20 + 37 * round * life);
            let store = Store::open(dir.path()).expect("the lock died with the child");
            assert_eq!(store.problem(), None, "round {round}, life {life}");
            let base = check_past(&store);
            let replay: Replay<u64> = store.journal_after(base).expect("journal reads");
            assert_eq!(replay.problem, None);
            let last = replay.events.last().map_or(base, |(sequence, _)| *sequence);
            assert!(
                last >= acknowledged,
                "round {round}, life {life}: {acknowledged} was acknowledged, {last} is there"
            );
            for (place, (sequence, body)) in (base + 1..).zip(&replay.events) {
                assert_eq!((*sequence, *body), (place, place));
            }
        }
    }
}

/// Each snapshot that is kept is whole; returns the sequence of the oldest.
fn check_past(store: &Store) -> u64 {
    let kept = store.snapshots();
    assert!(kept.len() <= RETENTION.snapshots_max);
    for snapshot in &kept {
        let loaded = store.snapshot(snapshot).expect("it is whole");
        assert_eq!(loaded.bytes, bytes_of(snapshot.sequence));
    }
    kept.first().map_or(0, |kept| kept.sequence)
}

/// More than one chunk.
fn bytes_of(sequence: u64) -> Vec<u8> {
    sequence.to_le_bytes().repeat(20_000)
}

/// Lets a child acknowledge at least `count` more events and kills it in the
/// middle of its work; returns the last acknowledged sequence.
fn run_and_kill(dir: &std::path::Path, count: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "acknowledged_events_survive_sigkill",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = child.stdout.take().expect("piped");
    let mut acknowledged = 0;
    let mut seen = 0;
    for line in BufReader::new(output).lines() {
        let line = line.expect("the child prints text");
        if let Some(number) = line.strip_prefix("acknowledged ") {
            acknowledged = number.parse().expect("a number");
            seen += 1;
            if seen == count / 4 {
                child.kill().expect("the child runs");
            }
        }
    }
    child.wait().expect("the child ends");
    assert!(seen >= count / 4, "the child ended by itself");
    acknowledged
}

fn acknowledge_forever(dir: &std::path::Path) -> ! {
    let store = Store::open(dir).expect("opens");
    let mut out = std::io::stdout();
    writeln!(out).expect("prints");
    loop {
        for _ in 0..4 {
            let body = store.appended() + 1;
            store.append(&body).expect("appends");
        }
        let sequence = store.flush().expect("flushes");
        if sequence.is_multiple_of(12) {
            let new = NewSnapshot {
                sequence,
                revision: sequence,
                begins: false,
                newest_event_ms: 0,
                bytes: &bytes_of(sequence),
            };
            store.save_snapshot(&new, &RETENTION, 0).expect("saves");
        }
        store.sweep(8).expect("deletes");
        writeln!(out, "acknowledged {sequence}").expect("prints");
        out.flush().expect("prints");
    }
}
