//! One build in flight, one pending, nothing lost.

use super::*;
use crate::clock::ManualClock;

const ID: EndpointId = EndpointId(1);

fn endpoint() -> (Endpoint, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let facts = NodeFacts::default();
    let endpoint = Endpoint::host(ID, false, facts, clock.clone(), Arc::default());
    (endpoint, clock)
}

fn request(revision: u64, cause: RegenerationCause) -> EndpointRegenerationEvent {
    EndpointRegenerationEvent {
        endpoint: ID,
        revision: Revision(revision),
        causes: BTreeSet::from([cause]),
    }
}

fn start(endpoint: &Endpoint, clock: &ManualClock) -> EndpointRegenerationEvent {
    let work = endpoint.next_work(clock.now()).expect("work is due");
    endpoint.started(work.clone());
    match work {
        Work::Build(event) => event,
        Work::Bump(revision) => panic!("bump to {revision}"),
    }
}

fn realize(endpoint: &Endpoint, revision: u64) {
    let policy = EndpointPolicyStatus::default();
    endpoint.realized(Revision(revision), policy, Arc::default(), "enforced");
}

#[test]
fn requests_merge_into_one_pending_build() {
    let (endpoint, clock) = endpoint();
    assert_eq!(endpoint.state(), EndpointState::Ready);
    endpoint.request(request(2, RegenerationCause::PolicyAdded));
    endpoint.request(request(3, RegenerationCause::LabelsChanged));
    assert_eq!(endpoint.state(), EndpointState::WaitingToRegenerate);
    let event = start(&endpoint, &clock);
    assert_eq!(event.revision, Revision(3));
    assert_eq!(event.causes.len(), 2);
    assert_eq!(endpoint.state(), EndpointState::Regenerating);
    assert_eq!(endpoint.next_work(clock.now()), None);

    endpoint.request(request(4, RegenerationCause::PolicyDeleted));
    assert_eq!(endpoint.next_work(clock.now()), None, "one in flight");
    assert_eq!(endpoint.state(), EndpointState::WaitingToRegenerate);
    realize(&endpoint, 3);
    assert_eq!(endpoint.state(), EndpointState::WaitingToRegenerate);
    assert_eq!(start(&endpoint, &clock).revision, Revision(4));
    realize(&endpoint, 4);
    assert_eq!(endpoint.state(), EndpointState::Ready);
    let revisions = endpoint.revisions();
    assert_eq!(
        (revisions.desired, revisions.realized),
        (Revision(4), Revision(4))
    );
}

#[test]
fn failures_wait_twice_as_long_each_time_and_keep_their_causes() {
    let (endpoint, clock) = endpoint();
    endpoint.request(request(2, RegenerationCause::PolicyAdded));
    for expected_s in [2, 4, 8, 16, 32, 64, 120, 120] {
        let event = start(&endpoint, &clock);
        assert!(event.causes.contains(&RegenerationCause::PolicyAdded));
        endpoint.failed("no room");
        assert_eq!(endpoint.state(), EndpointState::WaitingToRegenerate);
        assert_eq!(endpoint.next_work(clock.now()), None);
        clock.advance(Duration::from_secs(expected_s) - Duration::from_millis(1));
        assert_eq!(endpoint.next_work(clock.now()), None);
        clock.advance(Duration::from_millis(1));
    }
    let status = endpoint.status(AuditSetting::Inherited, false);
    assert_eq!(status.error.as_deref(), Some("no room"));
    assert!(status.log.iter().any(|entry| entry.failed));
    start(&endpoint, &clock);
    realize(&endpoint, 2);
    assert_eq!(endpoint.status(AuditSetting::Inherited, false).error, None);
    endpoint.request(request(3, RegenerationCause::PolicyAdded));
    start(&endpoint, &clock);
    endpoint.failed("again");
    assert_eq!(
        endpoint.retry_at(),
        Some(clock.now().after(REGENERATION_RETRY_FIRST))
    );
}

#[test]
fn a_new_request_does_not_wait_for_the_pause() {
    let (endpoint, clock) = endpoint();
    endpoint.request(request(2, RegenerationCause::PolicyAdded));
    start(&endpoint, &clock);
    endpoint.failed("no room");
    endpoint.request(request(3, RegenerationCause::PolicyDeleted));
    let event = start(&endpoint, &clock);
    assert_eq!(event.revision, Revision(3));
    assert!(
        event
            .causes
            .contains(&RegenerationCause::RegenerationFailed)
    );
}

#[test]
fn a_bump_waits_for_a_build_and_is_swallowed_by_a_newer_one() {
    let (endpoint, clock) = endpoint();
    endpoint.bump(Revision(2));
    assert_eq!(
        endpoint.next_work(clock.now()),
        Some(Work::Bump(Revision(2)))
    );
    endpoint.request(request(3, RegenerationCause::PolicyAdded));
    start(&endpoint, &clock);
    endpoint.bump(Revision(4));
    assert_eq!(endpoint.next_work(clock.now()), None);
    realize(&endpoint, 3);
    assert_eq!(
        endpoint.next_work(clock.now()),
        Some(Work::Bump(Revision(4)))
    );
    endpoint.started(Work::Bump(Revision(4)));
    endpoint.failed("adopt");
    assert_eq!(endpoint.state(), EndpointState::WaitingToRegenerate);
    clock.advance(REGENERATION_RETRY_FIRST);
    assert_eq!(start(&endpoint, &clock).revision, Revision(4));
}

#[test]
fn a_failure_loses_nothing_of_what_was_asked_meanwhile() {
    let (endpoint, clock) = endpoint();
    endpoint.request(request(2, RegenerationCause::PolicyAdded));
    start(&endpoint, &clock);
    endpoint.request(request(3, RegenerationCause::ConfigChanged));
    endpoint.failed("no room");
    let event = start(&endpoint, &clock);
    assert_eq!(event.revision, Revision(3));
    assert_eq!(event.causes.len(), 3);
}

/// What is asked of audit mode is in force as soon as the policy was computed
/// with it, though a direction may stay in audit by its policies alone.
#[test]
fn audit_by_policies_is_told_from_audit_mode() {
    use crate::endpoint::Enforcement::{Audit, Disabled, Enabled};
    use crate::endpoint::committer::policy_status;
    use crate::policy::{DirectionPolicy, EndpointPolicy, RuleCatalogue, VerdictTable};
    let direction = |enforced, watched, audit| {
        Arc::new(DirectionPolicy {
            enforced,
            watched,
            audit,
            enforcing: Default::default(),
            auditing: Default::default(),
            table: VerdictTable::default(),
        })
    };
    for (ingress, egress, mode, words, in_force) in [
        (
            (false, false),
            (false, false),
            false,
            [Disabled, Disabled],
            [true, true],
        ),
        (
            (true, false),
            (false, false),
            false,
            [Enabled, Disabled],
            [true, false],
        ),
        (
            (true, false),
            (false, false),
            true,
            [Audit, Disabled],
            [false, true],
        ),
        (
            (true, false),
            (false, true),
            false,
            [Enabled, Audit],
            [true, false],
        ),
        (
            (false, true),
            (false, true),
            false,
            [Audit, Audit],
            [true, false],
        ),
        (
            (false, true),
            (false, true),
            true,
            [Audit, Audit],
            [false, true],
        ),
    ] {
        let policy = EndpointPolicy {
            endpoint: ID,
            revision: Revision(1),
            directions: [ingress, egress]
                .map(|(enforced, watched)| direction(enforced, watched, mode)),
            rules: RuleCatalogue::default(),
        };
        let (endpoint, _) = endpoint();
        endpoint.adopt(Revision(1), policy_status(&policy));
        for wanted in [false, true] {
            let status = endpoint.status(AuditSetting::Inherited, wanted);
            assert_eq!([status.policy.ingress, status.policy.egress], words);
            assert_eq!(
                status.audit_in_force(),
                in_force[usize::from(wanted)],
                "{status:?}"
            );
        }
    }
}
