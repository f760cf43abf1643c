//! Tables and lines as people read them.

use super::bpf::rules_table;
use super::endpoint::list_table;
use super::identity::identity_table;
use super::monitor::event_line;
use super::output::{Table, timestamp};
use crate::endpoint::{EndpointKind, Enforcement};
use crate::events::EndpointState;
use crate::model::{
    BpfRule, Decision, Endpoint, EndpointPolicy, EndpointRevision, Identity, MonitorEvent, Peer,
    RuleName,
};

fn host(ingress: Enforcement, egress: Enforcement) -> Endpoint {
    Endpoint {
        id: 1,
        kind: EndpointKind::Host,
        identity: 1,
        labels: vec!["k8s:node-access=ssh".to_owned(), "reserved:host".to_owned()],
        policy: EndpointPolicy { ingress, egress },
        ipv4: "192.0.2.1".parse().ok(),
        ipv6: None,
        devices: vec!["eth9".to_owned()],
        state: EndpointState::Ready,
        revision: EndpointRevision {
            desired: 3,
            realized: 3,
        },
    }
}

#[test]
fn endpoint_list_has_the_columns_of_cilium() {
    let endpoints = [host(Enforcement::Enabled, Enforcement::Disabled)];
    let expected = "\
ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])   IPv6   IPv4        STATUS
           ENFORCEMENT        ENFORCEMENT
1          Enabled            Disabled          1          k8s:node-access=ssh                  192.0.2.1   ready
                                                           reserved:host
";
    assert_eq!(list_table(&endpoints, true), expected);
    let rows = list_table(&endpoints, false);
    assert!(rows.starts_with("1   "), "{rows}");
    assert_eq!(rows.lines().count(), 2);
}

#[test]
fn audit_shows_in_the_enforced_directions_only() {
    let table = list_table(&[host(Enforcement::Audit, Enforcement::Disabled)], true);
    let row = table.lines().nth(2).expect("a row");
    assert!(
        row.starts_with("1          Disabled (Audit)   Disabled  "),
        "{row}"
    );
}

#[test]
fn an_endpoint_without_labels_says_so() {
    let mut endpoint = host(Enforcement::Disabled, Enforcement::Disabled);
    endpoint.labels.clear();
    assert!(list_table(&[endpoint], true).contains("no labels"));
}

#[test]
fn labels_spill_onto_following_lines() {
    let identities = [Identity {
        id: 7,
        labels: vec![
            "reserved:kube-apiserver".into(),
            "reserved:remote-node".into(),
        ],
    }];
    let expected = "ID   LABELS\n7    reserved:kube-apiserver\n     reserved:remote-node\n";
    assert_eq!(identity_table(&identities), expected);
}

#[test]
fn a_table_keeps_its_columns_whatever_their_widths() {
    let mut table = Table::new(&[&["A", "B"]]);
    table.row(["long cell", "x"]);
    table.row(["é", "y"]);
    assert_eq!(
        table.render(),
        "A           B\nlong cell   x\né           y\n"
    );
}

#[test]
fn times_are_civil() {
    assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(timestamp(951_782_400_123), "2000-02-29T00:00:00.123Z");
    assert_eq!(timestamp(1_798_761_599_999), "2026-12-31T23:59:59.999Z");
}

fn decision() -> Decision {
    Decision {
        time_ms: 0,
        verdict: "denied".to_owned(),
        reason: "Policy denied".to_owned(),
        reason_code: 133,
        direction: "ingress".to_owned(),
        endpoint: 1,
        source: Peer {
            ip: "2001:db8::5".parse().ok(),
            port: Some(40_000),
            identity: 16_777_217,
            labels: vec!["cidr:2001:db8::/32".to_owned(), "reserved:world".to_owned()],
        },
        destination: Peer {
            ip: "2001:db8::1".parse().ok(),
            port: Some(80),
            identity: 1,
            labels: vec!["reserved:host".to_owned()],
        },
        protocol: "tcp".to_owned(),
        detail: "SYN".to_owned(),
        rule: None,
        log: None,
        policies: vec!["CiliumClusterwideNetworkPolicy/demo".to_owned()],
        device: "eth9".to_owned(),
        length_bytes: 74,
        rejudged: false,
        fragment: false,
        generation: 2,
        revision: 3,
    }
}

#[test]
fn a_default_deny_names_the_policy_that_enforces() {
    assert_eq!(
        event_line(&MonitorEvent::Drop(decision())),
        "xx drop (Policy denied) flow to endpoint 1, ingress, eth9, identity 16777217->host: \
         [2001:db8::5]:40000 -> [2001:db8::1]:80 tcp SYN, \
         no rule of CiliumClusterwideNetworkPolicy/demo allows it"
    );
}

#[test]
fn a_verdict_names_its_rule() {
    let allowed = Decision {
        verdict: "allowed".to_owned(),
        rule: Some(RuleName {
            resource: "CiliumClusterwideNetworkPolicy/demo".to_owned(),
            section: "ingress".to_owned(),
            index: 1,
        }),
        ..decision()
    };
    let line = event_line(&MonitorEvent::PolicyVerdict(allowed));
    assert!(
        line.starts_with(
            "Policy verdict log: flow local EP ID 1, remote ID 16777217, proto tcp, ingress, \
             action allow, identity 16777217->host: "
        ),
        "{line}"
    );
    assert!(
        line.ends_with(", rule CiliumClusterwideNetworkPolicy/demo ingress[1]"),
        "{line}"
    );
}

/// The author's text ends the line and stays on it.
#[test]
fn a_verdict_tells_what_its_rule_logs() {
    let denied = Decision {
        rule: Some(RuleName {
            resource: "CiliumClusterwideNetworkPolicy/demo".to_owned(),
            section: "ingressDeny".to_owned(),
            index: 0,
        }),
        log: Some("ticket 4711\n\"ok\"".to_owned()),
        ..decision()
    };
    let line = event_line(&MonitorEvent::Drop(denied));
    assert!(
        line.ends_with(" ingressDeny[0], log \"ticket 4711\\n\\\"ok\\\"\""),
        "{line}"
    );
}

#[test]
fn rules_are_listed_with_log_and_origin() {
    let rule = |number, log: Option<&str>, origin: Option<&str>| BpfRule {
        number,
        name: format!("CiliumClusterwideNetworkPolicy/demo ingress[{number}]"),
        packets: 5,
        bytes: 300,
        log: log.map(ToOwned::to_owned),
        origin: origin.map(ToOwned::to_owned),
    };
    let rules = [
        rule(1, Some("ticket 4711"), Some("/etc/p.yaml:7")),
        rule(2, None, None),
    ];
    let expected = "\
RULE   NAME                                             PACKETS   BYTES   LOG             FILE
1      CiliumClusterwideNetworkPolicy/demo ingress[1]   5         300     \"ticket 4711\"   /etc/p.yaml:7
2      CiliumClusterwideNetworkPolicy/demo ingress[2]   5         300
";
    assert_eq!(rules_table(&rules), expected);
}
