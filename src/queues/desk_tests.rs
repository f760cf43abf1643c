//! The order of changes, and that a record forgets nothing.

use super::*;
use crate::events::{Origin, Resource, ResourceKey, ResourceKind};
use crate::policy::EnforcementMode;

fn upsert(source: SourceName, name: &str, port: u16) -> RepositoryChange {
    RepositoryChange::Upsert(Resource {
        key: key(name),
        source,
        origin: Origin::default(),
        body: serde_json::json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {},
                "ingress": [{"toPorts": [{"ports": [{"port": port.to_string()}]}]}],
            },
        })
        .into(),
    })
}

fn delete(source: SourceName, name: &str) -> RepositoryChange {
    RepositoryChange::Delete {
        key: key(name),
        source,
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: name.to_owned(),
    }
}

fn started() -> JournalEvent {
    JournalEvent::Started {
        sources: BTreeSet::from([SourceName::Manifests, SourceName::Etcd]),
        options: None,
        options_wait: false,
        audit: None,
        endpoints: Vec::new(),
        accepted_ms: 0,
    }
}

/// Takes events one after the other, numbered from 1.
fn take(desk: &mut Desk, events: &[JournalEvent]) -> Vec<Done> {
    (1..)
        .zip(events)
        .flat_map(|(sequence, event)| desk.take(Sequence(sequence), event.clone()))
        .collect()
}

fn change(change: RepositoryChange) -> JournalEvent {
    JournalEvent::Change {
        accepted_ms: 0,
        change,
    }
}

fn in_sync(source: SourceName) -> JournalEvent {
    JournalEvent::InSync {
        source,
        accepted_ms: 0,
    }
}

fn names(desk: &Desk) -> Vec<String> {
    let snapshot = desk.repository.snapshot();
    snapshot
        .policies
        .keys()
        .map(|key| key.name.clone())
        .collect()
}

#[test]
fn deletions_wait_for_every_source_and_are_off_when_the_resource_is_back() {
    let mut desk = Desk::new(PolicyOptions::default());
    let done = take(
        &mut desk,
        &[
            change(upsert(SourceName::Manifests, "a", 1)),
            started(),
            change(delete(SourceName::Manifests, "a")),
            in_sync(SourceName::Manifests),
        ],
    );
    assert!(done.contains(&Done::Deferred {
        sequence: Sequence(3)
    }));
    assert!(!desk.is_open());
    assert_eq!(names(&desk), ["a"]);
    let mut other = Desk::import(desk.export(), &PolicyOptions::default()).expect("imports");

    let done = desk.take(Sequence(5), in_sync(SourceName::Etcd));
    assert_eq!(done.last(), Some(&Done::GateOpened));
    assert!(names(&desk).is_empty());

    let back = change(upsert(SourceName::Manifests, "a", 2));
    other.take(Sequence(5), back);
    other.take(Sequence(6), in_sync(SourceName::Etcd));
    assert_eq!(names(&other), ["a"]);
}

#[test]
fn another_source_takes_a_key_over_after_its_owner_has_let_go() {
    let mut desk = Desk::new(PolicyOptions::default());
    take(
        &mut desk,
        &[
            change(upsert(SourceName::Manifests, "a", 1)),
            started(),
            change(delete(SourceName::Manifests, "a")),
            change(upsert(SourceName::Etcd, "a", 2)),
            in_sync(SourceName::Etcd),
            in_sync(SourceName::Manifests),
        ],
    );
    let snapshot = desk.repository.snapshot();
    let owner = snapshot.policies[&key("a")].resource.source;
    assert_eq!(owner, SourceName::Etcd);
    assert!(snapshot.refused.is_empty());
}

#[test]
fn a_replay_in_parts_equals_the_whole() {
    let events = [
        started(),
        change(upsert(SourceName::Manifests, "a", 1)),
        change(upsert(SourceName::Manifests, "b", 2)),
        change(delete(SourceName::Manifests, "a")),
        in_sync(SourceName::Manifests),
        in_sync(SourceName::Etcd),
        started(),
        change(delete(SourceName::Manifests, "b")),
    ];
    let mut whole = Desk::new(PolicyOptions::default());
    take(&mut whole, &events);
    for cut in 0..events.len() {
        let mut first = Desk::new(PolicyOptions::default());
        take(&mut first, &events[..cut]);
        let text = serde_json::to_string(&first.export()).expect("serialises");
        let record = serde_json::from_str(&text).expect("parses");
        let mut second = Desk::import(record, &PolicyOptions::default()).expect("imports");
        for (place, event) in events.iter().enumerate().skip(cut) {
            second.take(Sequence(place as u64 + 1), event.clone());
        }
        assert_eq!(second.export(), whole.export(), "cut at {cut}");
    }
}

#[test]
fn other_options_are_a_revision_and_lasting() {
    let mut desk = Desk::new(PolicyOptions::default());
    take(&mut desk, &[change(upsert(SourceName::Manifests, "a", 1))]);
    let before = desk.repository.revision();
    let with = |enforcement| JournalEvent::Started {
        sources: BTreeSet::new(),
        options: Some(Box::new(PolicyOptions {
            enforcement,
            node_labels: [("ignored".to_owned(), "here".to_owned())].into(),
            ..PolicyOptions::default()
        })),
        options_wait: false,
        audit: None,
        endpoints: Vec::new(),
        accepted_ms: 0,
    };
    let same = desk.take(Sequence(2), with(EnforcementMode::Default));
    assert_eq!(same, [Done::GateOpened]);
    assert_eq!(desk.repository.revision(), before);
    let mut seen = Vec::new();
    let event = with(EnforcementMode::Never);
    let done = desk.take_seeing(Sequence(3), event, &mut |repository| {
        seen.push(repository.revision());
    });
    let revision = before.next();
    assert_eq!(done, [Done::OptionsChanged { revision }, Done::GateOpened]);
    assert_eq!(seen, [revision]);
    let options = &desk.repository.snapshot().options;
    assert_eq!(options.enforcement, EnforcementMode::Never);
    assert!(options.node_labels.is_empty());
    // A record keeps them, whatever the reader's own are.
    let copy = Desk::import(desk.export(), &PolicyOptions::default()).expect("imports");
    assert_eq!(copy.export(), desk.export());
    let options = &copy.repository.snapshot().options;
    assert_eq!(options.enforcement, EnforcementMode::Never);
}

#[test]
fn records_of_older_agents_are_read() {
    let text = r#"{"Started":{"sources":["manifests"]}}"#;
    let event: JournalEvent = serde_json::from_str(text).expect("parses");
    assert_eq!(event.accepted_ms(), 0);
    let text = r#"{"InSync":{"source":"manifests"}}"#;
    let synced: JournalEvent = serde_json::from_str(text).expect("parses");
    let mut desk = Desk::new(PolicyOptions::default());
    assert_eq!(take(&mut desk, &[event, synced]), [Done::GateOpened]);
    let mut record = serde_json::to_value(desk.export()).expect("serialises");
    record.as_object_mut().expect("an object").remove("options");
    let record: DeskRecord = serde_json::from_value(record).expect("parses");
    let options = PolicyOptions {
        enforcement: EnforcementMode::Always,
        ..PolicyOptions::default()
    };
    let desk = Desk::import(record, &options).expect("imports");
    assert_eq!(desk.export().options, Some(Box::new(options)));
}
