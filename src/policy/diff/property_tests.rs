//! A comparison lists exactly the packets whose verdict changes.

use proptest::prelude::*;

use super::{PolicyDiff, VerdictChange, diff};
use crate::policy::explain::{link_control, verdict};
use crate::policy::language::{Entity, L4Match, Operator, Peer, Peers, PortProtocol, Ports};
use crate::policy::oracle::tests::{HOST, PEERS, add, address, cluster, item, selector};
use crate::policy::oracle::{Book, Listening, Side};
use crate::policy::{
    Direction, EnforcementMode, FailsafeEntry, Packet, PolicyOptions, PolicySnapshot, Section,
};

const PREFIXES: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.2.0.0/16",
    "192.0.2.0/24",
    "192.0.2.0/28",
    "192.0.2.10/32",
    "192.0.2.0/25",
    "192.0.2.128/25",
    "::/0",
    "2001:db8::/32",
];
/// Besides those of the cluster.
const OTHERS: [&str; 6] = [
    "10.9.9.9",
    "10.2.9.9",
    "192.0.2.5",
    "192.0.2.200",
    "2001:db8::1",
    "2001:db9::1",
];

fn peer() -> impl Strategy<Value = Peer> {
    let prefix = || proptest::sample::select(&PREFIXES[..]);
    prop_oneof![
        2 => proptest::sample::select(&Entity::ALL[..]).prop_map(Peer::Entity),
        4 => (prefix(), proptest::collection::vec(prefix(), 0..3)).prop_map(|(cidr, except)| {
            let parse = |text: &str| text.parse().expect("a prefix");
            let cidr: ipnet::IpNet = parse(cidr);
            let except = except.into_iter().map(parse).filter(|one| cidr.contains(one));
            Peer::Cidr { cidr, except: except.collect() }
        }),
        1 => Just(Peer::Endpoints(selector(&[("any", "app", Operator::Exists, &[])]))),
        1 => Just(Peer::Nodes(selector(&[("any", "role", Operator::In, &["db"])]))),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    let protocol = || proptest::sample::select(&PortProtocol::ALL[..]);
    let l4 = prop_oneof![
        4 => (protocol(), 0..6u16, 0..6u16).prop_map(|(protocol, first, more)| L4Match::Ports {
            protocol,
            first,
            last: first + more,
        }),
        1 => Just(L4Match::Ports { protocol: PortProtocol::Tcp, first: 0, last: u16::MAX }),
        1 => protocol().prop_map(|protocol| L4Match::Named { protocol, name: "http".to_owned() }),
        1 => (0..4u8).prop_map(|number| L4Match::Protocol(46 + number)),
        1 => (0..10u8).prop_map(L4Match::Icmp),
        1 => (125..138u8).prop_map(L4Match::Icmpv6),
    ];
    prop_oneof![
        1 => Just(Ports::All),
        3 => proptest::collection::vec(l4, 0..3).prop_map(Ports::Some),
    ]
}

type Written = (Section, Peers, Ports, bool);

fn written() -> impl Strategy<Value = Written> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        4 => proptest::collection::vec(peer(), 0..3).prop_map(Peers::Select),
    ];
    let section = proptest::sample::select(&Section::OF_RULES[..]);
    (section, peers, ports(), proptest::bool::weighted(0.2))
}

fn options() -> impl Strategy<Value = PolicyOptions> {
    let mode = proptest::sample::select(
        &[
            EnforcementMode::Default,
            EnforcementMode::Default,
            EnforcementMode::Always,
        ][..],
    );
    let failsafe = proptest::option::of((0..2u32, 0..4u16)).prop_map(|entry| {
        let entry = entry.map(|(direction, port)| FailsafeEntry {
            direction,
            proto: 6,
            port,
            peer: Some("192.0.2.0/25".parse().expect("a prefix")),
        });
        entry.into_iter().collect()
    });
    (mode, failsafe, any::<bool>()).prop_map(|(enforcement, failsafe, cidr_match_nodes)| {
        PolicyOptions {
            enforcement,
            failsafe,
            cidr_match_nodes,
            ..PolicyOptions::default()
        }
    })
}

fn snapshot(options: PolicyOptions, rules: &[Written], gone: usize) -> PolicySnapshot {
    let mut snapshot = cluster(options);
    for (number, (section, peers, ports, audit)) in rules.iter().enumerate() {
        let item = item(*section, peers.clone(), ports.clone());
        add(&mut snapshot, &format!("p{number}"), *audit, vec![item]);
    }
    if let Some(key) = snapshot.objects.keys().nth(gone).cloned() {
        snapshot.objects.remove(&key);
    }
    snapshot
}

fn packets(ipv6: bool) -> Vec<Packet> {
    let mut packets = vec![Packet::Fragment];
    for port in (0..13).chain([80, 81, 65_535]) {
        packets.extend([6, 17, 132].map(|proto| Packet::Port { proto, port }));
    }
    if ipv6 {
        let types = (0..6).chain(124..156);
        packets.extend(types.map(|icmp_type| Packet::Icmpv6 { icmp_type }));
    } else {
        packets.extend((0..12).map(|icmp_type| Packet::Icmp { icmp_type }));
    }
    packets.extend((44..52).map(|proto| Packet::Other { proto }));
    packets
}

/// Whether the names of packets mean this one.
fn names_mean(names: &[String], packet: Packet) -> bool {
    let (whole, line, value) = match packet {
        Packet::Port { proto: 6, port } => ("tcp", "tcp", port),
        Packet::Port { proto: 17, port } => ("udp", "udp", port),
        Packet::Port { port, .. } => ("sctp", "sctp", port),
        Packet::Icmp { icmp_type } => ("icmp", "icmp", icmp_type.into()),
        Packet::Icmpv6 { icmp_type } => ("icmpv6", "icmpv6", icmp_type.into()),
        Packet::Other { proto } => ("other protocols", "protocol", proto.into()),
        Packet::Fragment => ("fragments without ports", "", 0),
    };
    names.iter().any(|name| {
        if name == "any" || name == whole {
            return true;
        }
        let Some((written, range)) = name.split_once('/') else {
            return false;
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().expect("a number");
        written == line && (number(first)..=number(last)).contains(&value)
    })
}

fn covering<'a>(
    told: &'a PolicyDiff,
    direction: Direction,
    (peer, is_world): (&str, bool),
    packet: Packet,
) -> Vec<&'a VerdictChange> {
    let holds = |change: &&VerdictChange| {
        let mut peers = change.peers.iter();
        change.direction == direction.as_str()
            && names_mean(&change.packets, packet)
            && peers.any(|set| (set.kind == "world") == is_world && set.contains(address(peer)))
    };
    told.changes.iter().filter(holds).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn exactly_what_changes_is_told(
        rules in proptest::collection::vec(written(), 0..6),
        less in 0..6usize,
        more in proptest::collection::vec(written(), 0..3),
        options in (options(), options()),
        gone in (0..40usize, 0..40usize),
    ) {
        let kept: Vec<Written> = rules.iter().skip(less).chain(&more).cloned().collect();
        let before = snapshot(options.0, &rules, gone.0);
        let after = snapshot(options.1, &kept, gone.1);
        let told = diff(&before, &after, HOST);
        let books = [Book::new(&before), Book::new(&after)];
        for direction in Direction::BOTH {
            for peer in PEERS.into_iter().chain(OTHERS) {
                let at = address(peer);
                let whos = books.each_ref().map(|book| book.who(at));
                let is_world = whos.iter().all(|who| who.side == Side::World);
                let listening: [Listening<'_, '_>; 2] = std::array::from_fn(|side| {
                    Listening::new(&books[side], HOST, direction, &whos[side])
                });
                for packet in packets(at.is_ipv6()) {
                    let [was, is] = listening.each_ref().map(|side| {
                        let judgement = side.judge(packet);
                        let (verdict, rule) = verdict(&judgement, packet, false);
                        (verdict.as_str(), rule.map(ToString::to_string))
                    });
                    let found = covering(&told, direction, (peer, is_world), packet);
                    let words = || format!("{direction:?} {peer} {packet:?} {was:?} {is:?}: {told:#?}");
                    if was.0 == is.0 && link_control(packet).is_some() {
                        // Left out of `any` and of ranges: nothing to change.
                        continue;
                    }
                    if was.0 == is.0 {
                        prop_assert!(found.is_empty(), "told in vain: {}", words());
                    } else {
                        prop_assert_eq!(found.len(), 1, "not told once: {}", words());
                        prop_assert_eq!(found[0].before.verdict.as_str(), was.0);
                        prop_assert_eq!(found[0].after.verdict.as_str(), is.0);
                        prop_assert_eq!(&found[0].before.rule, &was.1);
                        prop_assert_eq!(&found[0].after.rule, &is.1);
                    }
                }
            }
        }
    }
}
