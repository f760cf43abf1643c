//! Every door for bytes from outside, by name: each takes any bytes and must
//! neither panic nor hang. What it checks besides stands in each.
//!
//! One file for two users: the fuzz targets (`fuzz/`), and the test that
//! replays their corpus and their finds with every `cargo test`.

use std::net::IpAddr;

use palisade::api::question::question;
use palisade::config::{FileOptions, format_failsafe, parse_failsafe, parse_named_port};
use palisade::datapath::doors;
use palisade::events::{RepositoryChange, SourceName};
use palisade::limits::{MANIFEST_ERRORS_MAX, MANIFEST_OBJECTS_MAX};
use palisade::monitor::enrich;
use palisade::policy::documents::{self, FileReading};
use palisade::policy::{Applied, PolicyOptions, Repository, RepositoryRecord};
use palisade::queues::JournalEvent;
use palisade::sources::etcd;
use palisade_state::{RecordKind, decode, encode};

/// A door and its name, which is the name of its corpus too.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All doors.
pub(crate) const TARGETS: [Target; 10] = [
    ("yaml", yaml),
    ("json", json),
    ("policy", policy),
    ("envelope", envelope),
    ("journal", journal),
    ("repository_record", repository_record),
    ("netlink", netlink),
    ("events", events),
    ("options", options),
    ("etcd", etcd),
];

fn read(file: &str, bytes: &[u8]) -> FileReading {
    let reading = documents::read(file, bytes, SourceName::Manifests);
    assert!(reading.documents.len() <= MANIFEST_OBJECTS_MAX);
    assert!(reading.errors.len() <= MANIFEST_ERRORS_MAX + 1);
    for error in &reading.errors {
        assert!(error.line > 0 && error.column > 0, "no place: {error}");
        assert!(!error.reason.is_empty(), "no reason: {error}");
    }
    // Any path is looked for without harm.
    for document in &reading.documents {
        let _ = document.positions.get("spec.ingress[0].toPorts[0]");
    }
    reading
}

/// A YAML file.
pub(crate) fn yaml(bytes: &[u8]) {
    read("f.yaml", bytes);
}

/// A JSON file. What is read of it must be read of its own writing again.
pub(crate) fn json(bytes: &[u8]) {
    for document in read("f.json", bytes).documents {
        let text = document.resource.body.text().to_owned();
        let again = read("f.json", text.as_bytes());
        assert_eq!(again.documents.len(), 1, "{text}");
        assert_eq!(again.documents[0].resource.key, document.resource.key);
    }
}

/// A whole file, up to the repository.
pub(crate) fn policy(bytes: &[u8]) {
    let mut repository = Repository::new(PolicyOptions::default());
    for document in read("f.yaml", bytes).documents {
        let change = RepositoryChange::Upsert(document.resource);
        let mut errors = match repository.apply(&change) {
            Applied::Refused(refusal) => {
                assert!(!refusal.errors.is_empty(), "refused without a reason");
                refusal.errors
            }
            Applied::Changed(change) => change.warnings,
            Applied::Unchanged => Vec::new(),
        };
        document.positions.locate(&mut errors);
        // What was said once is said again: nothing changes.
        assert!(!matches!(repository.apply(&change), Applied::Changed(_)));
    }
}

const KINDS: [RecordKind; 9] = [
    RecordKind::JournalEvent,
    RecordKind::SnapshotHead,
    RecordKind::SnapshotChunk,
    RecordKind::Endpoint,
    RecordKind::Audit,
    RecordKind::Generations,
    RecordKind::Boot,
    RecordKind::Schema,
    RecordKind::Identity,
];

/// A record's envelope: what is decoded is encoded to the same bytes.
pub(crate) fn envelope(bytes: &[u8]) {
    for kind in KINDS {
        if let Ok((version, body)) = decode(kind, bytes)
            && version == kind.version()
        {
            assert_eq!(encode(kind, body).as_deref(), Ok(bytes));
        }
        // Any body survives its envelope.
        if let Ok(record) = encode(kind, bytes) {
            assert_eq!(decode(kind, &record), Ok((kind.version(), bytes)));
        }
    }
}

/// An event of the journal: what is read is written and read again.
pub(crate) fn journal(bytes: &[u8]) {
    if let Ok(event) = serde_json::from_slice::<JournalEvent>(bytes) {
        let text = serde_json::to_vec(&event).expect("an event can be written");
        let again: JournalEvent = serde_json::from_slice(&text).expect("and read again");
        assert_eq!(again, event);
        if let JournalEvent::Change { change, .. } = event {
            Repository::new(PolicyOptions::default()).apply(&change);
        }
    }
}

/// The repository in the journal's snapshot. A record that is accepted must be
/// usable.
pub(crate) fn repository_record(bytes: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<RepositoryRecord>(bytes)
        && let Ok(repository) = Repository::import(record, PolicyOptions::default())
    {
        let _ = repository.snapshot();
        let _ = repository.export();
    }
}

/// Answers of the kernel: messages, attributes, devices, sockets, connections.
pub(crate) fn netlink(bytes: &[u8]) {
    // What is understood is never more than there are bytes for.
    let attributes = doors::netlink(bytes);
    assert!(
        attributes <= 8 * bytes.len(),
        "{attributes} of {} bytes",
        bytes.len()
    );
    let _ = (
        doors::devices(bytes),
        doors::sockets(bytes),
        doors::connections(bytes),
    );
}

/// Records of the ring buffer, up to the monitor's event.
pub(crate) fn events(bytes: &[u8]) {
    for event in doors::events(bytes) {
        let decision = enrich(&event, None, String::new(), 0);
        assert!(!decision.verdict.is_empty());
        serde_json::to_string(&decision).expect("an event can be written");
    }
}

/// Texts of flags, of the configuration and of questions.
pub(crate) fn options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(entry) = parse_failsafe(text) {
        let shown = format_failsafe(&entry);
        assert_eq!(parse_failsafe(&shown), Ok(entry), "{shown}");
    }
    let _ = parse_named_port(text);
    let _ = FileOptions::parse("f.yaml", text, &["manifests".to_owned()]);
    let words: Vec<&str> = text.split('&').collect();
    if let [direction, peer, protocol, port, icmp_type] = words[..]
        && let Ok(peer) = peer.parse::<IpAddr>()
    {
        let _ = question(
            direction,
            peer,
            protocol,
            port.parse().ok(),
            icmp_type.parse().ok(),
        );
    }
}

/// A key of etcd, up to the end of the line, and its value: taken or refused with
/// one reason, as in a list so in a watch, and what is taken is what the
/// repository takes, or refuses with reasons.
pub(crate) fn etcd(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (key, value) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let Ok(key) = std::str::from_utf8(key) else {
        return;
    };
    let (changes, problems) = etcd::doors::hear(key, value);
    for problem in problems {
        assert!(problem.starts_with(key), "{problem}");
    }
    let mut repository = Repository::new(PolicyOptions::default());
    for change in changes {
        if let Applied::Refused(refusal) = repository.apply(&change) {
            assert!(!refusal.errors.is_empty(), "refused without a reason");
        }
    }
}
