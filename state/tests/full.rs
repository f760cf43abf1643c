//! Disks that are full or cannot be written: real ones, a few MiB of tmpfs in a
//! mount namespace of this test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use palisade_state::{AuditFlag, AuditRecord, NewSnapshot, Retention, Store};

const INSIDE: &str = "PALISADE_STATE_MOUNT";
const SIZE: &str = "size=32m";
/// Above some size sled writes pages into files of their own.
const SMALL_BYTES: usize = 1_500;
const LARGE_BYTES: usize = 40_000;

/// Runs the test of this name again, as root, in a mount namespace of its own
/// in which `dir` is a small tmpfs. True in there.
fn on_a_small_disk(name: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        let dir = PathBuf::from(dir);
        run("mount", &["-t", "tmpfs", "-o", SIZE, "none", text(&dir)]);
        return Some(dir);
    }
    if !fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0) {
        eprintln!("SKIPPED: mounting needs root, run `cargo xtask test`");
        return None;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let exe = std::env::current_exe().expect("this test");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(exe).args([name, "--exact", "--nocapture"]);
    let output = command.env(INSIDE, dir.path()).output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "{said}\n{errors}");
    None
}

fn text(path: &Path) -> &str {
    path.to_str().expect("plain")
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.expect("it starts").success(), "{program}");
}

/// Takes all the space that is left.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).expect("creates");
    for bytes in [1 << 20, 4 << 10] {
        let zeros = vec![0; bytes];
        while file.write_all(&zeros).is_ok() {}
    }
    path
}

fn event(number: u64, bytes: usize) -> String {
    format!("{number:0bytes$}")
}

/// Appends and flushes until a flush fails; returns the last one acknowledged.
fn until_it_fails(store: &Store, bytes: usize) -> u64 {
    for _ in 0..50_000 {
        let number = store.append(&event(store.appended() + 1, bytes));
        let number = number.expect("an append never waits for the disk");
        match store.flush() {
            Ok(durable) => assert_eq!(durable, number),
            Err(_) => return number - 1,
        }
    }
    panic!("the disk is never full");
}

/// Everything up to `last` is there, in order and whole.
fn check(store: &Store, last: u64, bytes: usize) {
    let replay = store.journal_after::<String>(0).expect("reads");
    assert_eq!(replay.problem, None);
    assert_eq!(replay.events.len() as u64, last);
    for (number, found) in replay.events {
        assert_eq!(found, event(number, bytes));
    }
}

#[test]
fn a_full_disk_is_met_before_a_write_fails_and_history_resumes() {
    let name = "a_full_disk_is_met_before_a_write_fails_and_history_resumes";
    if let Some(dir) = on_a_small_disk(name) {
        let acknowledged = full_and_back(&dir, SMALL_BYTES);
        assert!(acknowledged > 100, "space was reserved: {acknowledged}");
    }
}

#[test]
fn a_full_disk_is_met_by_large_events_too() {
    if let Some(dir) = on_a_small_disk("a_full_disk_is_met_by_large_events_too") {
        full_and_back(&dir, LARGE_BYTES);
    }
}

#[test]
fn a_disk_that_was_full_from_the_start_ends_as_any_other() {
    let name = "a_disk_that_was_full_from_the_start_ends_as_any_other";
    let Some(dir) = on_a_small_disk(name) else {
        return;
    };
    let state = dir.join("state");
    fs::create_dir(&state).expect("a directory");
    let filler = fill(&dir);
    let store = Store::open(&state).expect("opens");
    assert!(store.problem().is_some() && store.is_forgetful());
    let number = store.append(&event(1, SMALL_BYTES)).expect("in memory");
    // What cannot be written leaves nothing half done.
    assert!(store.put_builds_cut_off(1).is_err());
    assert!(!state.join("builds-cut-off.json.new").exists());
    fs::remove_file(filler).expect("room");
    assert!(store.resume().expect("resumes"));
    store.flush().expect("flushes");
    drop(store);
    assert!(state.join("identity.json").exists());
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None, "it is the one that it was");
    check(&store, number, SMALL_BYTES);
}

/// Fills the disk, goes on in memory, makes room again. Returns how many events
/// were acknowledged on the full disk.
fn full_and_back(dir: &Path, bytes: usize) -> u64 {
    let state = dir.join("state");
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None);
    let first = store.append(&event(1, bytes)).expect("appends");
    store.flush().expect("flushes");
    let ballast = fill(dir);
    let acknowledged = until_it_fails(&store, bytes);
    let failure = store.last_failure();
    assert!(failure.contains("no room for the journal"), "{failure}");
    assert!(failure.contains("os error 28"), "{failure}");
    assert_eq!(store.durable(), acknowledged);
    assert!(store.flush().is_err(), "it stays full");
    store.suspend(&failure);
    let appended = (0..100).fold(0, |_, _| {
        let number = store.append(&event(store.appended() + 1, bytes));
        store.flush().expect("enforcement does not wait");
        number.expect("appends")
    });
    assert_eq!(store.durable(), acknowledged, "nothing is promised");
    check(&store, appended, bytes);
    assert!(store.resume().is_err(), "it stays full");

    fs::remove_file(ballast).expect("removes");
    assert!(store.resume().expect("there is room"));
    assert_eq!((store.problem(), store.durable()), (None, appended));
    check(&store, appended, bytes);
    drop(store);
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None);
    check(&store, appended, bytes);
    acknowledged - first
}

#[test]
fn what_is_on_a_full_disk_is_read_at_the_next_start() {
    let Some(dir) = on_a_small_disk("what_is_on_a_full_disk_is_read_at_the_next_start") else {
        return;
    };
    let state = dir.join("state");
    let store = Store::open(&state).expect("opens");
    let audit = AuditRecord {
        agent: AuditFlag::Enabled,
        ..AuditRecord::default()
    };
    store.put_audit(&audit).expect("puts");
    let ballast = fill(&dir);
    let acknowledged = until_it_fails(&store, SMALL_BYTES);
    drop(store);
    // The reserve was kept for this moment.
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None);
    check(&store, acknowledged, SMALL_BYTES);
    drop(store);

    // Without it, a copy is read if sled needs any space.
    for reserve in ["reserve", "journal.broken-1"] {
        let _ = fs::remove_file(state.join(reserve));
    }
    let mut rest = File::options().append(true).open(&ballast).expect("opens");
    while rest.write_all(&[0; 4 << 10]).is_ok() {}
    // Else it would hold the space after its removal.
    drop(rest);
    let store = Store::open(&state).expect("opens");
    assert!(!state.join("journal.broken-1").exists(), "it is not broken");
    check(&store, acknowledged, SMALL_BYTES);
    assert_eq!(store.audit().expect("reads"), audit);
    store
        .append(&event(acknowledged + 1, SMALL_BYTES))
        .expect("goes on in memory");
    check(&store, acknowledged + 1, SMALL_BYTES);
    store.suspend("the disk is full");
    fs::remove_file(ballast).expect("removes");
    assert!(store.resume().expect("there is room"));
    drop(store);
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None);
    check(&store, acknowledged + 1, SMALL_BYTES);
}

#[test]
fn what_is_on_a_read_only_disk_is_read() {
    let Some(dir) = on_a_small_disk("what_is_on_a_read_only_disk_is_read") else {
        return;
    };
    let state = dir.join("state");
    let store = Store::open(&state).expect("opens");
    for number in 1..=50 {
        store.append(&event(number, SMALL_BYTES)).expect("appends");
    }
    store.flush().expect("flushes");
    drop(store);
    run("mount", &["-o", "remount,ro", text(&dir)]);
    let store = Store::open(&state).expect("opens");
    let problem = store.problem().expect("told");
    assert!(problem.contains("Read-only file system"), "{problem}");
    check(&store, 50, SMALL_BYTES);
    store
        .append(&event(51, SMALL_BYTES))
        .expect("goes on in memory");
    store.flush().expect("enforcement does not wait");
    assert_eq!(store.durable(), 50);
    assert!(store.resume().is_err(), "it stays read-only");
    check(&store, 51, SMALL_BYTES);
    run("mount", &["-o", "remount,rw", text(&dir)]);
    assert!(store.resume().expect("it can be written"));
    drop(store);
    let store = Store::open(&state).expect("opens");
    assert_eq!(store.problem(), None);
    check(&store, 51, SMALL_BYTES);
}

#[test]
fn a_rewrite_on_a_full_disk_leaves_nothing_and_loses_nothing() {
    let name = "a_rewrite_on_a_full_disk_leaves_nothing_and_loses_nothing";
    let Some(dir) = on_a_small_disk(name) else {
        return;
    };
    let state = dir.join("state");
    let store = Store::open(&state).expect("opens");
    let snapshot = vec![b'x'; 200 << 10];
    let retention = Retention {
        events_max: 1 << 20,
        snapshots_max: 2,
        bytes_max: 8 << 20,
        age_ms_max: u64::MAX,
        events_min: 0,
    };
    let _ballast = fill(&dir);
    let acknowledged = until_it_fails(&store, SMALL_BYTES);
    let failed = store.save_snapshot(
        &NewSnapshot {
            sequence: acknowledged,
            revision: acknowledged,
            begins: false,
            newest_event_ms: 0,
            bytes: &snapshot,
        },
        &retention,
        0,
    );
    failed.expect_err("there is no room for it");
    assert!(!state.join("journal.new").exists());
    drop(store);
    check(
        &Store::open(&state).expect("opens"),
        acknowledged,
        SMALL_BYTES,
    );
}
