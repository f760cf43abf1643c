//! Classes of packets on the wire, as far as sockets can make them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use palisade::lab::probe;

use super::frames::Wire;
use super::harness::{ECHO, PATIENCE, SSH, World, privileged};
use super::sockets::{Raw, datagrams, is_refused, receives};
use super::streams::any;

/// A policy with the same items for both directions.
fn both(items: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: both}}\n\
         spec:\n  nodeSelector: {{}}\n  ingress:\n{items}\n  egress:\n{items}\n"
    )
}

fn enforce(world: &mut World, policy: &str) {
    world.manifest("policy.yaml", policy);
    world.wait("ingress", "enabled");
    world.wait("egress", "enabled");
}

/// Protocols of which the kernel hands every packet to raw sockets.
const PROTOCOLS: [(u8, &str); 9] = [
    (2, "IGMP"),
    (4, "IPIP"),
    (41, "IPv6"),
    (47, "GRE"),
    (50, "ESP"),
    (51, "AH"),
    (89, "OSPF"),
    (112, "VRRP"),
    (132, "SCTP"),
];

/// What stands behind the IP header; its last octets tell one packet from another.
fn payload(proto: u8, number: u8) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    if proto == 132 {
        bytes[..4].copy_from_slice(&[0x9c, 0x40, 0x1b, 0x59]);
    }
    bytes[20..].copy_from_slice(&[proto, number, 0xca, 0xfe]);
    bytes
}

#[test]
fn portless_protocols_pass_by_their_rule_alone() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let rules = "  - toPorts: [{ports: [{protocol: GRE}, {protocol: VRRP}, {port: \"7001\", protocol: SCTP}]}]";
    enforce(&mut world, &both(rules));
    for family in Family::BOTH {
        let v4 = family == Family::V4;
        for (proto, name) in PROTOCOLS {
            // In IPv6, AH leads to what stands behind it.
            if proto == 51 && !v4 {
                continue;
            }
            let allowed = ["GRE", "VRRP", "SCTP"].contains(&name);
            let ends = [
                (Place::Outsider, Place::Host),
                (Place::Host, Place::Outsider),
            ];
            for (number, (from, to)) in ends.into_iter().enumerate() {
                let number = u8::try_from(number).expect("small");
                let sender = Raw::open(&world, from.name(), v4, proto);
                let receiver = Raw::open(&world, to.name(), v4, proto);
                let bytes = payload(proto, number);
                netns::run_in(&world.sandbox.namespace(from.name()), || {
                    sender.send(to.address(family), &bytes);
                })
                .expect("a namespace");
                let arrived = receiver.receives(&bytes);
                assert_eq!(arrived, allowed, "{name} from {from:?}, {family:?}");
            }
        }
    }
}

#[test]
fn large_datagrams_pass_in_fragments_or_not_at_all() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    enforce(
        &mut world,
        &both("  - toPorts: [{ports: [{port: \"7001\"}]}]"),
    );
    let large: Vec<u8> = (0..6_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    for family in Family::BOTH {
        for (port, allowed) in [(7_001, true), (7_002, false)] {
            for (from, to) in [
                (Place::Outsider, Place::Host),
                (Place::Host, Place::Outsider),
            ] {
                let to = SocketAddr::new(to.address(family), port);
                let at = if from == Place::Host {
                    "outsider"
                } else {
                    "host"
                };
                let server = datagrams(&world, at, to);
                let from = (any(to.ip()), 0).into();
                let name = if at == "host" { "outsider" } else { "host" };
                let client = datagrams(&world, name, from);
                client.connect(to).expect("an address");
                client.send(&large).expect("sent");
                let mut buffer = vec![0; 65_536];
                let arrived = server.recv_from(&mut buffer);
                assert_eq!(arrived.is_ok(), allowed, "{name} to {to}: {arrived:?}");
                if let Ok((length, back)) = arrived {
                    assert!(buffer[..length] == large, "{name} to {to}: other bytes");
                    server.send_to(&large, back).expect("answered");
                    assert!(receives(&client, &large), "{name} to {to}: the answer");
                }
            }
        }
    }
}

/// The kernel's own RST and ICMP errors belong to the flow that they answer.
#[test]
fn closed_ports_are_refused_where_the_call_is_allowed() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    enforce(
        &mut world,
        &both("  - toPorts: [{ports: [{port: \"7001\"}]}]"),
    );
    for family in Family::BOTH {
        for (from, to) in [
            (Place::Outsider, Place::Host),
            (Place::Host, Place::Outsider),
        ] {
            let what = format!("{from:?} to {to:?}, {family:?}");
            let address = SocketAddr::new(to.address(family), 7_001);
            let call = netns::run_in(&world.sandbox.namespace(from.name()), || {
                TcpStream::connect_timeout(&address, PATIENCE)
            });
            let refused = call.expect("a namespace").expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{what}");
            let socket = datagrams(&world, from.name(), (any(address.ip()), 0).into());
            socket.connect(address).expect("an address");
            socket.send(b"anybody?").expect("sent");
            assert!(is_refused(&socket), "{what}: no port unreachable");
            // Where the call is denied there is silence.
            let denied = SocketAddr::new(to.address(family), 7_002);
            let socket = datagrams(&world, from.name(), (any(address.ip()), 0).into());
            socket.connect(denied).expect("an address");
            // On its way out a denied datagram is refused at once.
            let sent = socket.send(b"anybody?").is_ok();
            assert!(!sent || !is_refused(&socket), "{what}: an answer");
        }
    }
}

/// A UDP datagram in IPv4, without a checksum of its own.
fn datagram(from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let sum = probe::checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Linux strips priority tags one after another; no number of them hides what
/// they carry.
#[test]
fn priority_tags_hide_nothing() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let wire = Wire::open(&world, "outsider");
    let address = SocketAddr::new(Place::Host.address(Family::V4), 7_002);
    let server = datagrams(&world, "host", address);
    let send = |count: usize, text: &[u8]| {
        let packet = datagram([10, 88, 0, 3], [10, 88, 0, 1], (7, 7_002), text);
        let mut frame = wire.frame(0x0800, &packet);
        for _ in 0..count {
            frame.splice(12..12, [0x81, 0, 0, 0]);
        }
        wire.send(&frame).expect("sent");
    };
    for count in [0, 1, 2, 3, 4, 6, 9] {
        let text = format!("open {count}");
        send(count, text.as_bytes());
        assert!(
            receives(&server, text.as_bytes()),
            "{count} tags, no policy"
        );
    }
    enforce(
        &mut world,
        &both("  - toPorts: [{ports: [{port: \"7001\"}]}]"),
    );
    for count in [0, 1, 2, 3, 4, 6, 9] {
        let text = format!("closed {count}");
        send(count, text.as_bytes());
        assert!(!receives(&server, text.as_bytes()), "{count} tags, denied");
    }
}

/// The answers of a DHCP server go to all, or to an address that is not ours yet.
#[test]
fn dhcp_answers_need_a_rule() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let wire = Wire::open(&world, "outsider");
    let client = datagrams(&world, "host", "0.0.0.0:68".parse().expect("an address"));
    let offer = |text: &str| {
        let packet = datagram([10, 88, 0, 3], [255; 4], (67, 68), text.as_bytes());
        let mut frame = wire.frame(0x0800, &packet);
        frame[..6].fill(0xff);
        wire.send(&frame).expect("sent");
        receives(&client, text.as_bytes())
    };
    assert!(offer("no policy"));
    enforce(
        &mut world,
        &both("  - toPorts: [{ports: [{port: \"7001\"}]}]"),
    );
    assert!(!offer("no rule"));
    let rule =
        "  - toPorts: [{ports: [{port: \"67\", protocol: UDP}, {port: \"68\", protocol: UDP}]}]";
    let revision = world.revision();
    world.manifest("policy.yaml", &both(rule));
    world.wait_revision_after(revision);
    assert!(offer("a rule"));
}

/// Calls of forged addresses, as many as one likes.
fn flood(wire: &Wire, count: u32) {
    for number in 0..count {
        let [_, high, middle, low] = number.to_be_bytes();
        let from = [100, 64 + high, middle, low];
        let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
        packet.extend(from);
        packet.extend([10, 88, 0, 1]);
        let sum = probe::checksum(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        let mut segment = vec![0x9c, 0x40, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2];
        segment.extend([0x40, 0, 0, 0, 0, 0]);
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, 6, 0, 20]);
        pseudo.extend(&segment);
        let sum = probe::checksum(&pseudo).to_be_bytes();
        segment[16..18].copy_from_slice(&sum);
        packet.extend(segment);
        // A full queue loses some: there are more.
        drop(wire.send(&wire.frame(0x0800, &packet)));
    }
}

/// Tables of 1,024 flows, a flood of 30,000 calls to an allowed port, and flows
/// of either side that must go on.
#[test]
fn a_flood_of_new_flows_cuts_no_running_one() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--ct-entries-max", "1024"]);
    world.start_agent();
    // Answers to the forged calls find a way out.
    world.tool("host", "ip route add default via 10.88.0.3");
    let inwards = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
        metadata: {name: ssh}\nspec:\n  nodeSelector: {}\n  ingress:\n  \
        - toPorts: [{ports: [{port: \"22\", protocol: TCP}]}]\n";
    world.manifest("policy.yaml", inwards);
    world.wait("ingress", "enabled");
    let mut inbound = world.connect(Place::Outsider, Place::Host, SSH, Family::V4);
    let mut outbound = world.connect(Place::Host, Place::Outsider, SSH, Family::V4);
    let server: IpAddr = Place::Outsider.address(Family::V4);
    let asking = datagrams(&world, "host", (any(server), 0).into());
    asking.connect((server, ECHO)).expect("an address");
    let mut go_on = |when: &str| {
        probe::echo(&mut inbound, PATIENCE).unwrap_or_else(|error| panic!("{when}: in: {error}"));
        probe::echo(&mut outbound, PATIENCE).unwrap_or_else(|error| panic!("{when}: out: {error}"));
        asking.send(when.as_bytes()).expect("sent");
        assert!(receives(&asking, when.as_bytes()), "{when}: UDP");
    };
    go_on("before");
    go_on("again before");
    let wire = Wire::open(&world, "outsider");
    for round in 0..3 {
        flood(&wire, 10_000);
        go_on(&format!("after flood {round}"));
    }
    let flows = world.agent().json(&["bpf", "ct", "list"]).expect("flows");
    let flows = flows.as_array().expect("a list").len();
    assert!(flows > 500, "a flood: {flows}");
}
