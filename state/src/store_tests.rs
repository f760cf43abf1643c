//! The store on both media.

use std::collections::BTreeMap;

use super::*;
use crate::journal::Replay;
use crate::records::{AuditFlag, GenerationRecord};
use crate::retention::Retention;
use crate::snapshots::{NewSnapshot, Snapshot};

const RETENTION: Retention = Retention {
    events_max: 1_000,
    snapshots_max: 1,
    bytes_max: 1 << 20,
    age_ms_max: u64::MAX,
    events_min: 0,
};

fn save(store: &Store, sequence: u64, bytes: &[u8]) -> Result<(), StoreError> {
    let new = NewSnapshot {
        sequence,
        revision: sequence,
        begins: false,
        newest_event_ms: 0,
        bytes,
    };
    store.save_snapshot(&new, &RETENTION, 0)
}

fn events(store: &Store) -> Vec<(u64, String)> {
    store.journal().expect("journal reads").events
}

fn audit_on() -> AuditRecord {
    AuditRecord {
        agent: AuditFlag::Enabled,
        endpoints: BTreeMap::from([(1, AuditFlag::Disabled)]),
    }
}

#[test]
fn reopened_without_a_clean_shutdown_it_holds_what_was_flushed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.problem(), None);
    assert_eq!(store.append(&"one").expect("appends"), 1);
    assert_eq!(store.append(&"two").expect("appends"), 2);
    assert_eq!(store.durable(), 0);
    store.put_audit(&audit_on()).expect("puts");
    assert_eq!(store.flush().expect("flushes"), 2);
    assert_eq!(store.durable(), 2);
    let identity = store.identity().expect("reads");
    // sled's destructor would flush: copy the files as a kill leaves them.
    let copy = tempfile::tempdir().expect("temporary directory");
    copy_folder(dir.path(), copy.path());
    let again = Store::open(copy.path()).expect("opens");
    assert_eq!(again.problem(), None);
    assert_eq!(
        events(&again),
        vec![(1, "one".to_owned()), (2, "two".to_owned())]
    );
    assert_eq!(again.audit().expect("reads"), audit_on());
    assert_eq!(again.identity().expect("reads"), identity);
    assert_eq!(again.append(&"three").expect("appends"), 3);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("reads").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

#[test]
fn a_second_agent_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let _first = Store::open(dir.path()).expect("opens");
    let error = Store::open(dir.path()).expect_err("locked");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_corrupted_database_is_set_aside() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(dir.path()).expect("opens");
    store.put_audit(&audit_on()).expect("puts");
    for number in 0..2_000_u32 {
        store.append(&format!("event {number}")).expect("appends");
    }
    store.flush().expect("flushes");
    drop(store);
    let file = dir.path().join("journal/db");
    let length = std::fs::metadata(&file).expect("exists").len();
    std::fs::write(&file, vec![0xa5; usize::try_from(length).expect("small")]).expect("writes");
    let store = Store::open(dir.path()).expect("contained");
    // sled takes a log without one valid message for an empty one, or gives up:
    // both are told, and the audit options are there.
    assert!(events(&store).is_empty());
    let problem = store.problem().expect("told");
    let words = ["journal.broken-1", "lost or swapped"];
    assert!(words.iter().any(|word| problem.contains(word)), "{problem}");
    assert_eq!(store.audit().expect("reads"), audit_on());
    assert_eq!(store.append(&"after").expect("appends"), 1);
    store.flush().expect("flushes");
}

#[test]
fn a_foreign_configuration_file_is_set_aside() {
    let dir = tempfile::tempdir().expect("temporary directory");
    drop(Store::open(dir.path()).expect("opens"));
    std::fs::write(dir.path().join("journal/conf"), b"garbage\xff\xfe").expect("writes");
    let store = Store::open(dir.path()).expect("contained");
    let problem = store.problem().expect("reported");
    assert!(problem.contains("journal.broken-1"), "{problem}");
    assert!(dir.path().join("journal.broken-1").exists());
    assert_eq!(store.append(&"after").expect("appends"), 1);
}

#[test]
fn a_directory_that_cannot_be_had_leaves_an_agent_without_history() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let store = Store::open(&file.path().join("state")).expect("contained");
    let problem = store.problem().expect("reported");
    assert!(problem.contains("without history"), "{problem}");
    assert_eq!(store.append(&"event").expect("appends"), 1);
}

#[test]
fn a_crash_loses_only_what_was_not_flushed() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    store.append(&"kept").expect("appends");
    store.flush().expect("flushes");
    store.append(&"lost").expect("appends");
    disk.crash(0);
    let store = Store::on(disk.clone()).expect("opens");
    assert_eq!(events(&store), vec![(1, "kept".to_owned())]);
    store.append(&"perhaps").expect("appends");
    disk.crash(1);
    let store = Store::on(disk).expect("opens");
    assert_eq!(events(&store).len(), 2);
}

#[test]
fn a_failed_flush_promises_nothing() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    store.append(&"event").expect("appends");
    disk.fail_flushes(1);
    assert!(store.flush().is_err());
    assert_eq!(store.durable(), 0);
    assert_eq!(store.flush().expect("flushes"), 1);
    assert_eq!(store.durable(), 1);
}

#[test]
fn a_suspended_store_counts_on_promises_nothing_and_misses_nothing() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    store.append(&"one").expect("appends");
    store.flush().expect("flushes");
    store.append(&"two").expect("appends");
    disk.fail_flushes(1);
    store.flush().expect_err("the disk fails");
    store.suspend("disk full");
    assert!(store.is_forgetful());
    let problem = store.problem().expect("reported");
    assert!(problem.contains("disk full"), "{problem}");
    assert!(problem.contains("since event 1"), "{problem}");
    assert_eq!(store.append(&"three").expect("appends"), 3);
    store.put_audit(&audit_on()).expect("puts");
    assert_eq!(store.flush().expect("waits for nothing"), 1);
    assert_eq!(store.durable(), 1, "nothing is promised");
    let expected = [(1, "one"), (2, "two"), (3, "three")];
    let found = events(&store);
    let found: Vec<(u64, &str)> = found.iter().map(|(n, text)| (*n, text.as_str())).collect();
    assert_eq!(found, expected);

    disk.fail_flushes(1);
    store.resume().expect_err("the disk still fails");
    assert!(store.is_forgetful());
    assert!(store.resume().expect("the disk is well"));
    assert!(!store.resume().expect("nothing is left to do"));
    assert_eq!((store.durable(), store.problem()), (3, None));
    disk.crash(0);
    let store = Store::on(disk).expect("opens");
    let found = events(&store);
    let found: Vec<(u64, &str)> = found.iter().map(|(n, text)| (*n, text.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(store.audit().expect("reads"), audit_on());
}

#[test]
fn a_torn_or_damaged_event_ends_the_replay() {
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(14),
        |bytes: &mut Vec<u8>| *bytes.last_mut().expect("a body") ^= 1,
    ] {
        let disk = MemoryDisk::new();
        let store = Store::on(disk.clone()).expect("opens");
        store.append(&"event").expect("appends");
        disk.damage(key::JOURNAL, damage);
        let replay: Replay<String> = store.journal().expect("journal reads");
        assert!(replay.events.is_empty());
        assert!(replay.problem.is_some());
    }
}

#[test]
fn a_snapshot_replaces_the_events_it_covers() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    for number in 1..=5 {
        store.append(&number.to_string()).expect("appends");
    }
    let bytes = vec![7; 300 << 10];
    save(&store, 3, &bytes).expect("saves");
    disk.crash(0);
    let store = Store::on(disk.clone()).expect("opens");
    let kept: Vec<u64> = events(&store).iter().map(|(number, _)| *number).collect();
    assert_eq!(kept, [4, 5]);
    let snapshot = store.load_snapshot().expect("loads").expect("there is one");
    assert_eq!(snapshot, Snapshot { sequence: 3, bytes });
    save(&store, 5, b"small").expect("saves");
    store.flush().expect("flushes");
    disk.crash(0);
    let store = Store::on(disk.clone()).expect("opens");
    assert!(events(&store).is_empty());
    assert_eq!(store.appended(), 5);
    assert_eq!(store.append(&"six").expect("appends"), 6);
    disk.damage(key::CHUNK, |bytes| bytes.truncate(3));
    assert!(store.load_snapshot().is_err());
}

#[test]
fn a_crash_while_saving_leaves_the_old_snapshot() {
    let disk = MemoryDisk::new();
    let store = Store::on(disk.clone()).expect("opens");
    store.append(&"event").expect("appends");
    save(&store, 1, b"old").expect("saves");
    store.append(&"event").expect("appends");
    store.flush().expect("flushes");
    disk.fail_flushes(1);
    assert!(save(&store, 2, b"new").is_err());
    disk.crash(usize::MAX);
    let store = Store::on(disk).expect("opens");
    let snapshot = store.load_snapshot().expect("loads").expect("there is one");
    assert_eq!(snapshot.bytes, b"old");
    assert_eq!(events(&store).len(), 1);
}

#[test]
fn records_come_back() {
    let store = Store::memory();
    assert_eq!(store.audit().expect("reads"), AuditRecord::default());
    assert_eq!(store.endpoint(1).expect("reads"), None);
    let endpoint = EndpointRecord {
        id: 1,
        kind: "host".into(),
        identity: 1,
        labels: vec!["reserved:host".into()],
        desired: 7,
    };
    store.put_endpoint(&endpoint).expect("puts");
    assert_eq!(store.endpoint(1).expect("reads"), Some(endpoint));
    let generations = GenerationsRecord {
        staged: Some(GenerationRecord {
            audit: None,
            generation: 4,
            revision: 7,
            nonce: Some(3),
        }),
        realized: None,
        epoch: 9,
    };
    store.put_generations(&generations).expect("puts");
    assert_eq!(store.generations().expect("reads"), generations);
    let boot = BootRecord {
        boot_id: "b".into(),
    };
    store.put_boot(&boot).expect("puts");
    assert_eq!(store.boot().expect("reads"), Some(boot));
}

#[test]
fn an_event_over_its_limit_is_refused() {
    let store = Store::memory();
    let huge = "x".repeat(RecordKind::JournalEvent.body_bytes_max());
    let error = store.append(&huge).expect_err("too large");
    assert!(error.to_string().contains("exceeds its limit"), "{error}");
    assert_eq!(store.append(&"small").expect("appends"), 1);
}

#[test]
fn a_database_that_has_grown_is_rewritten_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let size = |dir: &Path| {
        let store = std::fs::metadata(dir.join("journal/db")).expect("exists");
        store.len()
    };
    let mut store = Store::open(dir.path()).expect("opens");
    let min = 2 << 20;
    store.compact_bytes_min = min;
    store.put_audit(&audit_on()).expect("puts");
    let body = "x".repeat(2 << 10);
    let (mut largest, mut rewritten) = (0, false);
    for round in 1..=24_u64 {
        for _ in 0..200 {
            store.append(&body).expect("appends");
            store.flush().expect("flushes");
        }
        let before = size(dir.path());
        largest = largest.max(before);
        let text = format!("{round}");
        save(&store, round * 200 - 1, text.as_bytes()).expect("saves");
        while store.sweep(100).expect("deletes") > 0 {}
        rewritten |= size(dir.path()) < before;
    }
    assert!(rewritten, "{largest}, {:?}", store.compacted_bytes);
    assert!(largest < min * 3, "{largest}: it only grows");
    assert_eq!(store.problem(), None);
    assert_eq!(events(&store).len(), 1);
    assert_eq!(store.append(&"next").expect("appends"), 4_801);
    store.flush().expect("flushes");
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.problem(), None);
    assert_eq!(events(&store).len(), 2);
    assert_eq!(store.audit().expect("reads"), audit_on());
    let snapshot = store.load_snapshot().expect("loads").expect("there is one");
    assert_eq!(snapshot.bytes, b"24");
    assert!(!dir.path().join("journal.old").exists());
    assert!(!dir.path().join("journal.new").exists());
}

#[test]
fn a_missing_event_ends_the_replay() {
    let store = Store::memory();
    for body in ["one", "two", "three"] {
        store.append(&body).expect("appends");
    }
    let lost = store.backend.read().delete(&key::journal(2));
    assert_eq!(lost, Ok(()));
    let replay: Replay<String> = store.journal().expect("journal reads");
    assert_eq!(replay.events, [(1, "one".to_owned())]);
    assert!(
        replay
            .problem
            .is_some_and(|problem| problem.contains("before 2"))
    );
}

#[test]
fn what_lives_is_not_rewritten_at_each_start() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = || std::fs::metadata(dir.path().join("journal/db")).expect("exists");
    let store = Store::open(dir.path()).expect("opens");
    // Small enough to stand in the file itself: sled has others for what is large.
    let body = "x".repeat(4 << 10);
    let many = COMPACT_BYTES_MIN / body.len() as u64 + 100;
    for _ in 0..many {
        store.append(&body).expect("appends");
    }
    store.flush().expect("flushes");
    let before = file();
    assert!(before.len() > COMPACT_BYTES_MIN);
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.problem(), None);
    assert_eq!(file().ino(), before.ino(), "the same file");
    assert_eq!(store.appended(), many);
}
