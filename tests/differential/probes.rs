//! Packets near everything that the manifests name: borders of prefixes,
//! addresses of objects and their neighbours, ports and types at the edges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use palisade::policy::{Direction, Packet};
use serde_json::Value;

use crate::case::{Case, Objects};
use crate::frames::{ACK, FIN, Ip, L4, RST, SYN, frame, icmp, ip, raw, sctp, tcp, udp};
use crate::generate::names;
use crate::random::Random;
use crate::verdict::{Beyond, beyond_policy};

/// One packet from or to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    pub(crate) direction: Direction,
    /// This host's side.
    pub(crate) own: IpAddr,
    pub(crate) peer: IpAddr,
    pub(crate) packet: Packet,
    pub(crate) shape: Shape,
}

/// What policy must not look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) carrier: Carrier,
    /// Source port, or identifier of ICMP.
    pub(crate) source: u16,
    /// Identification of fragments.
    pub(crate) id: u16,
    pub(crate) tcp_flags: u8,
    pub(crate) icmp_code: u8,
}

/// How a packet comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carrier {
    Plain,
    /// IPv4 options, IPv6 extension headers.
    Long,
    /// As the first fragment of a datagram, and then the second one.
    Fragments,
}

/// Everything that some object names.
#[derive(Clone, Default, Debug)]
struct Named {
    prefixes: Vec<IpNet>,
    ports: Vec<u16>,
    types: Vec<u8>,
    protocols: Vec<u8>,
}

/// Where the packets of one generation come from.
pub(crate) struct Target {
    /// What each item of a rule names by itself.
    items: Vec<Named>,
    all: Named,
    own: [IpAddr; 2],
}

const OWN4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OWN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
const FIXED: [&str; 6] = [
    "0.0.0.0/0",
    "::/0",
    "255.255.255.255/32",
    "192.0.2.77/32",
    "2001:db8:77::7/128",
    "fe80::77/128",
];

impl Target {
    pub(crate) fn new(case: &Case, objects: &Objects) -> Self {
        let mut all = Named::default();
        let mut items = Vec::new();
        for object in objects.values() {
            all.note(object);
            let rules = object["specs"].as_array().into_iter().flatten();
            for rule in rules.chain([&object["spec"]]) {
                for section in names::SECTIONS {
                    for item in rule[section].as_array().into_iter().flatten() {
                        let mut named = Named::default();
                        named.note(item);
                        items.push(named);
                    }
                }
            }
        }
        for entry in &case.options.failsafe {
            all.prefixes.extend(entry.peer);
            all.ports.push(entry.port);
            all.protocols.push(entry.proto);
        }
        all.prefixes
            .extend(case.local.iter().map(|own| IpNet::from(*own)));
        all.prefixes
            .extend(FIXED.map(|text| text.parse::<IpNet>().expect("a prefix")));
        Self {
            items,
            all,
            own: own(case),
        }
    }

    /// Packets, some for each peer.
    pub(crate) fn probes(&self, count: usize, random: &mut Random) -> Vec<Probe> {
        let mut probes = Vec::new();
        while probes.len() < count {
            let item = if self.items.is_empty() || random.chance(25) {
                &self.all
            } else {
                random.pick(&self.items)
            };
            let from = if item.prefixes.is_empty() || random.chance(25) {
                &self.all.prefixes
            } else {
                &item.prefixes
            };
            let peer = near_prefix(*random.pick(from), random);
            let direction = Direction::BOTH[random.below(2)];
            for _ in 0..=random.below(4) {
                let l4 = if random.chance(80) { item } else { &self.all };
                probes.push(Probe {
                    direction,
                    own: self.own[usize::from(peer.is_ipv6())],
                    peer,
                    packet: l4.packet(peer.is_ipv4(), random),
                    shape: shape(random),
                });
            }
        }
        probes.truncate(count);
        probes
    }
}

/// The addresses of this host that packets go to. A case whose flows live has
/// addresses to itself, so that it meets no flows of another case.
fn own(case: &Case) -> [IpAddr; 2] {
    if !case.flows {
        return [OWN4, OWN6];
    }
    let seed = u128::from(case.seed);
    let v4 = u128::from(Ipv4Addr::new(100, 64, 0, 0).to_bits()) | (seed & 0x003f_ffff);
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0).to_bits() | seed;
    [
        IpAddr::V4(Ipv4Addr::from_bits(low_half(v4))),
        IpAddr::V6(Ipv6Addr::from_bits(v6)),
    ]
}

impl Named {
    /// Notes all that stands in an object, wherever it stands.
    fn note(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    self.note_field(key, value);
                    self.note(value);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| self.note(value)),
            Value::String(text) => {
                let prefix = text.parse::<IpNet>().ok();
                let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
                self.prefixes.extend(prefix.or_else(address));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn note_field(&mut self, key: &str, value: &Value) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        match key {
            "port" | "endPort" | "containerPort" => {
                self.ports.extend(text.parse::<u16>());
                // A leading zero means octal.
                self.ports.extend(u16::from_str_radix(&text, 8));
            }
            "type" => {
                self.types.extend(text.parse::<u8>());
                self.types.extend(names::icmp_types(&text));
            }
            "protocol" => self.protocols.extend(names::protocol(&text)),
            _ => {}
        }
    }

    fn packet(&self, v4: bool, random: &mut Random) -> Packet {
        let by_type = !self.types.is_empty() && random.chance(70);
        if by_type || random.chance(8) {
            let icmp_type = match random.below(8) {
                0 => *random.pick(&[0, 3, 8, 11, 13, 128, 129, 135, 137, 143, 255]),
                _ if self.types.is_empty() => *random.pick(&[0, 8, 128, 129]),
                1 => random.pick(&self.types).wrapping_add(1),
                2 => random.pick(&self.types).wrapping_sub(1),
                _ => *random.pick(&self.types),
            };
            return if v4 {
                Packet::Icmp { icmp_type }
            } else {
                Packet::Icmpv6 { icmp_type }
            };
        }
        if random.chance(7) {
            return Packet::Fragment;
        }
        let proto = if self.protocols.is_empty() || random.chance(25) {
            *random.pick(&[6, 6, 17, 17, 132, 1, 58, 2, 4, 41, 47, 50, 51, 112, 89, 253])
        } else {
            *random.pick(&self.protocols)
        };
        match proto {
            6 | 17 | 132 => Packet::Port {
                proto,
                port: near_port(&self.ports, random),
            },
            1 if v4 => Packet::Icmp { icmp_type: 8 },
            58 if !v4 => Packet::Icmpv6 { icmp_type: 128 },
            // Extension headers, not protocols.
            0 | 43 | 44 | 51 | 59 | 60 if !v4 => Packet::Other { proto: 47 },
            proto => Packet::Other { proto },
        }
    }
}

fn shape(random: &mut Random) -> Shape {
    let mut word = || u16::try_from(random.below(65_536)).expect("16 bits");
    let (source, id) = (word(), word());
    Shape {
        carrier: *random.pick(&[
            Carrier::Plain,
            Carrier::Plain,
            Carrier::Plain,
            Carrier::Plain,
            Carrier::Long,
            Carrier::Fragments,
        ]),
        source,
        id,
        tcp_flags: *random.pick(&[SYN, SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST]),
        icmp_code: *random.pick(&[0, 0, 0, 1, 4]),
    }
}

fn near_port(ports: &[u16], random: &mut Random) -> u16 {
    if ports.is_empty() || random.chance(10) {
        let any = u16::try_from(random.below(65_536)).expect("16 bits");
        return *random.pick(&[0, 1, 22, 80, 65_534, 65_535, any]);
    }
    let port = *random.pick(ports);
    match random.below(4) {
        0 => port.wrapping_sub(1),
        1 => port.wrapping_add(1),
        _ => port,
    }
}

/// The borders of a prefix, what lies beyond them, and something within.
fn near_prefix(prefix: IpNet, random: &mut Random) -> IpAddr {
    let (first, last, bits) = match prefix {
        IpNet::V4(net) => (
            u128::from(net.network().to_bits()),
            u128::from(net.broadcast().to_bits()),
            32,
        ),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits(), 128),
    };
    let number = match random.below(10) {
        0 => first.wrapping_sub(1),
        1 => last.wrapping_add(1),
        2..=4 => first,
        5 | 6 => last,
        7 => first.saturating_add(1).min(last),
        _ => {
            let noise = (0..4).fold(0_u128, |noise, _| {
                noise << 32 | u128::try_from(random.below(1 << 32)).expect("32 bits")
            });
            first | noise & (last - first)
        }
    };
    if bits == 32 {
        IpAddr::V4(Ipv4Addr::from_bits(low_half(number)))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

/// The low 32 bits: addresses before the first and after the last wrap around.
fn low_half(number: u128) -> u32 {
    u32::try_from(number & u128::from(u32::MAX)).expect("32 bits")
}

/// The frames of a probe; each must meet the same verdict.
pub(crate) fn frames(probe: &Probe) -> Vec<Vec<u8>> {
    let own = probe.own;
    let (from, to) = match probe.direction {
        Direction::Ingress => (probe.peer, own),
        Direction::Egress => (own, probe.peer),
    };
    let v4 = own.is_ipv4();
    let Shape {
        carrier,
        source,
        id,
        tcp_flags,
        icmp_code,
    } = probe.shape;
    // Fragments that follow a first one have odd numbers, lost ones even.
    let id = u32::from(id);
    let (with_first, alone) = (id | 1, id & !1);
    let mut l4 = match probe.packet {
        Packet::Port { proto: 6, port } => tcp(source, port, tcp_flags),
        Packet::Port { proto: 17, port } => udp(source, port),
        Packet::Port { port, .. } => sctp(source, port),
        Packet::Icmp { icmp_type } => icmp(1, icmp_type, icmp_code, source),
        Packet::Icmpv6 { icmp_type } => icmp(58, icmp_type, icmp_code, source),
        Packet::Other { proto } => raw(proto),
        Packet::Fragment => {
            let shape = Ip {
                fragment: Some((64, source % 2 == 0, alone)),
                ..Ip::default()
            };
            let proto = [6, 17, 132, 47][usize::from(source / 2 % 4)];
            return vec![frame(&ip(from, to, &shape, &raw(proto)))];
        }
    };
    match carrier {
        Carrier::Plain => vec![frame(&ip(from, to, &Ip::default(), &l4))],
        Carrier::Long => vec![frame(&ip(from, to, &long(v4), &l4))],
        Carrier::Fragments => {
            l4.bytes.resize(l4.bytes.len().next_multiple_of(8), 0);
            let length = u16::try_from(l4.bytes.len()).expect("a small packet");
            let shape = |offset, more| Ip {
                fragment: Some((offset, more, with_first)),
                ..Ip::default()
            };
            let rest = L4 {
                proto: l4.proto,
                bytes: vec![0; 8],
            };
            let mut frames = vec![frame(&ip(from, to, &shape(0, true), &l4))];
            // What follows a control message is a fragment without a first one.
            if beyond_policy(probe) == Beyond::No {
                frames.push(frame(&ip(from, to, &shape(length, false), &rest)));
            }
            frames
        }
    }
}

/// The answer to a plain packet with ports.
pub(crate) fn answer(probe: &Probe) -> Vec<u8> {
    let own = probe.own;
    let (from, to) = match probe.direction {
        Direction::Ingress => (own, probe.peer),
        Direction::Egress => (probe.peer, own),
    };
    let source = probe.shape.source;
    let l4 = match probe.packet {
        Packet::Port { proto: 6, port } => tcp(port, source, ACK),
        Packet::Port { proto: 17, port } => udp(port, source),
        Packet::Port { port, .. } => sctp(port, source),
        other => panic!("nobody answers {other:?}"),
    };
    frame(&ip(from, to, &Ip::default(), &l4))
}

/// Options or extension headers that change nothing.
fn long(v4: bool) -> Ip {
    if v4 {
        Ip {
            options: vec![1, 1, 1, 1, 1, 1, 1, 0],
            ..Ip::default()
        }
    } else {
        Ip {
            extensions: vec![0, 60, 43],
            ..Ip::default()
        }
    }
}
