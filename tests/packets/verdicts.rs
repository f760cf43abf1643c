//! Who may reach what: rules, families, directions.

use std::net::IpAddr;

use crate::frames::{
    ACK, Ip, SYN, broadcast, for_other_station, frame, icmp, ip, raw, sctp, tcp, udp,
};
use crate::host::{
    DROP_DENY, DROP_POLICY, DROP_SPOOF, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, PEER4,
    PEER6, SEED, pass,
};

/// Everything that an outsider and a peer may try, in both families.
fn probes() -> Vec<(&'static str, crate::frames::L4, crate::frames::L4)> {
    vec![
        ("ssh", tcp(40_000, 22, SYN), tcp(40_000, 22, SYN)),
        ("http", tcp(40_001, 80, SYN), tcp(40_001, 80, SYN)),
        ("mid-stream", tcp(40_002, 80, ACK), tcp(40_002, 80, ACK)),
        ("udp 22", udp(40_003, 22), udp(40_003, 22)),
        ("sctp", sctp(40_004, 22), sctp(40_004, 22)),
        ("ping", icmp(1, 8, 0, 77), icmp(58, 128, 0, 77)),
        ("gre", raw(47), raw(47)),
        ("igmp", raw(2), raw(2)),
        ("unassigned protocol", raw(253), raw(253)),
    ]
}

#[test]
fn without_a_policy_everything_passes() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    for (name, v4, v6) in probes() {
        host.ingress(
            name,
            &frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &v4)),
            pass(),
        );
        host.ingress(
            name,
            &frame(&ip(OUTSIDER6, HOST6, &Ip::default(), &v6)),
            pass(),
        );
        host.egress(
            name,
            &frame(&ip(HOST4, OUTSIDER4, &Ip::default(), &v4)),
            pass(),
        );
        host.egress(
            name,
            &frame(&ip(HOST6, OUTSIDER6, &Ip::default(), &v6)),
            pass(),
        );
    }
}

#[test]
fn the_seed_policy_opens_ssh_to_all_and_everything_to_the_cluster() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    for (name, v4, v6) in probes() {
        let expected = if name == "ssh" {
            pass()
        } else {
            Expect::Drop(DROP_POLICY)
        };
        host.ingress(
            name,
            &frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &v4)),
            expected,
        );
        host.ingress(
            name,
            &frame(&ip(OUTSIDER6, HOST6, &Ip::default(), &v6)),
            expected,
        );
        host.ingress(name, &frame(&ip(PEER4, HOST4, &Ip::default(), &v4)), pass());
        host.ingress(name, &frame(&ip(PEER6, HOST6, &Ip::default(), &v6)), pass());
    }
}

#[test]
fn an_own_address_from_the_wire_is_a_lie() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    let forged = frame(&ip(HOST4, HOST4, &Ip::default(), &tcp(1_000, 22, SYN)));
    host.ingress("own source", &forged, Expect::Drop(DROP_SPOOF));
    let forged = frame(&ip(HOST6, HOST6, &Ip::default(), &udp(1_000, 53)));
    host.ingress("own source", &forged, Expect::Drop(DROP_SPOOF));
}

#[test]
fn broadcast_is_policed_and_other_stations_are_not() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    let everyone = "255.255.255.255".parse().expect("an address");
    let packet = frame(&ip(OUTSIDER4, everyone, &Ip::default(), &udp(68, 67)));
    host.ingress("broadcast", &broadcast(&packet), Expect::Drop(DROP_POLICY));
    let elsewhere = "10.0.7.7".parse().expect("an address");
    let packet = frame(&ip(
        OUTSIDER4,
        elsewhere,
        &Ip::default(),
        &tcp(1_000, 80, SYN),
    ));
    host.ingress("for another station", &for_other_station(&packet), pass());
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &tcp(1_000, 80, SYN)));
    host.ingress(
        "own address, other station",
        &for_other_station(&packet),
        Expect::Drop(DROP_POLICY),
    );
}

const DENY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-some}
spec:
  nodeSelector: {matchLabels: {node-access: ssh}}
  ingress:
  - fromCIDR: ["10.0.9.0/24"]
  ingressDeny:
  - fromCIDRSet: [{cidr: 10.0.9.0/24, except: ["10.0.9.16/28"]}]
    toPorts: [{ports: [{port: "8000", endPort: 8100, protocol: TCP}]}]
  - toPorts: [{ports: [{port: "53", protocol: UDP}]}]
"#;

#[test]
fn deny_beats_allow_and_both_ends_of_a_range_count() {
    let Some(mut host) = Host::new() else { return };
    host.apply(DENY);
    let excepted = "10.0.9.17".parse().expect("an address");
    let table = [
        (OUTSIDER4, 7_999, pass()),
        (OUTSIDER4, 8_000, Expect::Drop(DROP_DENY)),
        (OUTSIDER4, 8_050, Expect::Drop(DROP_DENY)),
        (OUTSIDER4, 8_100, Expect::Drop(DROP_DENY)),
        (OUTSIDER4, 8_101, pass()),
        (excepted, 8_050, pass()),
        (
            "10.1.0.1".parse().expect("an address"),
            443,
            Expect::Drop(DROP_POLICY),
        ),
    ];
    for (from, port, expected) in table {
        let packet = frame(&ip(from, HOST4, &Ip::default(), &tcp(999, port, SYN)));
        host.ingress(&format!("{from} to {port}"), &packet, expected);
    }
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &udp(999, 53)));
    host.ingress("udp 53", &packet, Expect::Drop(DROP_DENY));
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &udp(999, 54)));
    host.ingress("udp 54", &packet, pass());
}

const EGRESS: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: egress-only}
spec:
  nodeSelector: {}
  egress:
  - toCIDR: ["10.0.9.9/32", "fd00:9::9/128"]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  - icmps: [{fields: [{type: 8}, {family: IPv6, type: EchoRequest}]}]
"#;

#[test]
fn egress_is_judged_and_ingress_stays_untouched() {
    let Some(mut host) = Host::new() else { return };
    host.apply(EGRESS);
    for (own, other, echo) in [
        (HOST4, OUTSIDER4, icmp(1, 8, 0, 5)),
        (HOST6, OUTSIDER6, icmp(58, 128, 0, 5)),
    ] {
        let shape = Ip::default();
        host.egress(
            "https",
            &frame(&ip(own, other, &shape, &tcp(999, 443, SYN))),
            pass(),
        );
        let http = frame(&ip(own, other, &shape, &tcp(999, 80, SYN)));
        host.egress("http", &http, Expect::Drop(DROP_POLICY));
        host.egress("ping", &frame(&ip(own, other, &shape, &echo)), pass());
        host.ingress(
            "in",
            &frame(&ip(other, own, &shape, &tcp(7, 80, SYN))),
            pass(),
        );
        host.ingress(
            "own source",
            &frame(&ip(own, own, &shape, &tcp(7, 80, SYN))),
            pass(),
        );
    }
}

#[test]
fn audit_passes_what_it_would_drop() {
    let Some(mut host) = Host::new() else { return };
    host.apply_audited(SEED);
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &tcp(999, 80, SYN)));
    host.ingress(
        "audited",
        &packet,
        Expect::Pass(palisade_abi::reason::AUDITED),
    );
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &tcp(999, 22, SYN)));
    host.ingress("allowed", &packet, pass());
}

/// A policy that allows the prefixes, and denies the others.
fn nested(allowed: &[&str], denied: &[&str]) -> String {
    let list = |prefixes: &[&str]| {
        let quoted = prefixes.iter().map(|prefix| format!("\"{prefix}\""));
        quoted.collect::<Vec<_>>().join(", ")
    };
    let mut policy = format!(
        r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {{name: nested}}
spec:
  nodeSelector: {{matchLabels: {{node-access: ssh}}}}
  ingress:
  - fromCIDR: [{}]
"#,
        list(allowed)
    );
    if !denied.is_empty() {
        policy += &format!("  ingressDeny:\n  - fromCIDR: [{}]\n", list(denied));
    }
    policy
}

#[test]
fn an_ipv6_address_has_the_identity_of_its_longest_prefix() {
    let Some(mut host) = Host::new() else { return };
    // Each replaces the one before it, in the other slot.
    let (a, b) = (DROP_DENY, DROP_POLICY);
    type Answers = [Option<u8>; 5];
    let steps: [(&[&str], &[&str], Answers); 8] = [
        (
            &["2001:db8:9::/64"],
            &[],
            [None, None, None, Some(b), Some(b)],
        ),
        (
            &["2001:db8:9::/64"],
            &["2001:db8:9::7/128"],
            [Some(a), None, None, Some(b), Some(b)],
        ),
        (
            &["2001:db8:9::/64"],
            &["2001:db8:9::6/127"],
            [Some(a), Some(a), None, Some(b), Some(b)],
        ),
        (
            &["2001:db8:9::/64"],
            &[],
            [None, None, None, Some(b), Some(b)],
        ),
        (
            &["::/0"],
            &["2001:db8:9::/64"],
            [Some(a), Some(a), Some(a), None, None],
        ),
        (
            &["::/0"],
            &["2001:db8:9::/64", "2001:db8::/32"],
            [Some(a), Some(a), Some(a), Some(a), None],
        ),
        (
            &["2001:db8:9::7/128"],
            &[],
            [None, Some(b), Some(b), Some(b), Some(b)],
        ),
        (
            &["2001:db8:9::6/128", "::/0"],
            &["ffff:ffff::/128"],
            [None, None, None, None, None],
        ),
    ];
    let peers = [
        "2001:db8:9::7",
        "2001:db8:9::6",
        "2001:db8:9:0:8000::",
        "2001:db8:9:1::",
        "2600::1",
    ];
    for (step, (allowed, denied, answers)) in (0u16..).zip(steps) {
        host.apply(&nested(allowed, denied));
        for (peer, answer) in peers.iter().zip(answers) {
            let from: IpAddr = peer.parse().expect("an address");
            let packet = ip(from, HOST6, &Ip::default(), &tcp(41_000 + step, 80, SYN));
            let expected = answer.map_or(pass(), Expect::Drop);
            host.ingress(&format!("step {step}: {peer}"), &frame(&packet), expected);
        }
    }
}
