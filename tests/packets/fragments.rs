//! Fragments of both families, in both directions and in any order.

use std::net::IpAddr;

use palisade::policy::{Direction, Packet};
use palisade_abi::event::flags;
use palisade_abi::reason;

use crate::classes::{Strangers, ends, own};
use crate::frames::{Ip, L4, RST, SYN, frame, icmp, ip, raw, sctp, tcp, udp};
use crate::host::{
    DROP_FRAGMENT, DROP_INVALID, DROP_POLICY, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6,
    passes_as,
};

/// Some ports, echo and GRE for everybody; all for some addresses.
const MIXED: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: mixed}
spec:
  nodeSelector: {}
  ingress:
  - toPorts: [{ports: [{port: "7001"}, {protocol: GRE}]}]
  - icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]
  - fromCIDR: [10.0.9.9/32, "fd00:9::9/128"]
  egress:
  - toPorts: [{ports: [{port: "7001"}, {protocol: GRE}]}]
  - icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]
  - toCIDR: [10.0.9.9/32, "fd00:9::9/128"]
"#;

/// A datagram in pieces of 24 octets; `id` is its identification.
fn pieces(from: IpAddr, to: IpAddr, l4: &L4, id: u32) -> Vec<Vec<u8>> {
    let mut bytes = l4.bytes.clone();
    bytes.resize(96, 0xaa);
    let count = bytes.len() / 24;
    let piece = |(place, part): (usize, &[u8])| {
        let offset = u16::try_from(place * 24).expect("a small datagram");
        let shape = Ip {
            fragment: Some((offset, place + 1 < count, id)),
            ..Ip::default()
        };
        let l4 = L4 {
            proto: l4.proto,
            bytes: part.to_vec(),
        };
        frame(&ip(from, to, &shape, &l4))
    };
    bytes.chunks(24).enumerate().map(piece).collect()
}

/// What opens a flow, and whether [`MIXED`] allows it.
fn datagrams(v4: bool) -> Vec<(&'static str, L4, bool)> {
    let echo = if v4 {
        icmp(1, 8, 0, 9)
    } else {
        icmp(58, 128, 0, 9)
    };
    vec![
        ("TCP", tcp(40_002, 7_001, SYN), true),
        ("TCP", tcp(40_002, 7_002, SYN), false),
        ("UDP", udp(40_002, 7_001), true),
        ("UDP", udp(40_002, 7_002), false),
        ("SCTP", sctp(40_002, 7_001), true),
        ("SCTP", sctp(40_002, 7_002), false),
        ("echo", echo, true),
        ("GRE", raw(47), true),
        ("ESP", raw(50), false),
    ]
}

fn verdict(allowed: bool) -> Expect {
    if allowed {
        passes_as(reason::FORWARDED)
    } else {
        Expect::Drop(DROP_POLICY)
    }
}

/// Every order of four pieces.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for number in 0..256_usize {
        let order = [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6];
        if (0..4).all(|piece| order.contains(&piece)) {
            orders.push(order);
        }
    }
    orders
}

#[test]
fn in_any_order_what_precedes_the_first_fragment_is_judged_by_addresses_alone() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    assert_eq!(orders().len(), 24);
    let mut strangers = Strangers::default();
    let mut id = 1_000;
    for direction in Direction::BOTH {
        let counted = host.count(DROP_FRAGMENT, direction);
        let mut lost = 0;
        for v4 in [true, false] {
            for (name, l4, allowed) in datagrams(v4) {
                for order in orders() {
                    id += 1;
                    let peer = strangers.next(v4);
                    let (from, to) = ends(direction, own(v4), peer);
                    let pieces = pieces(from, to, &l4, id);
                    let mut expected = Expect::Drop(DROP_FRAGMENT);
                    assert_eq!(host.oracle(direction, peer, Packet::Fragment), expected);
                    for place in order {
                        if place == 0 {
                            expected = verdict(allowed);
                        }
                        lost += u64::from(expected == Expect::Drop(DROP_FRAGMENT));
                        let what = format!("{name}, fragment {place} of {order:?}");
                        host.send(&what, direction, &pieces[place], expected);
                    }
                }
            }
        }
        assert_eq!(host.count(DROP_FRAGMENT, direction) - counted, lost);
        assert!(lost > 100, "{lost} came too early");
    }
}

#[test]
fn a_peer_that_may_do_everything_may_send_fragments_in_any_order() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    let mut id = 30_000;
    for direction in Direction::BOTH {
        for peer in [OUTSIDER4, OUTSIDER6] {
            let allowed = passes_as(reason::FORWARDED);
            assert_eq!(host.oracle(direction, peer, Packet::Fragment), allowed);
            for (name, l4, _) in datagrams(peer.is_ipv4()) {
                for order in orders() {
                    id += 1;
                    let (from, to) = ends(direction, own(peer.is_ipv4()), peer);
                    let pieces = pieces(from, to, &l4, id);
                    for place in order {
                        let what = format!("{name}, fragment {place} of {order:?}");
                        host.send(&what, direction, &pieces[place], allowed);
                    }
                }
            }
        }
    }
}

/// Identification, addresses and (IPv4) protocol tell datagrams apart.
#[test]
fn the_first_fragment_of_another_datagram_helps_nobody() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    let mut strangers = Strangers::default();
    for direction in Direction::BOTH {
        for v4 in [true, false] {
            let peer = strangers.next(v4);
            let (from, to) = ends(direction, own(v4), peer);
            let allowed = udp(40_003, 7_001);
            let ours = pieces(from, to, &allowed, 500);
            host.send("first", direction, &ours[0], verdict(true));
            host.send("second", direction, &ours[1], verdict(true));
            let lost = Expect::Drop(DROP_FRAGMENT);
            let other = pieces(from, to, &allowed, 501);
            host.send("another number", direction, &other[1], lost);
            let (from, to) = ends(direction, own(v4), strangers.next(v4));
            let other = pieces(from, to, &allowed, 500);
            host.send("another peer", direction, &other[1], lost);
            // The same number for a datagram that is denied: its own first
            // fragment counts from now on.
            let (from, to) = ends(direction, own(v4), peer);
            let denied = pieces(from, to, &udp(40_003, 7_002), 500);
            host.send("denied", direction, &denied[0], verdict(false));
            host.send("denied", direction, &denied[1], verdict(false));
        }
    }
    let (from, to) = (strangers.next(true), HOST4);
    let first = pieces(from, to, &udp(40_003, 7_001), 600);
    host.ingress("first", &first[0], verdict(true));
    let other = pieces(from, to, &tcp(40_003, 7_001, SYN), 600);
    host.ingress("another protocol", &other[1], Expect::Drop(DROP_FRAGMENT));
}

#[test]
fn a_first_fragment_without_its_whole_header_is_dropped_for_every_peer() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    for direction in Direction::BOTH {
        for peer in [OUTSIDER4, OUTSIDER6] {
            let v4 = peer.is_ipv4();
            let (from, to) = ends(direction, own(v4), peer);
            for (name, l4, _) in datagrams(v4) {
                let whole = match name {
                    "TCP" => 20,
                    "SCTP" => 12,
                    "GRE" | "ESP" => 0,
                    _ => 8,
                };
                for length in 0..l4.bytes.len().min(24) {
                    let shape = Ip {
                        fragment: Some((0, true, 700)),
                        ..Ip::default()
                    };
                    let part = L4 {
                        proto: l4.proto,
                        bytes: l4.bytes[..length].to_vec(),
                    };
                    let expected = if length < whole {
                        Expect::Drop(DROP_INVALID)
                    } else {
                        verdict(true)
                    };
                    let what = format!("{length} octets of {name}");
                    let packet = frame(&ip(from, to, &shape, &part));
                    host.send(&what, direction, &packet, expected);
                }
            }
        }
    }
}

/// A second fragment over the TCP header of the first one.
#[test]
fn a_fragment_that_rewrites_the_header_is_dropped_for_every_peer() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    for direction in Direction::BOTH {
        for peer in [OUTSIDER4, OUTSIDER6] {
            let v4 = peer.is_ipv4();
            let (from, to) = ends(direction, own(v4), peer);
            let first = pieces(from, to, &tcp(40_004, 7_001, SYN), 800);
            host.send("first", direction, &first[0], verdict(true));
            for more in [true, false] {
                let shape = Ip {
                    fragment: Some((8, more, 800)),
                    ..Ip::default()
                };
                let over = frame(&ip(from, to, &shape, &raw(6)));
                host.send("over it", direction, &over, Expect::Drop(DROP_INVALID));
            }
        }
    }
}

/// Destination options behind the fragment header are part of what was cut into
/// pieces: the later ones carry the number of the options, not of TCP.
#[test]
fn extension_headers_behind_the_fragment_header_change_no_verdict() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    let mut strangers = Strangers::default();
    for direction in Direction::BOTH {
        for (port, allowed) in [(7_001, true), (7_002, false)] {
            let (from, to) = ends(direction, HOST6, strangers.next(false));
            let mut bytes = vec![6, 0, 1, 4, 0, 0, 0, 0];
            bytes.extend(tcp(40_005, port, SYN).bytes);
            let whole = L4 { proto: 60, bytes };
            let parts = pieces(from, to, &whole, 900);
            // The first piece holds 16 octets of the TCP header: too little.
            host.send(
                "too little",
                direction,
                &parts[0],
                Expect::Drop(DROP_INVALID),
            );
            let mut head = whole.bytes.clone();
            head.resize(32, 0);
            let shape = |offset, more| Ip {
                fragment: Some((offset, more, 901)),
                ..Ip::default()
            };
            let piece = |bytes: &[u8], offset, more| {
                let l4 = L4 {
                    proto: 60,
                    bytes: bytes.to_vec(),
                };
                frame(&ip(from, to, &shape(offset, more), &l4))
            };
            host.send("first", direction, &piece(&head, 0, true), verdict(allowed));
            let rest = piece(&[0xaa; 16], 32, false);
            host.send("second", direction, &rest, verdict(allowed));
            for offset in [8, 16, 24] {
                let over = piece(&[0xaa; 8], offset, true);
                host.send("over it", direction, &over, Expect::Drop(DROP_INVALID));
            }
        }
    }
}

/// A fragmented flow is a flow: its answers pass, and its later packets too.
#[test]
fn fragments_open_flows_and_belong_to_flows() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    let mut strangers = Strangers::default();
    for v4 in [true, false] {
        let (own, peer) = (own(v4), strangers.next(v4));
        let question = pieces(own, peer, &udp(40_006, 7_001), 1_000);
        for piece in &question {
            host.egress("question", piece, verdict(true));
        }
        let answer = pieces(peer, own, &udp(7_001, 40_006), 1_001);
        let early = Expect::Drop(DROP_FRAGMENT);
        host.ingress("the end of the answer", &answer[3], early);
        for piece in &answer {
            host.ingress("answer", piece, verdict(true));
        }
        let other = pieces(peer, own, &udp(7_001, 40_007), 1_002);
        for piece in &other {
            host.ingress("no answer", piece, verdict(false));
        }
    }
}

#[test]
fn reports_say_that_it_was_a_fragment() {
    let Some(mut host) = Host::new() else { return };
    host.apply(MIXED);
    let mut strangers = Strangers::default();
    for v4 in [true, false] {
        let (from, to) = (strangers.next(v4), own(v4));
        let denied = pieces(from, to, &udp(40_008, 7_002), 1_100);
        host.events();
        for (place, expected) in [(3, DROP_FRAGMENT), (0, DROP_POLICY), (1, DROP_POLICY)] {
            host.ingress("denied", &denied[place], Expect::Drop(expected));
            let events = host.events();
            let [event] = &events[..] else {
                panic!("fragment {place}: not one event: {events:?}");
            };
            assert_eq!(event.reason, expected, "fragment {place}");
            let told = event.flags & flags::FRAGMENT != 0;
            assert_eq!(told, place != 0, "fragment {place}");
            let port = if place == 3 { 0 } else { 7_002 };
            assert_eq!(event.destination_port, port, "fragment {place}");
        }
    }
}

#[test]
fn nothing_is_dropped_where_nothing_is_enforced() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    for direction in Direction::BOTH {
        for (peer, own) in [(OUTSIDER4, HOST4), (OUTSIDER6, HOST6)] {
            let (from, to) = ends(direction, own, peer);
            for (name, l4, _) in datagrams(peer.is_ipv4()) {
                let parts = pieces(from, to, &l4, 1_200);
                for part in parts.iter().rev() {
                    host.send(name, direction, part, passes_as(reason::FORWARDED));
                }
            }
            let tiny = L4 {
                bytes: vec![0; 8],
                ..tcp(1, 2, RST)
            };
            let shape = |offset| Ip {
                fragment: Some((offset, true, 1_201)),
                ..Ip::default()
            };
            for offset in [0, 8] {
                let packet = frame(&ip(from, to, &shape(offset), &tiny));
                host.send("tiny", direction, &packet, passes_as(reason::NOT_ENFORCED));
            }
        }
    }
}
