//! The tables against the oracle: random rules, nodes, peers and packets.

use proptest::prelude::*;

use super::tests::agree;
use super::{Subject, resolve};
use crate::events::{EndpointId, RepositoryChange};
use crate::policy::repository::tests::{node, options, policy};
use crate::policy::{Direction, EnforcementMode, FailsafeEntry, Packet, PolicyOptions, Repository};

/// Few and nested, so that rules meet; /0 of both families among them.
const PREFIXES: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.1/32",
    "10.128.0.0/9",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::1/128",
];
const ADDRESSES: [&str; 12] = [
    "10.0.0.1",
    "10.1.0.1",
    "10.1.1.1",
    "10.1.1.2",
    "10.200.0.1",
    "11.0.0.1",
    "192.0.2.1",
    "fd00::1",
    "fd00:1::1",
    "fd00:1::2",
    "fe00::1",
    "2001:db8::1",
];
const ENTITIES: [&str; 9] = [
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "none",
];

fn prefix() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&PREFIXES[..])
}

fn peers(egress: bool) -> impl Strategy<Value = String> {
    let side = if egress { "to" } else { "from" };
    let quoted = |list: Vec<&str>| {
        let list: Vec<_> = list.iter().map(|text| format!("\"{text}\"")).collect();
        list.join(", ")
    };
    prop_oneof![
        2 => Just(String::new()),
        2 => proptest::collection::vec(proptest::sample::select(&ENTITIES[..]), 0..3)
            .prop_map(move |list| format!("{side}Entities: [{}]", list.join(", "))),
        3 => proptest::collection::vec(prefix(), 0..4)
            .prop_map(move |list| format!("{side}CIDR: [{}]", quoted(list))),
        3 => proptest::collection::vec((prefix(), proptest::collection::vec(prefix(), 0..3)), 1..3)
            .prop_map(move |sets| {
                let sets: Vec<String> = sets
                    .into_iter()
                    .map(|(cidr, except)| {
                        let outer: ipnet::IpNet = cidr.parse().expect("a prefix");
                        let inner = except
                            .into_iter()
                            .filter(|prefix| outer.contains(&prefix.parse::<ipnet::IpNet>().expect("a prefix")))
                            .collect();
                        format!("{{cidr: \"{cidr}\", except: [{}]}}", quoted(inner))
                    })
                    .collect();
                format!("{side}CIDRSet: [{}]", sets.join(", "))
            }),
    ]
}

fn ports() -> impl Strategy<Value = String> {
    let protocol = proptest::sample::select(&["TCP", "UDP", "SCTP", "ANY"][..]);
    let port = (0..6u16, 0..8u16, protocol)
        .prop_map(|(port, end, protocol)| {
            format!("{{port: {port}, endPort: {end}, protocol: {protocol}}}")
        })
        .boxed();
    let portless = proptest::sample::select(&["GRE", "ESP", "IPIP"][..])
        .prop_map(|protocol| format!("{{protocol: {protocol}}}"))
        .boxed();
    let field = (0..10u8, any::<bool>()).prop_map(|(kind, v6)| {
        let family = if v6 { "IPv6" } else { "IPv4" };
        format!("{{family: {family}, type: {kind}}}")
    });
    prop_oneof![
        3 => Just(String::new()),
        1 => Just("toPorts: [{}]".to_owned()),
        6 => proptest::collection::vec(prop_oneof![4 => port, 1 => portless], 1..4)
            .prop_map(|list| format!("toPorts: [{{ports: [{}]}}]", list.join(", "))),
        2 => proptest::collection::vec(field, 1..3)
            .prop_map(|list| format!("icmps: [{{fields: [{}]}}]", list.join(", "))),
    ]
}

fn section(name: &'static str) -> impl Strategy<Value = String> {
    let item = (peers(name.starts_with("egress")), ports()).prop_map(|(peers, ports)| {
        let parts: Vec<_> = [peers, ports]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        format!("{{{}}}", parts.join(", "))
    });
    proptest::collection::vec(item, 0..4)
        .prop_map(move |items| format!("{name}: [{}]", items.join(", ")))
}

fn spec() -> impl Strategy<Value = String> {
    let deny = proptest::sample::select(
        &[
            "{}",
            "{ingress: false}",
            "{egress: false}",
            "{ingress: false, egress: false}",
        ][..],
    );
    let selector = proptest::sample::select(&["{}", "{}", "{matchLabels: {a: b}}"][..]);
    let sections = (
        section("ingress"),
        section("ingressDeny"),
        section("egress"),
        section("egressDeny"),
    );
    (selector, deny, sections).prop_map(|(selector, deny, (a, b, c, d))| {
        format!("nodeSelector: {selector}\nenableDefaultDeny: {deny}\n{a}\n{b}\n{c}\n{d}")
    })
}

fn failsafe() -> impl Strategy<Value = Vec<FailsafeEntry>> {
    let proto = proptest::sample::select(&[1u8, 6, 17, 47, 58][..]);
    let peer = proptest::option::of(prefix());
    let entry =
        (0..2u32, proto, 0..4u16, peer).prop_map(|(direction, proto, port, peer)| FailsafeEntry {
            direction,
            proto,
            port,
            peer: peer.map(|prefix| prefix.parse().expect("a prefix")),
        });
    proptest::collection::vec(entry, 0..3)
}

fn packets() -> Vec<Packet> {
    let mut packets = vec![Packet::Fragment];
    for port in (0..9).chain([65_535]) {
        packets.extend([6, 17, 132].map(|proto| Packet::Port { proto, port }));
    }
    for icmp_type in 0..10 {
        packets.push(Packet::Icmp { icmp_type });
        packets.push(Packet::Icmpv6 { icmp_type });
    }
    packets.extend([4, 47, 50, 89].map(|proto| Packet::Other { proto }));
    packets
}

fn check(
    options: PolicyOptions,
    changes: &[RepositoryChange],
    audit: bool,
) -> Result<(), TestCaseError> {
    let mut repository = Repository::new(options);
    for change in changes {
        repository.apply(change);
    }
    let snapshot = repository.snapshot();
    let endpoint = resolve(&snapshot, Subject::Host(EndpointId(1)), audit).expect("fits");
    for direction in Direction::BOTH {
        for address in ADDRESSES {
            for packet in packets() {
                agree(&snapshot, &endpoint, direction, address, packet)
                    .map_err(TestCaseError::fail)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn tables_say_what_the_oracle_says(
        specs in proptest::collection::vec(spec(), 0..5),
        failsafe in failsafe(),
        others in proptest::collection::vec(proptest::sample::select(&ADDRESSES[..]), 0..3),
        own in proptest::collection::vec(proptest::sample::select(&ADDRESSES[..]), 0..2),
        mode in proptest::sample::select(
            &[EnforcementMode::Default, EnforcementMode::Always, EnforcementMode::Never][..]
        ),
        labelled: bool,
        audit: bool,
    ) {
        let options = PolicyOptions { failsafe, enforcement: mode, ..options() };
        let labels = if labelled { "a: b" } else { "" };
        let mut changes = vec![node("self", labels, &own), node("other", "", &others)];
        for (number, spec) in specs.iter().enumerate() {
            changes.push(policy(&format!("p{number}"), spec));
        }
        check(options.clone(), &changes, audit)?;
        // Replaced and deleted policies leave nothing behind.
        changes.extend(specs.iter().rev().enumerate().map(|(number, spec)| {
            policy(&format!("p{number}"), spec)
        }));
        check(options, &changes, audit)?;
    }
}
