//! Damaged databases: whatever was done to the files, opening is contained, no
//! event comes back other than it was, and what is written afterwards lasts.

use std::fs;
use std::path::{Path, PathBuf};

use palisade_state::{AuditFlag, AuditRecord, NewSnapshot, Retention, Store};

const EVENTS: u64 = 400;
/// Damages by default; `PALISADE_STATE_DAMAGES` makes it more.
const DAMAGES: u64 = 60;

/// A small generator, so that a damage can be repeated by its number.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

fn event(number: u64) -> String {
    format!("event {number} {}", "x".repeat(size(number % 700)))
}

fn audit() -> AuditRecord {
    AuditRecord {
        agent: AuditFlag::Enabled,
        ..AuditRecord::default()
    }
}

/// A store with events, a snapshot in the middle of them and audit options.
fn build(dir: &Path) {
    let store = Store::open(dir).expect("opens");
    store.put_audit(&audit()).expect("puts");
    let retention = Retention {
        events_max: EVENTS,
        snapshots_max: 2,
        bytes_max: 64 << 20,
        age_ms_max: u64::MAX,
        events_min: 0,
    };
    for number in 1..=EVENTS {
        store.append(&event(number)).expect("appends");
        if number % 10 == 0 {
            store.flush().expect("flushes");
        }
        if number == EVENTS / 2 {
            let new = NewSnapshot {
                sequence: number,
                revision: number,
                begins: false,
                newest_event_ms: 0,
                bytes: &vec![b's'; 300 << 10],
            };
            store.save_snapshot(&new, &retention, 0).expect("saves");
        }
    }
    store.flush().expect("flushes");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Every file of the database, the log first.
fn files(journal: &Path) -> Vec<PathBuf> {
    let mut files = vec![journal.join("db"), journal.join("conf")];
    for folder in [journal.to_owned(), journal.join("blobs")] {
        for entry in fs::read_dir(folder).expect("reads").flatten() {
            if entry.path().is_file() && !files.contains(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    files
}

/// Damages one file; returns what was done, for the message.
fn damage(journal: &Path, random: &mut Random) -> String {
    let files = files(journal);
    // The log is what matters most.
    let place = match random.below(3) {
        0 => size(random.below(files.len() as u64)),
        _ => 0,
    };
    let path = &files[place];
    let mut bytes = fs::read(path).expect("reads");
    let length = bytes.len() as u64;
    let what = match random.below(6) {
        0 => {
            bytes.truncate(size(random.below(length)));
            format!("cut to {} of {length}", bytes.len())
        }
        1 => {
            let count = 1 + random.below(20);
            for _ in 0..count {
                let at = size(random.below(length));
                bytes[at] ^= 1 << random.below(8);
            }
            format!("{count} bits flipped")
        }
        2 => {
            let from = random.below(length);
            let to = from + random.below(length - from + 1);
            bytes[size(from)..size(to)].fill(0);
            format!("{from}..{to} zeroed")
        }
        3 => {
            let from = random.below(length);
            let to = from + random.below(4_096.min(length - from) + 1);
            for byte in &mut bytes[size(from)..size(to)] {
                *byte = random.byte();
            }
            format!("{from}..{to} garbage")
        }
        4 => {
            let more = random.below(1 << 20);
            bytes.extend((0..more).map(|_| random.byte()));
            format!("{more} bytes of garbage behind it")
        }
        _ => {
            fs::remove_file(path).expect("removes");
            return format!("{} removed", path.display());
        }
    };
    fs::write(path, bytes).expect("writes");
    format!("{}: {what}", path.display())
}

#[test]
fn no_damage_gets_out_of_the_store() {
    let original = tempfile::tempdir().expect("temporary directory");
    build(original.path());
    let count = std::env::var("PALISADE_STATE_DAMAGES").ok();
    let count = count.map_or(DAMAGES, |count| count.parse().expect("a number"));
    let (mut whole, mut lost) = (0, 0);
    for number in 1..=count {
        let dir = tempfile::tempdir().expect("temporary directory");
        copy_folder(original.path(), dir.path());
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let what = damage(&dir.path().join("journal"), &mut random);
        let what = format!("damage {number}, {what}");
        let found = check(dir.path(), &what);
        whole += u64::from(found == EVENTS);
        lost += u64::from(found < EVENTS);
    }
    println!("{count} damages: {whole} harmless, {lost} cost events");
    assert!(lost > 0, "nothing was damaged");
}

/// Opens a damaged store; returns the last event that can be had.
fn check(dir: &Path, what: &str) -> u64 {
    let store = Store::open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(store.audit().expect("reads"), audit(), "{what}");
    let mut last = 0;
    for kept in store.snapshots() {
        if let Ok(snapshot) = store.snapshot(&kept) {
            let right = snapshot.bytes.iter().all(|byte| *byte == b's');
            assert!(right, "{what}: another snapshot");
            last = kept.sequence;
        }
    }
    let replay = store.journal_after::<String>(last).expect("reads");
    // A log that was cut is one whose end was never written: what is there is
    // right, and that it is less is told by the kernel's newer revision.
    for (sequence, found) in replay.events {
        assert_eq!(found, event(sequence), "{what}");
        last = sequence;
    }
    let sequence = store.append(&"after").expect("appends");
    let durable = store
        .flush()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(durable, sequence, "{what}");
    drop(store);
    let store = Store::open(dir).expect("opens");
    let replay = store.journal_after::<String>(sequence - 1).expect("reads");
    assert_eq!(replay.events, [(sequence, "after".to_owned())], "{what}");
    last
}
