//! What is rebuilt is what was live, bit for bit, from any snapshot that is
//! kept; and what is not kept is told.

use std::collections::{BTreeMap, BTreeSet};

use palisade_state::{AuditFlag, EndpointRecord, MemoryDisk, NewSnapshot, Retention};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::endpoint::HOST_ENDPOINT;
use crate::events::{Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};
use crate::policy::{EnforcementMode, FailsafeEntry, PolicySnapshot, Subject, resolve};
use crate::queues::desk::AuditState;

const RETENTION: Retention = Retention {
    events_max: 40,
    snapshots_max: 4,
    bytes_max: 1 << 20,
    age_ms_max: u64::MAX,
    events_min: 0,
};

/// One thing that happens to an agent.
#[derive(Clone, Debug)]
enum Step {
    Policy { name: u8, version: u8, etcd: bool },
    Delete { name: u8, etcd: bool },
    Node { version: u8 },
    Pod { name: u8, version: u8 },
    PodGone { name: u8 },
    Group { version: u8 },
    Labels { version: u8 },
    Addresses { version: u8 },
    InSync { etcd: bool },
    Restart { options: u8 },
    Audit { version: u8 },
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..5_u8, 0..9_u8, any::<bool>())
            .prop_map(|(name, version, etcd)| Step::Policy { name, version, etcd }),
        4 => (0..4_u8, any::<bool>()).prop_map(|(name, etcd)| Step::Delete { name, etcd }),
        1 => (0..3_u8).prop_map(|version| Step::Node { version }),
        3 => (0..3_u8, 0..3_u8).prop_map(|(name, version)| Step::Pod { name, version }),
        1 => (0..3_u8).prop_map(|name| Step::PodGone { name }),
        2 => (0..3_u8).prop_map(|version| Step::Group { version }),
        1 => (0..3_u8).prop_map(|version| Step::Labels { version }),
        1 => (0..3_u8).prop_map(|version| Step::Addresses { version }),
        3 => any::<bool>().prop_map(|etcd| Step::InSync { etcd }),
        1 => (0..4_u8).prop_map(|options| Step::Restart { options }),
        2 => (0..4_u8).prop_map(|version| Step::Audit { version }),
        2 => Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 1..90)
}

fn source(etcd: bool) -> SourceName {
    if etcd {
        SourceName::Etcd
    } else {
        SourceName::Manifests
    }
}

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: None,
        name: name.to_owned(),
    }
}

fn policy(name: u8, version: u8) -> (ResourceKey, Value) {
    let name = format!("policy-{name}");
    let prefix = format!("10.{version}.0.0/16");
    let section = match version {
        0 => json!({"ingress": [{"fromCIDR": [prefix]}]}),
        1 => json!({"ingress": [{"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": [prefix]}]}]}),
        2 => json!({"egressDeny": [{"toCIDR": ["10.2.0.0/16", "10.0.0.0/16"]}]}),
        3 => json!({"ingress": [{"toPorts": [{"ports": [{"port": "22", "protocol": "TCP"}]}]}]}),
        4 => json!({"egress": [{"toEntities": ["cluster"]}]}),
        // Refused.
        5 => json!({"ingress": [{"toPorts": [{"ports": [{"port": "99999"}]}]}]}),
        6 => json!({"ingress": [{"fromEndpoints": [{"matchLabels": {
            "app": "b", "k8s:io.kubernetes.pod.namespace": "shop",
        }}]}]}),
        7 => json!({"ingressDeny": [{"fromCIDRSet": [{"cidrGroupRef": "group"}]}]}),
        // Selects this node by some labels only.
        _ => json!({
            "nodeSelector": {"matchLabels": {"role": "b"}},
            "ingress": [{"fromCIDR": ["2001:db8::/32"]}],
        }),
    };
    let mut spec = json!({"nodeSelector": {}});
    let fields = section.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(fields);
    let body = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    });
    let kind = ResourceKind::CiliumClusterwideNetworkPolicy;
    (key(kind, &name), body)
}

fn node(version: u8) -> (ResourceKey, Value) {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "other"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("10.{version}.0.9")},
        ]},
    });
    (key(ResourceKind::Node, "other"), body)
}

fn pod(name: u8, version: u8) -> (ResourceKey, Value) {
    let text = format!("pod-{name}");
    let address = format!("10.50.{version}.{name}");
    let app = ["a", "b", "c"][usize::from(version)];
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": text,
            "namespace": "shop",
            "labels": {"app": app},
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    let key = ResourceKey {
        kind: ResourceKind::Pod,
        namespace: Some("shop".to_owned()),
        name: text,
    };
    (key, body)
}

fn group(version: u8) -> (ResourceKey, Value) {
    let body = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "group"},
        "spec": {"externalCIDRs": ["10.60.0.0/16", format!("10.{version}.0.0/16")]},
    });
    (key(ResourceKind::CiliumCIDRGroup, "group"), body)
}

fn options(version: u8) -> PolicyOptions {
    let failsafe = FailsafeEntry {
        direction: 0,
        proto: 6,
        port: 22,
        peer: Some("10.1.0.0/16".parse().expect("a prefix")),
    };
    PolicyOptions {
        node_name: "here".to_owned(),
        enforcement: if version == 1 {
            EnforcementMode::Always
        } else {
            EnforcementMode::Default
        },
        failsafe: if version >= 2 {
            vec![failsafe; usize::from(version) - 1]
        } else {
            Vec::new()
        },
        ..PolicyOptions::default()
    }
}

fn event(step: &Step) -> Option<JournalEvent> {
    let upsert = |(key, body): (_, Value), source| {
        let origin = Origin::default();
        RepositoryChange::Upsert(Resource {
            key,
            source,
            origin,
            body: body.into(),
        })
    };
    let change = match step {
        Step::Policy {
            name,
            version,
            etcd,
        } => upsert(policy(*name, *version), source(*etcd)),
        Step::Delete { name, etcd } => RepositoryChange::Delete {
            key: policy(*name, 0).0,
            source: source(*etcd),
        },
        Step::Node { version } => upsert(node(*version), SourceName::Manifests),
        Step::Pod { name, version } => upsert(pod(*name, *version), SourceName::Manifests),
        Step::PodGone { name } => RepositoryChange::Delete {
            key: pod(*name, 0).0,
            source: SourceName::Manifests,
        },
        Step::Group { version } => upsert(group(*version), SourceName::Manifests),
        Step::Labels { version } => {
            let role = ["a", "b", "c"][usize::from(*version)].to_owned();
            RepositoryChange::NodeLabels([("role".to_owned(), role)].into())
        }
        Step::Addresses { version } => RepositoryChange::LocalAddresses(vec![
            format!("10.{version}.0.1").parse().expect("an address"),
        ]),
        Step::InSync { etcd } => {
            return Some(JournalEvent::InSync {
                source: source(*etcd),
                accepted_ms: 0,
            });
        }
        Step::Restart { options: version } => {
            return Some(JournalEvent::Started {
                sources: BTreeSet::from([SourceName::Manifests, SourceName::Etcd]),
                options: Some(Box::new(options(*version))),
                options_wait: false,
                audit: Some(AuditState::default()),
                endpoints: vec![EndpointRecord {
                    id: HOST_ENDPOINT.0,
                    kind: "host".to_owned(),
                    identity: 1,
                    labels: Vec::new(),
                    desired: 0,
                }],
                accepted_ms: 0,
            });
        }
        Step::Audit { version } => {
            let mut audit = AuditState {
                flag: version % 2 == 1,
                ..AuditState::default()
            };
            if *version > 1 {
                audit.set.endpoints.insert(1, AuditFlag::Enabled);
            }
            return Some(JournalEvent::Audit {
                audit,
                endpoint: (*version > 1).then_some(HOST_ENDPOINT),
                accepted_ms: 0,
            });
        }
        Step::Snapshot => return None,
    };
    Some(JournalEvent::Change {
        accepted_ms: 0,
        change,
    })
}

/// An agent's repository with its store, and what it was at each revision.
struct Live {
    desk: Desk,
    store: Store,
    states: BTreeMap<Revision, PastState>,
}

impl Live {
    fn new() -> Self {
        let mut live = Self {
            desk: Desk::new(options(0)),
            store: Store::on(MemoryDisk::new()).expect("opens"),
            states: BTreeMap::new(),
        };
        live.step(&Step::Restart { options: 0 });
        live.step(&Step::Snapshot);
        live
    }

    fn step(&mut self, step: &Step) {
        let Some(event) = event(step) else {
            return self.save(false);
        };
        let sequence = Sequence(self.store.append(&event).expect("appends"));
        let states = &mut self.states;
        let circumstances = self.desk.circumstances().clone();
        self.desk.take_seeing(sequence, event, &mut |repository| {
            let state = PastState {
                repository: repository.clone(),
                circumstances: circumstances.clone(),
            };
            states.insert(repository.revision(), state);
        });
        let newest = PastState {
            repository: self.desk.repository.clone(),
            circumstances: self.desk.circumstances().clone(),
        };
        self.states.insert(newest.repository.revision(), newest);
    }

    fn save(&mut self, begins: bool) {
        let bytes = serde_json::to_vec(&self.desk.export()).expect("serialises");
        let new = NewSnapshot {
            sequence: self.store.appended(),
            revision: self.desk.repository.revision().0,
            begins,
            newest_event_ms: 0,
            bytes: &bytes,
        };
        let saved = self.store.save_snapshot(&new, &RETENTION, 0);
        saved.expect("saves");
        self.store.sweep(3).expect("deletes");
    }

    /// Every revision, from every snapshot that can lead to it.
    fn check(&self) {
        let kept = self.store.snapshots();
        let oldest = Revision(kept[0].revision);
        let foreign = options(3);
        for (revision, live) in &self.states {
            if *revision < oldest {
                let gone = rebuild(&self.store, *revision, &foreign).map(|_| ());
                let asked = *revision;
                assert_eq!(gone, Err(PastError::Gone { asked, oldest }));
                continue;
            }
            for count in 1..=kept.len() {
                let found = rebuild_from(&self.store, &kept[..count], *revision, &foreign);
                let found = found.unwrap_or_else(|error| panic!("{error}, {count} of {kept:?}"));
                assert_same(live, &found);
                // They follow from the rest: a sample is enough, they are large.
                if count == 1 && revision.0 % 5 == 0 {
                    assert_same_verdicts(live, &found);
                }
            }
        }
    }
}

fn assert_same(live: &PastState, found: &PastState) {
    assert_eq!(live.circumstances, found.circumstances);
    let (live, found) = (&live.repository, &found.repository);
    assert_eq!(live.export(), found.export());
    let (live, found) = (live.snapshot(), found.snapshot());
    // The labels in force are those of the host: an import moves them here.
    let plain = |snapshot: &PolicySnapshot| PolicyOptions {
        node_labels: BTreeMap::new(),
        ..PolicyOptions::clone(&snapshot.options)
    };
    assert_eq!(plain(&live), plain(&found));
    assert_eq!(live.host_labels, found.host_labels);
    assert_eq!(live.identities, found.identities);
    assert_eq!(live.ipcache4, found.ipcache4);
    assert_eq!(live.ipcache6, found.ipcache6);
    assert_eq!(live.rules, found.rules);
    assert_eq!(live.refused, found.refused);
}

/// In the audit mode that was in force.
fn assert_same_verdicts(live: &PastState, found: &PastState) {
    let verdicts = |state: &PastState| {
        let subject = Subject::Host(HOST_ENDPOINT);
        let audit = state.circumstances.audit.effective(HOST_ENDPOINT);
        resolve(&state.repository.snapshot(), subject, audit).expect("it fits")
    };
    let (live, found) = (verdicts(live), verdicts(found));
    assert_eq!(live, found);
    assert_eq!(fingerprint(&live), fingerprint(&found));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_rebuilt_is_what_was_live(steps in steps()) {
        let mut live = Live::new();
        for step in &steps {
            live.step(step);
        }
        live.check();
    }
}

/// A live repository of `count` policies, one revision each, with a snapshot
/// after every `span`.
fn grown(count: u8, span: u8) -> Live {
    let mut live = Live::new();
    live.step(&Step::InSync { etcd: false });
    live.step(&Step::InSync { etcd: true });
    for number in 1..=count {
        live.step(&Step::Policy {
            name: number,
            version: 3,
            etcd: false,
        });
        if number % span == 0 {
            live.save(false);
        }
    }
    live
}

#[test]
fn a_damaged_snapshot_costs_a_longer_replay() {
    let live = grown(12, 4);
    let mut kept = live.store.snapshots();
    let asked = Revision(13);
    let place = kept.len() - 1;
    assert_eq!(kept[place].revision, 13);
    kept[place].bytes += 1;
    let found = rebuild_from(&live.store, &kept, asked, &options(0)).expect("rebuilt");
    assert_same(&live.states[&asked], &found);
    assert_same_verdicts(&live.states[&asked], &found);
}

#[test]
fn no_replay_leads_over_a_snapshot_that_begins_anew() {
    let mut live = grown(6, 3);
    let known = live.desk.repository.revision();
    live.desk.continue_from(Revision(100));
    live.step(&Step::Restart { options: 0 });
    live.save(true);
    live.step(&Step::Labels { version: 1 });
    for revision in [Revision(2), known, Revision(100)] {
        let found = rebuild(&live.store, revision, &options(0)).expect("rebuilt");
        assert_eq!(found.repository.revision(), revision);
    }
    let error = rebuild(&live.store, Revision(50), &options(0)).map(|_| ());
    let text = error.expect_err("never there").to_string();
    assert!(text.starts_with("revision 50 cannot be rebuilt"), "{text}");
    let error = rebuild(&live.store, Revision(500), &options(0)).map(|_| ());
    let (asked, newest) = (Revision(500), live.desk.repository.revision());
    assert_eq!(error, Err(PastError::NotYet { asked, newest }));
}

#[test]
fn what_is_not_kept_is_told() {
    let live = grown(100, 5);
    let oldest = Revision(live.store.snapshots()[0].revision);
    assert!(oldest > Revision(50));
    let error = rebuild(&live.store, Revision(3), &options(0)).map(|_| ());
    let words = format!("revision 3 is no longer kept; the oldest one kept is {oldest}");
    assert_eq!(error.expect_err("gone").to_string(), words);
    assert!(rebuild(&live.store, oldest, &options(0)).is_ok());
    live.store.suspend("the disk is full");
    assert!(rebuild(&live.store, oldest, &options(0)).is_ok());
    let lost = Store::memory();
    lost.suspend("the disk is full");
    let error = rebuild(&lost, oldest, &options(0)).map(|_| ());
    let text = error.expect_err("forgotten").to_string();
    assert!(text.contains("the disk is full"), "{text}");
}

#[test]
fn a_journal_without_any_snapshot_is_replayed_from_its_first_start() {
    let mut live = Live {
        desk: Desk::new(options(2)),
        store: Store::on(MemoryDisk::new()).expect("opens"),
        states: BTreeMap::new(),
    };
    live.step(&Step::Restart { options: 2 });
    live.step(&Step::Labels { version: 1 });
    assert!(live.store.snapshots().is_empty());
    for (revision, state) in &live.states {
        let found = rebuild(&live.store, *revision, &PolicyOptions::default());
        assert_same(state, &found.expect("rebuilt"));
    }
    assert_eq!(live.states.len(), 2);
}

#[test]
fn the_steps_reach_pods_and_groups() {
    let mut live = grown(0, 1);
    let is_there = |live: &Live, prefix: &str| {
        let prefix: ipnet::Ipv4Net = prefix.parse().expect("a prefix");
        live.desk
            .repository
            .snapshot()
            .ipcache4
            .contains_key(&prefix)
    };
    live.step(&Step::Pod {
        name: 0,
        version: 1,
    });
    live.step(&Step::Group { version: 2 });
    for version in [6, 7] {
        live.step(&Step::Policy {
            name: version,
            version,
            etcd: false,
        });
    }
    assert!(live.desk.repository.snapshot().refused.is_empty());
    assert!(is_there(&live, "10.50.1.0/32"));
    assert!(is_there(&live, "10.60.0.0/16"));
    live.step(&Step::PodGone { name: 0 });
    assert!(!is_there(&live, "10.50.1.0/32"));
    live.check();
}

#[test]
fn a_fingerprint_is_of_the_verdicts() {
    let live = grown(3, 5);
    let of = |revision: u64| {
        let snapshot = live.states[&Revision(revision)].repository.snapshot();
        fingerprint(&resolve(&snapshot, Subject::Host(HOST_ENDPOINT), false).expect("it fits"))
    };
    assert_eq!(of(2), of(2));
    assert_ne!(of(1), of(2), "nothing was enforced");
    assert_eq!(of(2).len(), 64);
}
