//! The facade: with real threads on a real store, and step by step.

use std::path::Path;
use std::thread::JoinHandle;

use palisade_state::MemoryDisk;
use serde_json::json;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::datapath::fake::{FakeKernel, Fault, KernelFate};
use crate::endpoint::{Enforcement, HOST_ENDPOINT};
use crate::events::{EndpointState, Origin, Outcome, Resource, ResourceKind};
use crate::limits::{FLUSH_ATTEMPTS_MAX, REPOSITORY_QUEUE_MAX};
use crate::queues::ChangeOutcome;

const SPAN: Duration = Duration::from_secs(20);

fn options() -> PipelineOptions {
    PipelineOptions {
        sources: BTreeSet::from([SourceName::Manifests]),
        policy: PolicyOptions {
            node_name: "here".to_owned(),
            ..PolicyOptions::default()
        },
        settings: DatapathSettings::default(),
        build_permits: 2,
        facts: NodeFacts::default(),
        boot_id: "boot".to_owned(),
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: name.to_owned(),
    }
}

fn policy(name: &str, port: &str) -> RepositoryChange {
    RepositoryChange::Upsert(Resource {
        key: key(name),
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {},
                "ingress": [{"toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}]}],
            },
        })
        .into(),
    })
}

fn delete(name: &str) -> RepositoryChange {
    RepositoryChange::Delete {
        key: key(name),
        source: SourceName::Manifests,
    }
}

/// An agent that is stepped.
struct Stepped {
    pipeline: Arc<Pipeline>,
    workers: Workers,
    clock: Arc<ManualClock>,
}

impl Stepped {
    fn start(kernel: &FakeKernel, disk: &MemoryDisk) -> Self {
        Self::start_with(options(), kernel, disk)
    }

    fn start_with(options: PipelineOptions, kernel: &FakeKernel, disk: &MemoryDisk) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Store::on(disk.clone()).expect("opens");
        let datapath = Box::new(kernel.datapath());
        let pipeline = Pipeline::start(options, datapath, store, clock.clone());
        let workers = pipeline.take_workers().expect("not yet taken");
        Self {
            pipeline,
            workers,
            clock,
        }
    }

    /// Steps until nothing is left to do now.
    fn settle(&mut self) {
        self.workers.settle(self.clock.as_ref());
    }

    fn submit(&mut self, change: RepositoryChange) -> ChangeOutcome {
        let submission = self.pipeline.submit(change).expect("taken");
        self.settle();
        submission.wait(Duration::ZERO).expect("answered")
    }

    fn in_sync(&mut self, owned: &[&str]) {
        let owned = owned.iter().map(|name| key(name)).collect();
        let told = self.pipeline.source_in_sync(SourceName::Manifests, &owned);
        assert_eq!(told, Ok(()));
        self.settle();
    }

    fn status(&self) -> EndpointStatus {
        self.pipeline.endpoint(HOST_ENDPOINT).expect("the host")
    }
}

fn threads(dir: &Path, kernel: &FakeKernel) -> (Arc<Pipeline>, Vec<JoinHandle<()>>) {
    let store = Store::open(dir).expect("opens");
    assert_eq!(store.problem(), None);
    let clock = Arc::new(SystemClock::default());
    let pipeline = Pipeline::start(options(), Box::new(kernel.datapath()), store, clock);
    let threads = Arc::clone(&pipeline)
        .workers()
        .into_iter()
        .map(|(name, run)| {
            assert!(name.len() <= 15, "{name} is too long for a thread");
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(run).expect("spawns")
        })
        .collect();
    (pipeline, threads)
}

fn stop(pipeline: &Pipeline, threads: Vec<JoinHandle<()>>) {
    pipeline.shutdown();
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn threads_and_sled_from_the_first_policy_to_a_restart_that_writes_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let kernel = FakeKernel::new();
    let (pipeline, running) = threads(dir.path(), &kernel);
    let owned = BTreeSet::from([key("a")]);
    let submission = pipeline.submit(policy("a", "22")).expect("taken");
    pipeline
        .source_in_sync(SourceName::Manifests, &owned)
        .expect("taken");
    let outcome = submission.wait(SPAN).expect("answered");
    let ChangeOutcome::Applied { revision, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(pipeline.wait_enforced(revision, SPAN), Ok(revision));
    let status = pipeline.endpoint(HOST_ENDPOINT).expect("the host");
    assert_eq!(status.state, EndpointState::Ready);
    assert_eq!(status.policy.ingress, Enforcement::Enabled);
    assert_eq!(status.policy.egress, Enforcement::Disabled);
    let writes = kernel.writes();
    let generation = pipeline.realized().expect("realized").generation;
    stop(&pipeline, running);
    drop(pipeline);

    let (pipeline, running) = threads(dir.path(), &kernel);
    assert_eq!(pipeline.repository().revision, revision);
    let names = pipeline.rules_of(generation).expect("named from the start");
    assert_eq!(names.enforcing[0], imbl::OrdSet::unit(key("a")));
    let again = pipeline.submit(policy("a", "22")).expect("taken");
    assert_eq!(again.sequence, None, "the same content is not news");
    pipeline
        .source_in_sync(SourceName::Manifests, &owned)
        .expect("taken");
    let ready = || {
        pipeline.status().waiting_for.is_empty()
            && pipeline
                .endpoint(HOST_ENDPOINT)
                .is_some_and(|host| host.state == EndpointState::Ready)
    };
    assert!(pipeline.shared.published.wait(SPAN, ready));
    assert_eq!(kernel.writes(), writes);
    assert_eq!(
        pipeline.realized().map(|now| now.generation),
        Some(generation)
    );
    stop(&pipeline, running);
}

#[test]
fn outcomes_tell_what_is_true() {
    let mut agent = Stepped::start(&FakeKernel::new(), &MemoryDisk::new());
    let unknown = agent.submit(delete("unknown"));
    assert!(matches!(unknown, ChangeOutcome::Unchanged { .. }));
    let added = agent.submit(policy("a", "22"));
    let revision = Revision(2);
    assert!(matches!(added, ChangeOutcome::Applied { revision: at, .. } if at == revision));
    assert_eq!(
        agent.pipeline.realized(),
        None,
        "not in sync, nothing to restore"
    );
    let deferred = agent.submit(delete("a"));
    assert!(matches!(deferred, ChangeOutcome::Deferred { .. }));
    let back = agent.submit(policy("a", "22"));
    assert!(matches!(back, ChangeOutcome::Unchanged { .. }), "{back:?}");
    agent.in_sync(&["a"]);
    assert_eq!(agent.status().revision.realized, revision);
    let refused = agent.submit(policy("a", "99999"));
    assert!(matches!(refused, ChangeOutcome::Refused { .. }));
    assert_eq!(agent.pipeline.refused().len(), 1);
    assert_eq!(agent.status().revision.realized, revision);
    let again = agent.pipeline.submit(policy("a", "99999")).expect("taken");
    assert_eq!(again.sequence, None);
    let deleted = agent.submit(delete("a"));
    assert!(matches!(deleted, ChangeOutcome::Applied { .. }));
    assert_eq!(agent.status().policy.ingress, Enforcement::Disabled);
    let words: Vec<String> = agent
        .pipeline
        .history()
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    for word in ["policy-add", "policy-refused", "policy-delete", "commit"] {
        assert!(words.iter().any(|found| found == word), "{word}: {words:?}");
    }
    let stats = agent.pipeline.queue_stats();
    assert_eq!(stats.len(), 3);
    assert_eq!(stats[0].capacity, REPOSITORY_QUEUE_MAX);
    assert!(
        stats
            .iter()
            .all(|queue| queue.depth == 0 && queue.handled > 0)
    );
}

#[test]
fn after_a_reboot_the_restored_repository_is_enforced_at_once() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    let before = kernel.enforced().expect("enforced").1.endpoints;
    kernel.reboot();
    disk.crash(0);
    let mut options = options();
    options.boot_id = "another boot".to_owned();
    let mut agent = Stepped::start_with(options, &kernel, &disk);
    assert_eq!(agent.status().state, EndpointState::Restoring);
    agent.settle();
    let (realized, generation) = kernel.enforced().expect("enforced");
    assert_eq!(realized.revision, Revision(2));
    assert_eq!(generation.endpoints, before);
    assert_eq!(agent.status().state, EndpointState::Ready);
    assert_eq!(agent.pipeline.status().waiting_for, [SourceName::Manifests]);
}

#[test]
fn what_vanished_while_the_agent_was_down_goes_when_its_source_is_in_sync() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.submit(policy("b", "80"));
    agent.in_sync(&["a", "b"]);
    disk.crash(0);
    let mut agent = Stepped::start(&kernel, &disk);
    agent.settle();
    assert_eq!(agent.pipeline.repository().policies.len(), 2);
    agent.in_sync(&["b"]);
    assert_eq!(agent.pipeline.repository().policies.len(), 1);
    assert_eq!(
        agent.status().revision.realized,
        agent.pipeline.repository().revision
    );
}

#[test]
fn a_source_that_is_no_longer_configured_loses_its_resources() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    disk.crash(0);
    let mut etcd = options();
    etcd.sources = BTreeSet::from([SourceName::Etcd]);
    let mut agent = Stepped::start_with(etcd, &kernel, &disk);
    agent.settle();
    assert_eq!(agent.pipeline.repository().policies.len(), 1);
    agent
        .pipeline
        .source_in_sync(SourceName::Etcd, &BTreeSet::new())
        .expect("taken");
    agent.settle();
    assert!(agent.pipeline.repository().policies.is_empty());
}

#[test]
fn a_lost_store_regenerates_nothing_before_the_sources_have_spoken() {
    let kernel = FakeKernel::new();
    let mut agent = Stepped::start(&kernel, &MemoryDisk::new());
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    let commits = kernel.commits();
    let mut agent = Stepped::start(&kernel, &MemoryDisk::new());
    assert_eq!(agent.pipeline.regenerate(HOST_ENDPOINT), Ok(true));
    agent.settle();
    assert_eq!(kernel.commits(), commits);
    assert_eq!(
        agent.status().revision.realized,
        Revision(0),
        "not ours to count"
    );
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    assert_eq!(kernel.commits(), commits, "the same verdicts are adopted");
    assert_eq!(
        agent.status().revision.realized,
        Revision(3),
        "counted on from what the kernel had"
    );
}

#[test]
fn a_torn_event_costs_what_follows_it_once_and_never_again() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&[]);
    agent.submit(policy("a", "22"));
    agent.submit(policy("b", "22"));
    disk.crash(0);
    // The start, the source in sync, a, b.
    disk.tear_event(4);
    let mut agent = Stepped::start(&kernel, &disk);
    assert_eq!(agent.pipeline.repository().policies.len(), 1);
    let history = agent.pipeline.history();
    assert!(history.iter().any(|entry| entry.event == "store-problem"));
    agent.submit(policy("b", "22"));
    agent.submit(policy("c", "22"));
    disk.crash(0);
    let agent = Stepped::start(&kernel, &disk);
    assert_eq!(
        agent.pipeline.repository().policies.len(),
        3,
        "{:#?}",
        agent.pipeline.history()
    );
}

#[test]
fn what_was_accepted_and_not_run_is_run_by_the_next_agent() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    let waiting = agent.pipeline.submit(policy("a", "22")).expect("taken");
    agent.pipeline.shutdown();
    assert_eq!(waiting.wait(Duration::ZERO), Err(SubmitError::Stopped));
    assert!(matches!(
        agent.pipeline.submit(policy("b", "22")),
        Err(SubmitError::Stopped)
    ));
    agent.workers.repository.leave();
    disk.crash(0);
    let agent = Stepped::start(&kernel, &disk);
    assert_eq!(agent.pipeline.repository().policies.len(), 1);
}

#[test]
fn a_dead_disk_does_not_stop_enforcement() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&[]);
    disk.fail_flushes(u32::MAX);
    let submission = agent.pipeline.submit(policy("a", "22")).expect("taken");
    for _ in 0..FLUSH_ATTEMPTS_MAX {
        assert_eq!(agent.status().policy.ingress, Enforcement::Disabled);
        agent.settle();
        agent.clock.advance(Duration::from_secs(1));
    }
    let outcome = submission.wait(Duration::ZERO).expect("answered");
    assert!(matches!(outcome, ChangeOutcome::Applied { .. }));
    assert_eq!(agent.status().policy.ingress, Enforcement::Enabled);
    let problem = agent.pipeline.status().store_problem.expect("told");
    assert!(problem.contains("without history"), "{problem}");
}

#[test]
fn a_refused_generation_keeps_the_old_one_and_is_tried_again() {
    let kernel = FakeKernel::new();
    let mut agent = Stepped::start(&kernel, &MemoryDisk::new());
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    let old = kernel.enforced().expect("enforced").0;
    kernel.inject(Fault::Commit);
    agent.submit(policy("a", "80"));
    assert_eq!(kernel.enforced().expect("enforced").0, old);
    let status = agent.status();
    assert_eq!(status.state, EndpointState::WaitingToRegenerate);
    assert!(status.error.is_some_and(|error| error.contains("commit")));
    assert_eq!(status.revision.realized, old.revision);
    assert!(agent.pipeline.status().datapath_problem.is_some());
    agent.clock.advance(Duration::from_secs(2));
    agent.settle();
    let status = agent.status();
    assert_eq!((status.state, status.error), (EndpointState::Ready, None));
    assert_eq!(status.revision.realized, status.revision.desired);
    assert_eq!(agent.pipeline.status().datapath_problem, None);
}

#[test]
fn audit_mode_lasts_and_regenerates() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    let set = agent
        .pipeline
        .set_audit(HOST_ENDPOINT, AuditSetting::Enabled);
    assert_eq!(set, Ok(true));
    agent.settle();
    assert_eq!(agent.status().policy.ingress, Enforcement::Audit);
    disk.crash(0);
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&["a"]);
    assert_eq!(agent.status().policy.ingress, Enforcement::Audit);
    assert_eq!(agent.status().audit, AuditSetting::Enabled);
    let set = agent
        .pipeline
        .set_audit(HOST_ENDPOINT, AuditSetting::Inherited);
    assert_eq!(set, Ok(true));
    assert_eq!(agent.pipeline.set_global_audit(true), Ok(()));
    agent.settle();
    assert_eq!(agent.status().policy.ingress, Enforcement::Audit);
    disk.crash(0);
    let mut agent = Stepped::start(&kernel, &disk);
    assert!(agent.pipeline.status().audit);
    assert_eq!(agent.pipeline.set_global_audit(false), Ok(()));
    agent.in_sync(&["a"]);
    assert_eq!(agent.status().policy.ingress, Enforcement::Enabled);
    let nobody = EndpointId(77);
    assert_eq!(agent.pipeline.regenerate(nobody), Ok(false));
    assert!(agent.pipeline.endpoint(nobody).is_none());
    let lines = agent.pipeline.whole_history().expect("reads");
    let told: Vec<(&str, &str)> = lines
        .iter()
        .filter(|line| ["endpoint-config", "config"].contains(&line.event.as_str()))
        .map(|line| (line.subject.as_str(), line.message.as_str()))
        .collect();
    let endpoint = format!("endpoint {HOST_ENDPOINT}");
    assert_eq!(
        told,
        [
            (endpoint.as_str(), "PolicyAuditMode enabled"),
            (&endpoint, "PolicyAuditMode follows the agent"),
            ("agent", "PolicyAuditMode enabled"),
            ("agent", "PolicyAuditMode disabled"),
        ]
    );
}

/// The lines of the history about policies.
fn told(history: &[HistoryEntry]) -> Vec<(u64, u64, &str, Option<Outcome>)> {
    let of_journal = history
        .iter()
        .filter(|entry| entry.event.starts_with("policy-"));
    of_journal
        .map(|entry| {
            let sequence = entry.sequence.expect("of the journal").0;
            (sequence, entry.revision.0, &*entry.event, entry.outcome)
        })
        .collect()
}

#[test]
fn the_history_outlives_the_agent() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.submit(delete("a"));
    agent.submit(policy("a", "22"));
    agent.clock.advance(Duration::from_secs(5));
    agent.in_sync(&["a"]);
    agent.submit(policy("b", "99999"));
    agent.submit(policy("c", "80"));
    agent.submit(policy("d", "99999"));
    let before = agent.pipeline.whole_history().expect("reads");
    let (applied, refused) = (Some(Outcome::Applied), Some(Outcome::Refused));
    // The start is 1, in sync 5.
    let expected = [
        (2, 2, "policy-add", applied),
        (3, 2, "policy-delete", Some(Outcome::Deferred)),
        (4, 2, "policy-add", Some(Outcome::Unchanged)),
        (6, 2, "policy-refused", refused),
        (7, 3, "policy-add", applied),
        (8, 3, "policy-refused", refused),
    ];
    assert_eq!(told(&before), expected);
    let generations: Vec<Option<u32>> = before
        .iter()
        .filter(|entry| entry.outcome == applied && entry.event == "policy-add")
        .map(|entry| entry.generation)
        .collect();
    assert_eq!(generations, [Some(1), Some(2)]);
    assert!(before.iter().any(|entry| entry.time_ms == 5_000));
    // The last line was not flushed: the replay tells it again.
    disk.crash(0);
    let agent = Stepped::start(&kernel, &disk);
    let after = agent.pipeline.whole_history().expect("reads");
    assert_eq!(told(&after), expected);
    assert_eq!(after[..before.len()], before);
    let second = Stepped::start(&kernel, &disk);
    let again = second.pipeline.whole_history().expect("reads");
    assert_eq!(told(&again), expected, "told once, whatever comes");
}

#[test]
fn an_earlier_revision_can_be_had_and_a_lost_one_is_told() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&[]);
    agent.submit(policy("a", "22"));
    let old = agent.pipeline.repository();
    agent.submit(policy("b", "80"));
    agent.submit(delete("a"));
    let check = |agent: &Stepped| {
        let found = agent.pipeline.snapshot_at(old.revision).expect("kept");
        assert_eq!(found.policies, old.policies);
        assert_eq!(found.rules, old.rules);
    };
    check(&agent);
    disk.crash(0);
    let mut other = options();
    other.policy.enforcement = crate::policy::EnforcementMode::Always;
    let mut agent = Stepped::start_with(other, &kernel, &disk);
    check(&agent);
    agent.in_sync(&["b"]);
    let newest = agent.pipeline.repository().revision;
    assert_eq!(newest, Revision(5), "other options are a revision");
    let words = |revision: u64| {
        let error = agent.pipeline.snapshot_at(Revision(revision));
        error.expect_err("not there").to_string()
    };
    let not_yet = "revision 6 is not there yet; the newest is 5";
    assert_eq!(words(6), not_yet);
    let gone = "revision 0 is no longer kept; the oldest one kept is 1";
    assert_eq!(words(0), gone);
}

#[test]
fn a_snapshot_that_cannot_be_read_costs_a_longer_replay_only() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&[]);
    agent.submit(policy("a", "22"));
    agent.submit(policy("b", "80"));
    agent.workers.repository.save_snapshot();
    disk.crash(0);
    disk.tear_snapshot(agent.pipeline.status().journal.0);
    let agent = Stepped::start(&kernel, &disk);
    assert_eq!(agent.pipeline.repository().revision, Revision(3));
    assert_eq!(agent.pipeline.repository().policies.len(), 2);
    let history = agent.pipeline.history();
    assert!(history.iter().any(|entry| entry.event == "store-problem"));
}

#[path = "pipeline_store_tests.rs"]
mod store;
