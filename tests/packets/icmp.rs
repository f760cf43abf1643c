//! ICMP of both families: the table of ICMPv6, types by rule, and errors that
//! pass with the flow that they are about.

use std::net::{IpAddr, UdpSocket};

use palisade::policy::{Direction, Packet};
use palisade_abi::conntrack::flags;
use palisade_abi::reason;

use crate::classes::{Strangers, allowing, ends, own};
use crate::frames::{
    ACK, Ip, L4, SYN, for_other_station, frame, icmp, icmp_error, ip, raw, sctp, tcp, udp,
};
use crate::host::{
    DROP_FORBIDDEN, DROP_POLICY, DROP_SPOOF, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6,
    pass, passes_as,
};

/// What the table of ICMPv6 says where policy allows nothing.
fn by_the_table(message_type: u8) -> Expect {
    match message_type {
        1..=4 => passes_as(reason::RELATED),
        130..=136 | 141..=143 | 148 | 149 | 151..=153 => passes_as(reason::ICMPV6_BYPASS),
        128 | 129 => Expect::Drop(DROP_POLICY),
        _ => Expect::Drop(DROP_FORBIDDEN),
    }
}

#[test]
fn the_table_of_icmpv6_holds_in_both_directions_behind_any_header() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    let shapes = [
        vec![],
        vec![0],
        vec![0, 60],
        vec![60, 43, 51, 0, 60, 60, 60, 60],
    ];
    let mut fragment = 0;
    for direction in Direction::BOTH {
        let (from, to) = ends(direction, HOST6, OUTSIDER6);
        for message_type in 0..=255_u8 {
            let expected = by_the_table(message_type);
            let message = icmp(58, message_type, 0, 1);
            for extensions in shapes.clone() {
                let what = format!("ICMPv6 {message_type} behind {extensions:?}");
                let shape = Ip {
                    extensions,
                    ..Ip::default()
                };
                let packet = frame(&ip(from, to, &shape, &message));
                host.send(&what, direction, &packet, expected);
            }
            fragment += 1;
            let shape = Ip {
                fragment: Some((0, true, fragment)),
                ..Ip::default()
            };
            let what = format!("ICMPv6 {message_type}, first fragment");
            let packet = frame(&ip(from, to, &shape, &message));
            host.send(&what, direction, &packet, expected);
        }
    }
}

/// No rule closes what the table opens or opens what it forbids.
#[test]
fn rules_decide_about_echo_alone_in_icmpv6() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    for allowed in [1, 128, 129, 135, 137, 138, 200] {
        let item = format!("icmps: [{{fields: [{{family: IPv6, type: {allowed}}}]}}]");
        host.apply(&allowing(&item));
        for direction in Direction::BOTH {
            for message_type in 0..=255_u8 {
                let peer = strangers.next(false);
                let mut expected = by_the_table(message_type);
                if matches!(message_type, 128 | 129) {
                    if message_type == allowed {
                        expected = passes_as(reason::FORWARDED);
                    }
                    let icmp_type = message_type;
                    let plain = host.oracle(direction, peer, Packet::Icmpv6 { icmp_type });
                    assert_eq!(plain, expected);
                }
                let (from, to) = ends(direction, HOST6, peer);
                let packet = ip(from, to, &Ip::default(), &icmp(58, message_type, 0, 1));
                let what = format!("ICMPv6 {message_type}, allowed is {allowed}");
                host.send(&what, direction, &frame(&packet), expected);
            }
        }
    }
}

#[test]
fn every_type_of_icmpv4_is_opened_by_its_own_rule() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    for allowed in [0, 3, 5, 8, 11, 13, 40, 255] {
        let item = format!("icmps: [{{fields: [{{type: {allowed}}}]}}]");
        host.apply(&allowing(&item));
        for direction in Direction::BOTH {
            for icmp_type in 0..=255_u8 {
                let peer = strangers.next(true);
                let expected = if icmp_type == allowed {
                    passes_as(reason::FORWARDED)
                } else {
                    Expect::Drop(DROP_POLICY)
                };
                let plain = host.oracle(direction, peer, Packet::Icmp { icmp_type });
                assert_eq!(plain, expected);
                let (from, to) = ends(direction, HOST4, peer);
                let packet = ip(from, to, &Ip::default(), &icmp(1, icmp_type, 0, 1));
                let what = format!("ICMP {icmp_type}, allowed is {allowed}");
                host.send(&what, direction, &frame(&packet), expected);
            }
        }
    }
}

#[test]
fn control_messages_pass_even_with_our_own_address_and_others_do_not() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    let shape = Ip::default();
    for message_type in 0..=255_u8 {
        // Another node defends the address that we are about to take.
        let forged = frame(&ip(HOST6, HOST6, &shape, &icmp(58, message_type, 0, 1)));
        let expected = match by_the_table(message_type) {
            Expect::Drop(DROP_POLICY) => Expect::Drop(DROP_SPOOF),
            other => other,
        };
        host.ingress(&format!("ICMPv6 {message_type}"), &forged, expected);
    }
}

#[test]
fn icmp_that_is_not_for_us_or_not_enforced_is_untouched() {
    let Some(mut host) = Host::new() else { return };
    let elsewhere4: IpAddr = "10.0.7.7".parse().expect("an address");
    let elsewhere6: IpAddr = "fd00:7::7".parse().expect("an address");
    let shape = Ip::default();
    for policy in [allowing(""), String::new()] {
        host.apply(&policy);
        for message_type in 0..=255_u8 {
            let what = format!("type {message_type}");
            for (from, to, proto) in [(OUTSIDER4, elsewhere4, 1), (OUTSIDER6, elsewhere6, 58)] {
                let message = icmp(proto, message_type, 0, 1);
                let packet = frame(&ip(from, to, &shape, &message));
                host.ingress(
                    &what,
                    &for_other_station(&packet),
                    untouched(message_type, proto),
                );
                host.forwarded(&what, &packet, untouched(message_type, proto));
            }
        }
    }
    for message_type in 0..=255_u8 {
        let what = format!("ICMPv6 {message_type}, not enforced");
        for direction in Direction::BOTH {
            let (from, to) = ends(direction, HOST6, OUTSIDER6);
            let packet = frame(&ip(from, to, &shape, &icmp(58, message_type, 0, 1)));
            let expected = match by_the_table(message_type) {
                Expect::Drop(DROP_POLICY) => passes_as(reason::FORWARDED),
                Expect::Drop(_) => passes_as(reason::NOT_ENFORCED),
                passes => passes,
            };
            host.send(&what, direction, &packet, expected);
        }
    }
}

/// The exit of a packet that is not ours; control messages are not asked whose
/// they are.
fn untouched(message_type: u8, proto: u8) -> Expect {
    if proto == 58 && !matches!(by_the_table(message_type), Expect::Drop(_)) {
        by_the_table(message_type)
    } else {
        passes_as(reason::NOT_OURS)
    }
}

/// An error of a router about a packet that went the other way.
fn error(host: IpAddr, direction: Direction, message: (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let router: IpAddr = "172.16.0.1".parse().expect("an address");
    let (from, to) = ends(direction, host, router);
    let error = icmp_error(1, message.0, message.1, quoted);
    frame(&ip(from, to, &Ip::default(), &error))
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// Everything but ICMP, opened from either side.
const OPEN: &str = r#"toPorts: [{ports: [{port: "7001"}, {protocol: GRE}, {protocol: ESP}]}]"#;

fn carried() -> [(&'static str, L4); 5] {
    [
        ("TCP", tcp(41_000, 7_001, SYN)),
        ("UDP", udp(41_000, 7_001)),
        ("SCTP", sctp(41_000, 7_001)),
        ("GRE", raw(47)),
        ("ESP", raw(50)),
    ]
}

#[test]
fn errors_pass_with_the_flow_they_quote_and_are_judged_without_it() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(OPEN));
    let mut strangers = Strangers::default();
    let shape = Ip::default();
    let (related, judged) = (passes_as(reason::RELATED), Expect::Drop(DROP_POLICY));
    // Who opens; the error about it comes from the other side.
    for opens in Direction::BOTH {
        let back = other(opens);
        for (name, l4) in carried() {
            let peer = strangers.next(true);
            let (from, to) = ends(opens, HOST4, peer);
            let sent = ip(from, to, &shape, &l4);
            let quote = &sent[..28];
            let all = (0..=15)
                .map(|code| (3, code))
                .chain([(11, 0), (11, 1), (12, 0)]);
            for message in all.clone() {
                let expected = if message == (3, 4) { related } else { judged };
                let what = format!("{name}: {message:?} about nothing");
                host.send(&what, back, &error(HOST4, back, message, quote), expected);
            }
            host.send(name, opens, &frame(&sent), pass());
            for message in all {
                let what = format!("{name}: {message:?}");
                host.send(&what, back, &error(HOST4, back, message, quote), related);
                let what = format!("{name}: {message:?}, whole packet");
                host.send(&what, back, &error(HOST4, back, message, &sent), related);
            }
            for message in [(4, 0), (5, 0), (5, 1), (13, 0), (30, 0)] {
                let what = format!("{name}: {message:?}, no error");
                host.send(&what, back, &error(HOST4, back, message, quote), judged);
            }
            // The same quote on the other way is about no packet of this flow.
            let reversed = error(HOST4, opens, (3, 3), quote);
            host.send(&format!("{name}: wrong way"), opens, &reversed, judged);
        }
    }
}

#[test]
fn errors_about_answers_pass_too() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(OPEN));
    let mut strangers = Strangers::default();
    let shape = Ip::default();
    for opens in Direction::BOTH {
        let back = other(opens);
        let peer = strangers.next(true);
        let (from, to) = ends(opens, HOST4, peer);
        host.send(
            "open",
            opens,
            &frame(&ip(from, to, &shape, &udp(42_000, 7_001))),
            pass(),
        );
        let answer = ip(to, from, &shape, &udp(7_001, 42_000));
        host.send("answer", back, &frame(&answer), pass());
        let refused = error(HOST4, opens, (3, 3), &answer[..28]);
        host.send(
            "port unreachable",
            opens,
            &refused,
            passes_as(reason::RELATED),
        );
    }
}

#[test]
fn errors_that_quote_too_little_or_something_else_are_judged() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(OPEN));
    let sent = ip(HOST4, OUTSIDER4, &Ip::default(), &udp(43_000, 7_001));
    host.egress("sent", &frame(&sent), pass());
    let judged = Expect::Drop(DROP_POLICY);
    let mut ask = |what: &str, quote: &[u8], expected| {
        let packet = error(HOST4, Direction::Ingress, (3, 3), quote);
        host.ingress(what, &packet, expected);
    };
    for length in 0..28 {
        ask(&format!("{length} octets"), &sent[..length], judged);
    }
    ask("enough", &sent[..28], passes_as(reason::RELATED));
    let with_options = Ip {
        options: vec![1; 12],
        ..Ip::default()
    };
    let longer = ip(HOST4, OUTSIDER4, &with_options, &udp(43_000, 7_001));
    ask("options", &longer, passes_as(reason::RELATED));
    let changed = |at: usize, value: u8| {
        let mut quote = sent.clone();
        quote[at] = value;
        quote
    };
    ask("version 6", &changed(0, 0x65), judged);
    ask("a later fragment", &changed(7, 1), judged);
    ask("another protocol", &changed(9, 6), judged);
    ask("another source", &changed(15, 9), judged);
    ask("another destination", &changed(19, 8), judged);
    ask("another source port", &changed(21, 1), judged);
    ask("another destination port", &changed(23, 1), judged);
}

#[test]
fn errors_about_a_revoked_flow_are_dropped_at_once() {
    let Some(mut host) = Host::new() else { return };
    let shape = Ip::default();
    for opens in Direction::BOTH {
        let back = other(opens);
        host.apply(&allowing(OPEN));
        let (from, to) = ends(opens, HOST4, OUTSIDER4);
        let sent = ip(from, to, &shape, &udp(44_000, 7_001));
        host.send("open", opens, &frame(&sent), pass());
        let refused = error(HOST4, back, (3, 3), &sent[..28]);
        host.send("allowed", back, &refused, passes_as(reason::RELATED));
        host.apply(&allowing(""));
        host.send("revoked", back, &refused, Expect::Drop(DROP_POLICY));
        host.apply(&allowing(OPEN));
        host.send("allowed again", back, &refused, passes_as(reason::RELATED));
    }
}

/// A flow that is older than the first enforcement: the agent enters it from
/// the sockets of this host.
#[test]
fn errors_about_adopted_flows_pass() {
    let Some(mut host) = Host::new() else { return };
    host.run("ip link set lo up");
    host.run("ip addr add 10.0.0.1/32 dev lo");
    host.run("ip route add default dev lo src 10.0.0.1");
    let socket = UdpSocket::bind((HOST4, 45_000)).expect("an own address");
    socket.connect((OUTSIDER4, 7_001)).expect("a route");
    let sent = ip(HOST4, OUTSIDER4, &Ip::default(), &udp(45_000, 7_001));
    let refused = error(HOST4, Direction::Ingress, (3, 3), &sent[..28]);
    host.apply(&allowing(OPEN));
    let mut adopted = 0;
    let each = host.inspector().for_each_flow(|flow| {
        adopted += usize::from(flow.flags & flags::ADOPTED != 0);
        true
    });
    each.expect("the flows");
    assert_eq!(adopted, 1);
    host.ingress("adopted", &refused, passes_as(reason::RELATED));
    let other = ip(HOST4, OUTSIDER4, &Ip::default(), &udp(45_001, 7_001));
    let refused = error(HOST4, Direction::Ingress, (3, 3), &other[..28]);
    host.ingress("not adopted", &refused, Expect::Drop(DROP_POLICY));
}

/// Errors about what the host only forwards and masquerades.
#[test]
fn errors_about_masqueraded_flows_pass() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    let sent = ip(HOST4, OUTSIDER4, &Ip::default(), &tcp(46_000, 443, SYN));
    let exceeded = error(HOST4, Direction::Ingress, (11, 0), &sent[..28]);
    host.ingress("too early", &exceeded, Expect::Drop(DROP_POLICY));
    host.forwarded("masqueraded", &frame(&sent), passes_as(reason::NOT_OURS));
    host.ingress("its error", &exceeded, passes_as(reason::RELATED));
}

/// Path-MTU messages pass in both families, whatever they quote.
#[test]
fn messages_about_the_path_mtu_always_pass() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    let shape = Ip::default();
    let related = passes_as(reason::RELATED);
    let quote4 = ip(HOST4, OUTSIDER4, &shape, &tcp(47_000, 443, ACK));
    let quote6 = ip(HOST6, OUTSIDER6, &shape, &tcp(47_000, 443, ACK));
    for direction in Direction::BOTH {
        for quote in [&quote4[..], &quote4[..28], &[0; 28], &[]] {
            let too_big = error(HOST4, direction, (3, 4), quote);
            host.send("fragmentation needed", direction, &too_big, related);
        }
        let (from, to) = ends(direction, own(false), OUTSIDER6);
        for quote in [&quote6[..], &[]] {
            let too_big = frame(&ip(from, to, &shape, &icmp_error(58, 2, 0, quote)));
            host.send("packet too big", direction, &too_big, related);
        }
    }
}
