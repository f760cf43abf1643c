//! What the history tells, and a disk that fails and comes back.

use super::*;
use crate::endpoint::Progress;
use crate::policy::EnforcementMode;

#[test]
fn endpoints_and_changes_of_their_surroundings_are_told_by_their_names() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    let node = |address: &str| {
        RepositoryChange::Upsert(Resource {
            key: ResourceKey {
                kind: ResourceKind::Node,
                namespace: None,
                name: "other".to_owned(),
            },
            source: SourceName::Manifests,
            origin: Origin::default(),
            body: serde_json::json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": "other"},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            })
            .into(),
        })
    };
    agent.submit(node("10.0.0.9"));
    agent.submit(node("not an address"));
    disk.crash(0);
    let agent = Stepped::start(&kernel, &disk);
    let lines = agent.pipeline.whole_history().expect("reads");
    let told = |event: &str| lines.iter().filter(|line| line.event == event).count();
    assert_eq!(told("node-update"), 1);
    assert_eq!(told("node-refused"), 1);
    assert_eq!(told("endpoint-created"), 1);
    assert_eq!(told("endpoint-restored"), 1);
    assert_eq!(told("policy-add"), 0);
}

#[test]
fn a_store_that_is_given_up_is_taken_into_use_again_and_nothing_is_missing() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.in_sync(&["a"]);
    agent.submit(policy("a", "22"));
    disk.fail_flushes(1_000);
    let waiting = agent.pipeline.submit(policy("a", "80")).expect("taken");
    agent.settle();
    assert_eq!(waiting.try_outcome(), None, "nothing is promised yet");
    // A disk that fails holds up a change for a moment only.
    for _ in 0..20 {
        agent.clock.advance(Duration::from_millis(200));
        agent.settle();
    }
    let newest = agent.pipeline.repository().revision;
    assert_eq!(agent.status().revision.realized, newest);
    let problem = agent.pipeline.status().store_problem.expect("it is told");
    assert!(problem.contains("running without history"), "{problem}");
    assert!(!agent.pipeline.has_history());
    // Who is locked out must get in, whatever the disk does.
    let set = agent
        .pipeline
        .set_audit(HOST_ENDPOINT, AuditSetting::Enabled);
    assert_eq!(set, Ok(true));
    agent.settle();
    assert_eq!(agent.status().policy.ingress, Enforcement::Audit);
    let by_api = |name: &str| {
        let RepositoryChange::Upsert(resource) = policy(name, "22") else {
            unreachable!("a policy is an upsert");
        };
        RepositoryChange::Upsert(Resource {
            source: SourceName::Api,
            ..resource
        })
    };
    let refused = agent.pipeline.submit(by_api("b"));
    let refused = refused.expect_err("it would not last").to_string();
    assert!(refused.contains("lost with the agent"), "{refused}");
    agent.submit(policy("a", "443"));
    disk.fail_flushes(0);
    for _ in 0..3 {
        agent.clock.advance(crate::limits::STORE_RETRY);
        agent.settle();
    }
    assert_eq!(agent.pipeline.status().store_problem, None);
    let live = agent.pipeline.repository();
    disk.crash(0);
    let agent = Stepped::start(&kernel, &disk);
    assert_eq!(agent.pipeline.repository().policies, live.policies);
    assert_eq!(agent.status().audit, AuditSetting::Enabled);
    let lines = agent.pipeline.whole_history().expect("reads");
    let told = |event: &str| lines.iter().filter(|line| line.event == event).count();
    assert_eq!((told("store-problem"), told("store-resumed")), (1, 1));
    assert_eq!(told("policy-add"), 3);
}

#[test]
fn a_wall_clock_that_jumps_decides_nothing() {
    const DECADE_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.clock.set_wall_ms(3 * DECADE_MS);
    agent.in_sync(&["a"]);
    let mut known = Vec::new();
    for (number, decades) in [4, 2, 2, 6].iter().enumerate() {
        agent.clock.set_wall_ms(decades * DECADE_MS);
        agent.submit(policy("a", &format!("{}", 1_000 + number)));
        known.push(agent.pipeline.repository());
        agent.workers.repository.save_snapshot();
    }
    let check = |agent: &Stepped| {
        for (place, old) in known.iter().enumerate() {
            assert_eq!(old.revision.0, known[0].revision.0 + place as u64);
            let found = agent.pipeline.snapshot_at(old.revision).expect("kept");
            assert_eq!(found.policies, old.policies);
        }
        let lines = agent.pipeline.whole_history().expect("reads");
        let added: Vec<u64> = lines
            .iter()
            .filter(|line| line.event == "policy-add")
            .map(|line| line.revision.0)
            .collect();
        let expected: Vec<u64> = known.iter().map(|old| old.revision.0).collect();
        assert_eq!(added, expected, "in the order of events");
    };
    check(&agent);
    assert_eq!(agent.status().revision.realized, known[3].revision);
    disk.crash(0);
    // A clock at 1970, as of a board without a battery.
    let agent = Stepped::start(&kernel, &disk);
    check(&agent);
    assert_eq!(agent.pipeline.repository().policies, known[3].policies);
}

/// The service manager holds the network back for as long.
#[test]
fn what_the_store_holds_is_about_to_be_enforced_until_it_is_or_the_kernel_refuses() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    assert!(
        !agent.pipeline.is_about_to_enforce(),
        "there is nothing yet"
    );
    agent.submit(policy("a", "22"));
    assert!(!agent.pipeline.is_about_to_enforce(), "a source is silent");
    agent.in_sync(&["a"]);
    assert!(!agent.pipeline.is_about_to_enforce(), "it is enforced");
    disk.crash(0);
    let rebooted = FakeKernel::new();
    let mut agent = Stepped::start(&rebooted, &disk);
    assert!(agent.pipeline.is_about_to_enforce(), "from the store");
    rebooted.direct(|_| KernelFate::Fails);
    agent.settle();
    assert!(!agent.pipeline.is_about_to_enforce(), "the kernel refuses");
    disk.crash(0);
    let mut agent = Stepped::start(&FakeKernel::new(), &disk);
    assert!(agent.pipeline.is_about_to_enforce());
    agent.settle();
    assert!(!agent.pipeline.is_about_to_enforce() && agent.pipeline.realized().is_some());
}

/// A policy that no life survives building must not take every life.
#[test]
fn after_lives_that_ended_in_their_build_one_stays_and_waits_for_a_word() {
    let (kernel, dir) = (FakeKernel::new(), tempfile::tempdir().expect("a directory"));
    let begin = || {
        let clock = Arc::new(ManualClock::default());
        let store = Store::open(dir.path()).expect("opens");
        let datapath = Box::new(kernel.datapath());
        let pipeline = Pipeline::start(options(), datapath, store, clock.clone());
        let workers = pipeline.take_workers().expect("not yet taken");
        Stepped {
            pipeline,
            workers,
            clock,
        }
    };
    let mut agent = begin();
    agent.in_sync(&[]);
    agent.submit(policy("a", "22"));
    let enforced = kernel.realized();
    let large = agent.pipeline.submit(policy("large", "80")).expect("taken");
    let now = agent.clock.now();
    assert_eq!(agent.workers.repository.step(now), Progress::Busy);
    assert!(large.try_outcome().is_some(), "acknowledged");
    drop(agent);
    for _ in 0..crate::limits::BUILDS_CUT_OFF_MAX {
        let mut agent = begin();
        assert!(agent.pipeline.is_about_to_enforce());
        // It has built, and does not live to see it committed.
        agent.workers.endpoints[0].step(agent.clock.now());
        drop(agent);
    }

    let mut agent = begin();
    agent.settle();
    agent.in_sync(&["a", "large"]);
    agent.submit(RepositoryChange::LocalAddresses(Vec::new()));
    assert_eq!(kernel.realized(), enforced, "not once more by itself");
    assert!(!agent.pipeline.is_about_to_enforce());
    let status = agent.status();
    assert!(status.revision.realized < status.revision.desired);
    let problem = agent.pipeline.status().datapath_problem.expect("told");
    assert!(
        problem.contains("5 starts") && problem.contains("/large"),
        "{problem}"
    );
    // Who is locked out must get in all the same.
    drop(agent);
    let mut agent = begin();
    agent.settle();
    let set = agent
        .pipeline
        .set_audit(HOST_ENDPOINT, AuditSetting::Inherited);
    assert_eq!(set, Ok(true));
    agent.workers.endpoints[0].step(agent.clock.now());
    drop(agent);

    let mut agent = begin();
    agent.in_sync(&["a", "large"]);
    assert_eq!(kernel.realized(), enforced, "one word is one try");
    agent.submit(delete("large"));
    let newest = agent.pipeline.repository().revision;
    assert_eq!(agent.status().revision.realized, newest);
    assert_eq!(agent.pipeline.status().datapath_problem, None);
    drop(agent);
    // It got through: the next ones build again.
    let mut agent = begin();
    agent.in_sync(&["a"]);
    agent.submit(policy("a", "443"));
    let newest = agent.pipeline.repository().revision;
    assert_eq!(agent.status().revision.realized, newest);
}

/// As above, where the kernel enforces what was there before the last agent was
/// killed; and a source that was cut off while it told is waited for.
#[test]
fn what_was_acknowledged_is_enforced_before_a_source_speaks() {
    let (kernel, disk) = (FakeKernel::new(), MemoryDisk::new());
    let mut agent = Stepped::start(&kernel, &disk);
    agent.submit(policy("a", "22"));
    agent.in_sync(&["a"]);
    let submission = agent.pipeline.submit(policy("b", "80")).expect("taken");
    // The repository acknowledges it; nobody has built it yet.
    let now = agent.clock.now();
    assert_eq!(agent.workers.repository.step(now), Progress::Busy);
    let outcome = submission.try_outcome();
    let Some(ChangeOutcome::Applied { revision, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    disk.crash(0);

    let mut other = options();
    other.policy.enforcement = EnforcementMode::Always;
    let mut agent = Stepped::start_with(other, &kernel, &disk);
    assert!(agent.pipeline.is_about_to_enforce());
    agent.settle();
    assert_eq!(agent.status().revision.realized, revision);
    let egress = agent.status().policy.egress;
    assert_eq!(egress, Enforcement::Disabled, "options of now wait");
    assert!(agent.pipeline.status().options_wait);
    assert!(!agent.pipeline.is_about_to_enforce());
    // Neither does the next start seal the node, nor is half of a list enforced.
    disk.crash(0);
    let commits = kernel.commits();
    let mut always = options();
    always.policy.enforcement = EnforcementMode::Always;
    let mut agent = Stepped::start_with(always, &kernel, &disk);
    agent.settle();
    assert_eq!(kernel.commits(), commits);
    assert!(agent.pipeline.status().options_wait, "it is told");
    agent.submit(policy("c", "443"));
    disk.crash(0);
    let mut agent = Stepped::start(&kernel, &disk);
    assert!(!agent.pipeline.is_about_to_enforce(), "half of what it has");
    agent.settle();
    assert_eq!(kernel.commits(), commits);
    agent.in_sync(&["a", "b", "c"]);
    let newest = agent.pipeline.repository().revision;
    assert_eq!(agent.status().revision.realized, newest);
}
