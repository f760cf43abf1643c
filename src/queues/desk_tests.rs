//! The order of changes, and that a record forgets nothing.

use super::*;
use crate::events::{Origin, Resource, ResourceKey, ResourceKind};

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
        }),
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
    JournalEvent::InSync { source }
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
    let mut other = Desk::import(desk.export(), PolicyOptions::default()).expect("imports");

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
        let mut second = Desk::import(record, PolicyOptions::default()).expect("imports");
        for (place, event) in events.iter().enumerate().skip(cut) {
            second.take(Sequence(place as u64 + 1), event.clone());
        }
        assert_eq!(second.export(), whole.export(), "cut at {cut}");
    }
}
