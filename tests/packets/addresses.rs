//! Whose packet is it: own addresses, broadcast and multicast, DHCP, published
//! ports, and what the host only forwards.

use std::net::IpAddr;

use palisade::policy::Direction;
use palisade_abi::reason;

use crate::classes::{Strangers, allowing, classes, ends, own};
use crate::frames::{
    ACK, Ip, RST, SYN, broadcast, for_other_station, frame, icmp, icmp_error, ip, raw, tcp, udp,
};
use crate::host::{
    DROP_POLICY, DROP_SPOOF, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, passes_as,
};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const EVERYTHING: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: everything}
spec:
  nodeSelector: {}
  ingress: [{fromEntities: [all]}]
  egress: [{toEntities: [all]}]
"#;

#[test]
fn an_own_source_from_the_wire_is_refused_in_every_class_even_if_all_is_allowed() {
    let Some(mut host) = Host::new() else { return };
    for policy in [EVERYTHING, ""] {
        host.apply(policy);
        let expected = if policy.is_empty() {
            passes_as(reason::NOT_ENFORCED)
        } else {
            Expect::Drop(DROP_SPOOF)
        };
        for class in classes() {
            for v4 in [true, false] {
                let Some((l4, _)) = class.of(v4) else {
                    continue;
                };
                let forged = frame(&ip(own(v4), own(v4), &Ip::default(), l4));
                host.ingress(class.name, &forged, expected);
            }
        }
        // A fragment without its first one.
        for v4 in [true, false] {
            let shape = Ip {
                fragment: Some((64, true, 9)),
                ..Ip::default()
            };
            let forged = frame(&ip(own(v4), own(v4), &shape, &raw(17)));
            host.ingress("fragment", &forged, expected);
        }
    }
}

/// To an address that nobody has alone: no routing table forwards it.
fn to_many() -> [IpAddr; 6] {
    [
        "255.255.255.255",
        "10.0.0.255",
        "224.0.0.1",
        "239.1.2.3",
        "ff02::1",
        "ff05::1:3",
    ]
    .map(address)
}

/// The Ethernet address that goes with a multicast or broadcast address.
fn on_the_wire(to: IpAddr, frame: &[u8]) -> Vec<u8> {
    let mut bytes = broadcast(frame);
    match to {
        IpAddr::V4(v4) if v4.is_multicast() => {
            let low = v4.octets();
            bytes[..6].copy_from_slice(&[1, 0, 0x5e, low[1] & 0x7f, low[2], low[3]]);
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(v6) => {
            let low = v6.octets();
            bytes[..6].copy_from_slice(&[0x33, 0x33, low[12], low[13], low[14], low[15]]);
        }
    }
    bytes
}

#[test]
fn broadcast_and_multicast_are_policed_packet_by_packet() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    let open = r#"toPorts: [{ports: [{port: "5353", protocol: UDP}, {protocol: VRRP}]}]"#;
    host.apply(&allowing(open));
    for to in to_many() {
        for (l4, allowed) in [
            (udp(5_353, 5_353), true),
            (udp(5_353, 5_354), false),
            (raw(112), true),
            (raw(2), false),
        ] {
            let expected = if allowed {
                passes_as(reason::FORWARDED)
            } else {
                Expect::Drop(DROP_POLICY)
            };
            let what = format!("protocol {} to {to}", l4.proto);
            let from = strangers.next(to.is_ipv4());
            let packet = on_the_wire(to, &frame(&ip(from, to, &Ip::default(), &l4)));
            host.events();
            for _ in 0..2 {
                host.ingress(&what, &packet, expected);
                assert_eq!(host.events().len(), 1, "{what}: no flow holds it");
            }
            let packet = on_the_wire(to, &frame(&ip(own(to.is_ipv4()), to, &Ip::default(), &l4)));
            host.egress(&what, &packet, expected);
        }
    }
}

/// What was sent to many is answered by one: that needs a rule.
#[test]
fn answers_to_multicast_come_from_other_addresses() {
    let Some(mut host) = Host::new() else { return };
    let out = r#"toPorts: [{ports: [{port: "5353", protocol: UDP}]}]"#;
    host.apply(&allowing(out));
    let question = ip(
        HOST4,
        address("224.0.0.251"),
        &Ip::default(),
        &udp(5_355, 5_353),
    );
    host.egress("question", &frame(&question), passes_as(reason::FORWARDED));
    let answer = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &udp(5_353, 5_355)));
    host.ingress("answer", &answer, Expect::Drop(DROP_POLICY));
}

/// A client that has no address yet, and the answers that bring it one.
#[test]
fn dhcp_needs_a_rule_and_works_with_it() {
    let Some(mut host) = Host::new() else { return };
    host.run("ip link set lo up");
    let nobody = address("0.0.0.0");
    let everybody = address("255.255.255.255");
    let server = address("10.0.0.254");
    let offered = address("10.0.0.77");
    let shape = Ip::default();
    let rule = r#"toPorts: [{ports: [{port: "67", protocol: UDP}, {port: "68", protocol: UDP},
        {port: "546", protocol: UDP}, {port: "547", protocol: UDP}]}]"#;
    for (policy, expected) in [
        (allowing(""), Expect::Drop(DROP_POLICY)),
        (allowing(rule), passes_as(reason::FORWARDED)),
        (String::new(), passes_as(reason::FORWARDED)),
    ] {
        host.apply(&policy);
        let discover = broadcast(&frame(&ip(nobody, everybody, &shape, &udp(68, 67))));
        host.egress("discover", &discover, expected);
        let offer = broadcast(&frame(&ip(server, everybody, &shape, &udp(67, 68))));
        host.ingress("offer to all", &offer, expected);
        let offer = frame(&ip(server, offered, &shape, &udp(67, 68)));
        host.ingress("offer to an address that is not ours yet", &offer, expected);
        let link = address("fe80::1:2:3");
        let agents = address("ff02::1:2");
        let solicit = frame(&ip(link, agents, &shape, &udp(546, 547)));
        host.egress("solicit", &on_the_wire(agents, &solicit), expected);
        let advertise = frame(&ip(address("fe80::9"), link, &shape, &udp(547, 546)));
        host.ingress("advertise", &advertise, expected);
    }
}

/// Ports that are translated behind the hook are judged as the wire shows them.
#[test]
fn published_ports_are_judged_before_they_are_translated() {
    let Some(mut host) = Host::new() else { return };
    let published = r#"toPorts: [{ports: [{port: "30080"}]}]"#;
    host.apply(&allowing(published));
    let mut strangers = Strangers::default();
    let shape = Ip::default();
    for v4 in [true, false] {
        let (own, client) = (own(v4), strangers.next(v4));
        let call = |port, flags| frame(&ip(client, own, &shape, &tcp(50_000, port, flags)));
        host.ingress("inner port", &call(8_080, SYN), Expect::Drop(DROP_POLICY));
        host.ingress(
            "published port",
            &call(30_080, SYN),
            passes_as(reason::FORWARDED),
        );
        // The answer was forwarded from the container and translated back.
        let answer = frame(&ip(own, client, &shape, &tcp(30_080, 50_000, SYN | ACK)));
        host.forwarded("answer", &answer, passes_as(reason::FORWARDED));
        host.ingress("running", &call(30_080, ACK), passes_as(reason::FORWARDED));
        host.apply(&allowing(""));
        host.ingress("revoked", &call(30_080, ACK), Expect::Drop(DROP_POLICY));
        host.ingress("new one", &call(30_080, SYN), Expect::Drop(DROP_POLICY));
        host.apply(&allowing(published));
    }
}

/// A namespace that routes: what is not local goes on to another network.
fn make_router(host: &Host) {
    host.run("ip link set lo up");
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let file = format!("/proc/sys/net/{name}");
        std::fs::write(file, "1").expect("forwarding");
    }
    host.run("ip link add inner0 type veth peer name inner1");
    host.run("ip link set inner0 up");
    host.run("ip link set inner1 up");
    host.run("ip addr add 192.168.50.1/24 dev inner0");
    host.run("ip addr add fd50::1/64 dev inner0 nodad");
    host.run("ip addr add 10.0.0.1/32 dev lo");
    host.run("ip addr add fd00::1/128 dev lo");
}

#[test]
fn forwarded_packets_of_every_class_are_untouched_both_ways() {
    let Some(mut host) = Host::new() else { return };
    make_router(&host);
    let untouched = passes_as(reason::NOT_OURS);
    for policy in [allowing(""), EVERYTHING.to_owned(), String::new()] {
        host.apply(&policy);
        for class in classes() {
            for (inner, outer) in [
                (address("192.168.50.9"), OUTSIDER4),
                (address("fd50::9"), OUTSIDER6),
            ] {
                let Some((l4, _)) = class.of(inner.is_ipv4()) else {
                    continue;
                };
                let inwards = frame(&ip(outer, inner, &Ip::default(), l4));
                host.ingress(class.name, &inwards, untouched);
                let outwards = frame(&ip(inner, outer, &Ip::default(), l4));
                host.forwarded(class.name, &outwards, untouched);
                // On the device behind: in as forwarded, out as forwarded.
                host.ingress(class.name, &for_other_station(&inwards), untouched);
            }
        }
    }
    // The router itself is the host.
    host.apply(&allowing(""));
    for (from, to) in [(OUTSIDER4, HOST4), (OUTSIDER6, HOST6)] {
        let packet = frame(&ip(from, to, &Ip::default(), &tcp(1, 2, SYN)));
        host.ingress("the router", &packet, Expect::Drop(DROP_POLICY));
    }
}

/// Resets and ICMP errors that the kernel makes carry no mark of any socket.
#[test]
fn what_the_kernel_itself_sends_is_policed_as_the_hosts() {
    let Some(mut host) = Host::new() else { return };
    let allowed = r#"toPorts: [{ports: [{port: "7001"}]}]"#;
    host.apply(&allowing(allowed));
    let mut strangers = Strangers::default();
    let shape = Ip::default();
    let passes = passes_as(reason::FORWARDED);
    let denied = Expect::Drop(DROP_POLICY);
    for v4 in [true, false] {
        let (own, peer) = (own(v4), strangers.next(v4));
        let reset = |port| frame(&ip(own, peer, &shape, &tcp(port, 51_000, RST | ACK)));
        host.egress("a reset about nothing", &reset(7_001), denied);
        let call = frame(&ip(peer, own, &shape, &tcp(51_000, 7_001, SYN)));
        host.ingress("call to a closed port", &call, passes);
        host.egress("its reset", &reset(7_001), passes);
        host.egress("another reset", &reset(7_003), denied);
    }
    let peer = strangers.next(true);
    let datagram = ip(peer, HOST4, &shape, &udp(51_001, 7_001));
    let unreachable = icmp_error(1, 3, 3, &datagram[..28]);
    let unreachable = frame(&ip(HOST4, peer, &shape, &unreachable));
    host.egress("port unreachable about nothing", &unreachable, denied);
    host.ingress("datagram to a closed port", &frame(&datagram), passes);
    host.egress("port unreachable", &unreachable, passes_as(reason::RELATED));
    let prohibited = frame(&ip(HOST4, peer, &shape, &icmp(1, 5, 1, 0)));
    host.egress("redirect", &prohibited, denied);
}

#[test]
fn an_own_address_is_ours_even_as_another_stations_packet() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    for direction in Direction::BOTH {
        for (peer, own) in [(OUTSIDER4, HOST4), (OUTSIDER6, HOST6)] {
            let (from, to) = ends(direction, own, peer);
            let packet = frame(&ip(from, to, &Ip::default(), &udp(1, 2)));
            let packet = for_other_station(&packet);
            host.send("overheard", direction, &packet, Expect::Drop(DROP_POLICY));
        }
    }
}
