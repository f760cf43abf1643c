//! Every class of packets by a rule of its own, in both families and both
//! directions: what the rule names passes and all else is denied, however the
//! packet is wrapped. The plain reading of the policy says the same, and each
//! decision is reported once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade::datapath::kernel::octets;
use palisade::policy::{Direction, Packet};
use palisade_abi::event::{Event, kind};
use palisade_abi::reason;

use crate::frames::{Ip, L4, SYN, frame, icmp, ip, raw, sctp, tagged, tcp, udp};
use crate::host::{DROP_EXTENSION, DROP_POLICY, Expect, HOST4, HOST6, Host, passes_as};

/// Port of everything that has ports.
const PORT: u16 = 7_001;

/// A kind of packet, and the rule that allows it and nothing else; None: no
/// rule can name it.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    rule: Option<&'static str>,
    /// By family; None where the class is none.
    v4: Option<(L4, Packet)>,
    v6: Option<(L4, Packet)>,
}

impl Class {
    fn new(
        name: &'static str,
        rule: &'static str,
        v4: Option<(L4, Packet)>,
        v6: Option<(L4, Packet)>,
    ) -> Self {
        let rule = Some(rule);
        Self { name, rule, v4, v6 }
    }

    /// A class with ports.
    fn ported(name: &'static str, rule: &'static str, l4: &L4) -> Self {
        let proto = l4.proto;
        let both = (l4.clone(), Packet::Port { proto, port: PORT });
        Self::new(name, rule, Some(both.clone()), Some(both))
    }

    /// A class without ports, the same in both families.
    fn portless(name: &'static str, rule: &'static str, proto: u8) -> Self {
        let both = (raw(proto), Packet::Other { proto });
        Self::new(name, rule, Some(both.clone()), Some(both))
    }

    /// A protocol that rules have no name for.
    fn nameless(name: &'static str, proto: u8) -> Self {
        let rule = None;
        Self {
            rule,
            ..Self::portless(name, "", proto)
        }
    }

    pub(crate) fn of(&self, v4: bool) -> Option<&(L4, Packet)> {
        if v4 {
            self.v4.as_ref()
        } else {
            self.v6.as_ref()
        }
    }
}

pub(crate) fn classes() -> Vec<Class> {
    let echo4 = (icmp(1, 8, 0, 77), Packet::Icmp { icmp_type: 8 });
    let echo6 = (icmp(58, 128, 0, 77), Packet::Icmpv6 { icmp_type: 128 });
    let timestamp = (icmp(1, 13, 0, 77), Packet::Icmp { icmp_type: 13 });
    let ah = (raw(51), Packet::Other { proto: 51 });
    // In the other family each is a protocol like any other.
    let lost4 = (icmp(58, 128, 0, 77), Packet::Other { proto: 58 });
    let lost6 = (icmp(1, 8, 0, 77), Packet::Other { proto: 1 });
    let ports = |protocol| match protocol {
        "TCP" => r#"toPorts: [{ports: [{port: "7001", protocol: TCP}]}]"#,
        "UDP" => r#"toPorts: [{ports: [{port: "7001", protocol: UDP}]}]"#,
        _ => r#"toPorts: [{ports: [{port: "7001", protocol: SCTP}]}]"#,
    };
    vec![
        Class::ported("TCP", ports("TCP"), &tcp(40_001, PORT, SYN)),
        Class::ported("UDP", ports("UDP"), &udp(40_001, PORT)),
        Class::ported("SCTP", ports("SCTP"), &sctp(40_001, PORT)),
        Class::new(
            "echo",
            "icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]",
            Some(echo4),
            Some(echo6),
        ),
        Class::new(
            "timestamp",
            "icmps: [{fields: [{type: 13}]}]",
            Some(timestamp),
            None,
        ),
        Class::portless("GRE", "toPorts: [{ports: [{protocol: GRE}]}]", 47),
        Class::portless("ESP", "toPorts: [{ports: [{protocol: ESP}]}]", 50),
        Class::new("AH", "toPorts: [{ports: [{protocol: AH}]}]", Some(ah), None),
        Class::portless("IPIP", "toPorts: [{ports: [{protocol: IPIP}]}]", 4),
        Class::portless("IPv6", "toPorts: [{ports: [{protocol: IPv6}]}]", 41),
        Class::portless("VRRP", "toPorts: [{ports: [{protocol: VRRP}]}]", 112),
        Class::portless("IGMP", "toPorts: [{ports: [{protocol: IGMP}]}]", 2),
        Class::nameless("OSPF", 89),
        Class::nameless("UDP-Lite", 136),
        Class::nameless("experimental", 253),
        Class::nameless("reserved", 255),
        Class {
            name: "ICMP of the other family",
            rule: None,
            v4: Some(lost4),
            v6: Some(lost6),
        },
    ]
}

/// One item for both directions; empty: nothing is allowed.
pub(crate) fn allowing(item: &str) -> String {
    let item = if item.is_empty() { "{}" } else { item };
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: one}}\n\
         spec:\n  nodeSelector: {{}}\n  ingress:\n  - {item}\n  egress:\n  - {item}\n"
    )
}

/// Peers of which each is met once, so that every packet opens a flow.
#[derive(Default)]
pub(crate) struct Strangers(u16);

impl Strangers {
    pub(crate) fn next(&mut self, v4: bool) -> IpAddr {
        self.0 += 1;
        let [high, low] = self.0.to_be_bytes();
        if v4 {
            Ipv4Addr::new(10, 99, high, low).into()
        } else {
            Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, self.0).into()
        }
    }
}

pub(crate) fn own(v4: bool) -> IpAddr {
    if v4 { HOST4 } else { HOST6 }
}

/// Source and destination of a packet in one direction.
pub(crate) fn ends(direction: Direction, own: IpAddr, peer: IpAddr) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Ingress => (peer, own),
        Direction::Egress => (own, peer),
    }
}

/// Sends a packet that opens a flow; the program, its report and the plain
/// reading of the policy must all say what is expected.
fn opens(
    host: &mut Host,
    class: &str,
    direction: Direction,
    peer: IpAddr,
    (l4, packet): &(L4, Packet),
    expected: Expect,
) {
    let what = format!("{class}, {peer}");
    assert_eq!(host.oracle(direction, peer, *packet), expected, "{what}");
    let (from, to) = ends(direction, own(peer.is_ipv4()), peer);
    let bytes = frame(&ip(from, to, &Ip::default(), l4));
    host.send(&what, direction, &bytes, expected);
    let events = host.events();
    let [event] = &events[..] else {
        panic!("{what}: not one event: {events:?}");
    };
    told(&what, event, direction, [from, to], l4.proto, *packet);
    let verdict = match expected {
        Expect::Drop(reason) => (kind::DROP, reason),
        _ => (kind::ALLOW, 0),
    };
    assert_eq!((event.kind, event.reason), verdict, "{what}");
    assert_eq!(event.rule != 0, verdict.0 == kind::ALLOW, "{what}: a rule");
    assert_eq!(event.len as usize, bytes.len(), "{what}");
}

/// Whether a report is about this packet.
fn told(
    what: &str,
    event: &Event,
    direction: Direction,
    addresses: [IpAddr; 2],
    proto: u8,
    packet: Packet,
) {
    assert_eq!(event.direction, direction as u8, "{what}");
    assert_eq!(
        event.family,
        if addresses[0].is_ipv4() { 4 } else { 6 },
        "{what}"
    );
    assert_eq!(event.proto, proto, "{what}");
    for (address, words) in addresses.into_iter().zip([event.source, event.destination]) {
        let bytes = octets(words);
        let told = match address {
            IpAddr::V4(_) => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            IpAddr::V6(_) => IpAddr::from(bytes),
        };
        assert_eq!(told, address, "{what}");
    }
    match packet {
        Packet::Port { port, .. } => assert_eq!(event.destination_port, port, "{what}"),
        Packet::Icmp { icmp_type } | Packet::Icmpv6 { icmp_type } => {
            assert_eq!(event.tcp_flags_or_type, icmp_type, "{what}");
        }
        Packet::Other { .. } | Packet::Fragment => {}
    }
}

#[test]
fn a_rule_opens_its_own_class_and_nothing_else() {
    let Some(mut host) = Host::new() else { return };
    let classes = classes();
    let mut strangers = Strangers::default();
    let rules = classes.iter().filter_map(|class| class.rule);
    for rule in rules.chain([""]) {
        host.apply(&allowing(rule));
        for class in &classes {
            let expected = if !rule.is_empty() && class.rule == Some(rule) {
                passes_as(reason::FORWARDED)
            } else {
                Expect::Drop(DROP_POLICY)
            };
            for direction in Direction::BOTH {
                for v4 in [true, false] {
                    let Some(packet) = class.of(v4) else { continue };
                    let peer = strangers.next(v4);
                    opens(&mut host, class.name, direction, peer, packet, expected);
                }
            }
        }
    }
}

const BY_ADDRESS: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: by-address}
spec:
  nodeSelector: {}
  ingress:
  - fromCIDR: [10.99.0.0/16, "fd99::/64"]
  egress:
  - toCIDR: [10.99.0.0/16, "fd99::/64"]
"#;

#[test]
fn a_rule_without_ports_opens_every_class_for_its_peers() {
    let Some(mut host) = Host::new() else { return };
    host.apply(BY_ADDRESS);
    let mut strangers = Strangers::default();
    for class in classes() {
        for direction in Direction::BOTH {
            for v4 in [true, false] {
                let Some(packet) = class.of(v4) else { continue };
                let allowed = passes_as(reason::FORWARDED);
                let peer = strangers.next(v4);
                opens(&mut host, class.name, direction, peer, packet, allowed);
                let outsider = if v4 { "10.100.0.1" } else { "fd99:1::1" };
                let outsider = outsider.parse().expect("an address");
                let denied = Expect::Drop(DROP_POLICY);
                opens(&mut host, class.name, direction, outsider, packet, denied);
            }
        }
    }
}

/// Ways to wrap a packet that must not change its verdict.
fn wrappings(v4: bool) -> Vec<Ip> {
    let mut all = vec![Ip::default()];
    if v4 {
        // No-operations; router alert; record route; strict and loose source
        // routes; a timestamp; an experimental one.
        for option in [1, 148, 7, 137, 131, 68, 30] {
            for length in (4..=40_u8).step_by(4) {
                let mut options = vec![1; usize::from(length)];
                if option != 1 {
                    options[..3].copy_from_slice(&[option, length, 4]);
                }
                let plain = Ip::default();
                all.push(Ip { options, ..plain });
            }
        }
        return all;
    }
    for length in 1..=8 {
        // Hop-by-hop, routing, destination options, AH, in turn.
        for first in 0..4 {
            let order = [0, 43, 60, 51].into_iter().cycle().skip(first);
            let extensions = order.take(length).collect();
            let plain = Ip::default();
            all.push(Ip {
                extensions,
                ..plain
            });
        }
    }
    // An atomic fragment header counts like any other.
    for length in 0..=7 {
        all.push(Ip {
            extensions: vec![60; length],
            fragment: Some((0, false, 5)),
            ..Ip::default()
        });
    }
    all
}

#[test]
fn options_extensions_and_tags_change_no_verdict_of_any_class() {
    let Some(mut host) = Host::new() else { return };
    let classes = classes();
    let mut strangers = Strangers::default();
    host.vlans(&[5, 6]);
    let named = classes.iter().filter_map(|class| class.rule);
    for rule in named {
        host.apply(&allowing(rule));
        for class in &classes {
            // Every class by its own rule, and two others that it denies.
            let by_its_own = class.rule == Some(rule);
            if !by_its_own && !["TCP", "experimental"].contains(&class.name) {
                continue;
            }
            let expected = if by_its_own {
                passes_as(reason::FORWARDED)
            } else {
                Expect::Drop(DROP_POLICY)
            };
            for direction in Direction::BOTH {
                for v4 in [true, false] {
                    let Some((l4, _)) = class.of(v4) else {
                        continue;
                    };
                    for shape in wrappings(v4) {
                        let (from, to) = ends(direction, own(v4), strangers.next(v4));
                        let packet = frame(&ip(from, to, &shape, l4));
                        let what = format!("{} as {shape:?}", class.name);
                        host.send(&what, direction, &packet, expected);
                    }
                    let (from, to) = ends(direction, own(v4), strangers.next(v4));
                    let packet = frame(&ip(from, to, &Ip::default(), l4));
                    for tags in [vec![5], vec![0], vec![6, 5], vec![0, 6]] {
                        let packet = tags.iter().fold(packet.clone(), |it, id| tagged(&it, *id));
                        let what = format!("{} with tags {tags:?}", class.name);
                        host.send(&what, direction, &packet, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn nine_extension_headers_are_too_many_for_every_class() {
    let Some(mut host) = Host::new() else { return };
    host.apply(BY_ADDRESS);
    let mut strangers = Strangers::default();
    for class in classes() {
        let Some((l4, _)) = class.of(false) else {
            continue;
        };
        for direction in Direction::BOTH {
            for extensions in [vec![60; 9], vec![0, 43, 51, 60, 0, 43, 51, 60, 51]] {
                let shape = Ip {
                    extensions,
                    ..Ip::default()
                };
                let (from, to) = ends(direction, HOST6, strangers.next(false));
                let packet = frame(&ip(from, to, &shape, l4));
                host.send(class.name, direction, &packet, Expect::Drop(DROP_EXTENSION));
            }
        }
    }
}

/// In IPv6, AH is a header before the one that counts.
#[test]
fn what_ah_authenticates_is_judged_by_itself() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    let behind_ah = Ip {
        extensions: vec![51],
        ..Ip::default()
    };
    for (rule, opened) in [("TCP", "TCP"), ("ESP", "ESP"), ("AH", "")] {
        let classes = classes();
        let rule = classes.iter().find(|class| class.name == rule);
        host.apply(&allowing(
            rule.and_then(|class| class.rule).expect("a rule"),
        ));
        for name in ["TCP", "UDP", "ESP", "GRE"] {
            let class = classes.iter().find(|class| class.name == name);
            let (l4, _) = class.and_then(|class| class.of(false)).expect("a class");
            for direction in Direction::BOTH {
                let (from, to) = ends(direction, HOST6, strangers.next(false));
                let packet = frame(&ip(from, to, &behind_ah, l4));
                let expected = if name == opened {
                    passes_as(reason::FORWARDED)
                } else {
                    Expect::Drop(DROP_POLICY)
                };
                host.send(&format!("{name} behind AH"), direction, &packet, expected);
            }
        }
    }
}
