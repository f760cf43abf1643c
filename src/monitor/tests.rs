//! Records to events, and events to readers.

use palisade_abi::event::{Event, kind};
use palisade_abi::reason;

use super::*;
use crate::datapath::GenerationNumber;
use crate::events::{ResourceKey, ResourceKind, Revision};
use crate::limits::MONITOR_BUFFER_MAX;
use crate::model::{EventKind, MonitorEvent};
use crate::policy::{PolicyOptions, Repository, RuleEntry, RuleNumber, RuleRef, Section};
use crate::queues::GenerationNames;

fn record(kind: u8, reason: u8, rule: u32) -> Event {
    Event {
        time_ns: 0,
        kind,
        reason,
        direction: 0,
        family: 4,
        proto: 6,
        tcp_flags_or_type: 2,
        icmp_code: 0,
        flags: 0,
        generation: 7,
        ifindex: 3,
        len: 74,
        rule,
        peer_identity: 2,
        source_port: 40_000,
        destination_port: 80,
        source: [u32::from_ne_bytes([192, 0, 2, 1]), 0, 0, 0],
        destination: [u32::from_ne_bytes([192, 0, 2, 2]), 0, 0, 0],
    }
}

fn names() -> GenerationNames {
    let key = ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: "demo".to_owned(),
    };
    let entry = RuleEntry {
        rule: RuleRef {
            resource: Some(key.clone()),
            section: Section::IngressDeny,
            index: 1,
        },
        log: Some("ticket 4711".to_owned()),
        file: "demo.yaml".to_owned(),
        line: Some(7),
    };
    GenerationNames {
        generation: GenerationNumber(7),
        revision: Revision(9),
        rules: imbl::OrdMap::unit(RuleNumber(4), entry.into()),
        enforcing: [imbl::OrdSet::unit(key), Default::default()],
        auditing: Default::default(),
        snapshot: Repository::new(PolicyOptions::default()).snapshot(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
}

fn filter(kinds: &[EventKind]) -> Filter {
    Filter {
        kinds: kinds.iter().copied().collect(),
        ..Filter::default()
    }
}

#[test]
fn a_default_deny_names_the_policies_that_enforce() {
    let names = names();
    let event = record(kind::DROP, reason::POLICY, 0);
    let decision = enrich(&event, Some(&names), "eth9".to_owned(), 5);
    assert_eq!(decision.verdict, "denied");
    assert_eq!(decision.reason, "Policy denied");
    assert_eq!((decision.rule, decision.log), (None, None));
    assert_eq!(decision.policies, ["CiliumClusterwideNetworkPolicy/demo"]);
    assert_eq!(decision.source.labels, ["reserved:world"]);
    assert_eq!(decision.source.ip, "192.0.2.1".parse().ok());
    assert_eq!(decision.destination.port, Some(80));
    assert_eq!(decision.detail, "SYN");
}

/// What nobody denies is told with the names of those who would: the policies in
/// audit, and only where none is enforced.
#[test]
fn an_audited_default_deny_names_the_policies_in_audit() {
    let mut names = names();
    let demo = names.enforcing[0].get_min().expect("one").clone();
    let staged = ResourceKey {
        name: "staged".to_owned(),
        ..demo.clone()
    };
    names.auditing = [0, 1].map(|_| imbl::OrdSet::unit(staged.clone()));
    let policies = |names: &GenerationNames, kind, direction| {
        let event = Event {
            direction,
            ..record(kind, reason::POLICY, 0)
        };
        enrich(&event, Some(names), String::new(), 0).policies
    };
    let (demo, staged) = (vec![demo.to_string()], vec![staged.to_string()]);
    assert_eq!(policies(&names, kind::AUDIT, 0), demo, "audit mode");
    assert_eq!(policies(&names, kind::AUDIT, 1), staged);
    assert_eq!(policies(&names, kind::DROP, 1), [""; 0], "not by them");
}

#[test]
fn a_rule_is_named_by_its_generation_only() {
    let names = names();
    let event = record(kind::DROP, reason::POLICY_DENY, 4);
    let decision = enrich(&event, Some(&names), String::new(), 0);
    assert_eq!(decision.log.as_deref(), Some("ticket 4711"));
    let rule = decision.rule.expect("a rule");
    assert_eq!((rule.section.as_str(), rule.index), ("ingressDeny", 1));
    let forgotten = enrich(&event, None, String::new(), 0);
    assert_eq!((forgotten.rule, forgotten.log), (None, None));
    assert!(forgotten.policies.is_empty());
}

#[test]
fn a_denial_is_told_once() {
    let monitor = Monitor::default();
    let mut both = monitor.subscribe(filter(&[EventKind::Drop, EventKind::PolicyVerdict]));
    let mut verdicts = monitor.subscribe(filter(&[EventKind::PolicyVerdict]));
    let mut notes = monitor.subscribe(filter(&[EventKind::Agent]));
    let names = names();
    for event in [
        record(kind::DROP, reason::POLICY, 0),
        record(kind::DROP, reason::VLAN, 0),
        record(kind::ALLOW, 0, 4),
        record(kind::AUDIT, reason::POLICY, 0),
    ] {
        monitor.decision(&enrich(&event, Some(&names), String::new(), 0));
    }
    drop(monitor);
    runtime().block_on(async {
        let mut told = Vec::new();
        while let Some(event) = both.next().await {
            told.push(word(&event));
        }
        assert_eq!(
            told,
            [
                "drop denied",
                "drop dropped",
                "verdict allowed",
                "verdict audited"
            ]
        );
        told.clear();
        while let Some(event) = verdicts.next().await {
            told.push(word(&event));
        }
        assert_eq!(
            told,
            ["verdict denied", "verdict allowed", "verdict audited"]
        );
        assert!(notes.next().await.is_none());
    });
}

fn word(event: &MonitorEvent) -> String {
    match event {
        MonitorEvent::Drop(decision) => format!("drop {}", decision.verdict),
        MonitorEvent::PolicyVerdict(decision) => format!("verdict {}", decision.verdict),
        MonitorEvent::Agent(note) => note.event.clone(),
        MonitorEvent::Lost { count, .. } => format!("lost {count}"),
    }
}

#[test]
fn a_slow_reader_is_told_its_losses() {
    let monitor = Monitor::default();
    let mut slow = monitor.subscribe(Filter::default());
    let names = names();
    let decision = enrich(&record(kind::ALLOW, 0, 4), Some(&names), String::new(), 0);
    for _ in 0..MONITOR_BUFFER_MAX + 3 {
        monitor.decision(&decision);
    }
    assert_eq!(monitor.lost_by_readers(), 3);
    runtime().block_on(async {
        let first = slow.next().await.expect("an event");
        assert_eq!(word(&first), "lost 3");
        let second = slow.next().await.expect("an event");
        assert_eq!(word(&second), "verdict allowed");
    });
}

#[test]
fn filters_by_endpoint() {
    let names = names();
    let decision = enrich(
        &record(kind::DROP, reason::POLICY, 0),
        Some(&names),
        String::new(),
        0,
    );
    let host = crate::endpoint::HOST_ENDPOINT.0;
    let seen = |filter: Filter| {
        let monitor = Monitor::default();
        let mut reader = monitor.subscribe(filter);
        monitor.decision(&decision);
        drop(monitor);
        runtime().block_on(reader.next()).is_some()
    };
    assert!(seen(Filter {
        to: Some(host),
        ..Filter::default()
    }));
    assert!(!seen(Filter {
        from: Some(host),
        ..Filter::default()
    }));
    assert!(seen(Filter {
        related_to: Some(host),
        ..Filter::default()
    }));
    assert!(!seen(Filter {
        related_to: Some(host + 1),
        ..Filter::default()
    }));
}
