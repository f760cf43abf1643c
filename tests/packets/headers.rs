//! Headers of every shape: the same verdict with and without them, and nothing
//! malformed passes where policy is enforced.

use crate::frames::{
    ACK, Ip, L4, SYN, broadcast, frame, frame_of, icmp, ip, raw, tagged, tcp, udp,
};
use crate::host::{
    DROP_EXTENSION, DROP_FORBIDDEN, DROP_FRAGMENT, DROP_INVALID, DROP_POLICY, DROP_VLAN, Expect,
    HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, PEER4, PEER6, SEED, pass, passes_as,
};
use palisade_abi::reason;

#[test]
fn ipv4_options_and_ipv6_extensions_change_no_verdict() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    let with_options = Ip {
        options: vec![1; 40],
        ..Ip::default()
    };
    let chains: [&[u8]; 5] = [
        &[0],
        &[60],
        &[0, 60, 43],
        &[51],
        &[0, 60, 43, 51, 60, 60, 60, 60],
    ];
    for (port, expected) in [(22, pass()), (80, Expect::Drop(DROP_POLICY))] {
        let packet = ip(OUTSIDER4, HOST4, &with_options, &tcp(900, port, SYN));
        host.ingress("options", &frame(&packet), expected);
        for chain in chains {
            let shape = Ip {
                extensions: chain.to_vec(),
                ..Ip::default()
            };
            let packet = ip(OUTSIDER6, HOST6, &shape, &tcp(900, port, SYN));
            host.ingress(&format!("{chain:?}"), &frame(&packet), expected);
        }
    }
    for chain in [vec![60; 9], vec![60; 20]] {
        let shape = Ip {
            extensions: chain,
            ..Ip::default()
        };
        let packet = ip(OUTSIDER6, HOST6, &shape, &tcp(900, 22, SYN));
        host.ingress("too many", &frame(&packet), Expect::Drop(DROP_EXTENSION));
    }
    let nothing = L4 {
        proto: 59,
        bytes: Vec::new(),
    };
    let packet = ip(PEER6, HOST6, &Ip::default(), &nothing);
    host.ingress(
        "no next header",
        &frame(&packet),
        Expect::Drop(DROP_EXTENSION),
    );
}

/// The transport header in a first fragment, its payload in a later one.
fn fragments(from: std::net::IpAddr, to: std::net::IpAddr, l4: &L4, id: u32) -> [Vec<u8>; 2] {
    let mut first = l4.clone();
    first.bytes.resize(24, 0);
    let rest = L4 {
        proto: l4.proto,
        bytes: vec![0xaa; 32],
    };
    let shape = |offset, more| Ip {
        fragment: Some((offset, more, id)),
        ..Ip::default()
    };
    [
        frame(&ip(from, to, &shape(0, true), &first)),
        frame(&ip(from, to, &shape(24, false), &rest)),
    ]
}

#[test]
fn fragments_follow_their_first_one() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    for (from, to, peer) in [(OUTSIDER4, HOST4, PEER4), (OUTSIDER6, HOST6, PEER6)] {
        let [first, rest] = fragments(from, to, &tcp(901, 22, SYN), 100);
        host.ingress("first, allowed", &first, pass());
        host.ingress("later, allowed", &rest, pass());
        let [first, rest] = fragments(from, to, &tcp(901, 80, SYN), 101);
        host.ingress("first, denied", &first, Expect::Drop(DROP_POLICY));
        host.ingress("later, denied", &rest, Expect::Drop(DROP_POLICY));
        let [_, rest] = fragments(from, to, &tcp(901, 22, SYN), 102);
        host.ingress("later without first", &rest, Expect::Drop(DROP_FRAGMENT));
        let [_, rest] = fragments(peer, to, &udp(901, 5_000), 103);
        host.ingress("later without first, allowed by L3", &rest, pass());
    }
}

#[test]
fn fragments_that_hide_or_rewrite_the_header_are_dropped() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    for (from, to) in [(PEER4, HOST4), (PEER6, HOST6)] {
        let tiny = L4 {
            proto: 6,
            bytes: vec![0; 8],
        };
        let shape = Ip {
            fragment: Some((0, true, 9)),
            ..Ip::default()
        };
        host.ingress(
            "tiny",
            &frame(&ip(from, to, &shape, &tiny)),
            Expect::Drop(DROP_INVALID),
        );
        let shape = Ip {
            fragment: Some((8, false, 9)),
            ..Ip::default()
        };
        host.ingress(
            "overlap",
            &frame(&ip(from, to, &shape, &tiny)),
            Expect::Drop(DROP_INVALID),
        );
    }
}

#[test]
fn icmpv6_follows_its_table() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    for message_type in 0..=255_u8 {
        let expected = match message_type {
            1..=4 => passes_as(reason::RELATED),
            130..=136 | 141..=143 | 148 | 149 | 151..=153 => passes_as(reason::ICMPV6_BYPASS),
            128 | 129 => Expect::Drop(DROP_POLICY),
            _ => Expect::Drop(DROP_FORBIDDEN),
        };
        let message = icmp(58, message_type, 0, 1);
        let plain = frame(&ip(OUTSIDER6, HOST6, &Ip::default(), &message));
        host.ingress(&format!("ICMPv6 {message_type}"), &plain, expected);
        // MLD always stands behind a hop-by-hop header.
        let shape = Ip {
            extensions: vec![0],
            ..Ip::default()
        };
        let behind = frame(&ip(OUTSIDER6, HOST6, &shape, &message));
        host.ingress(
            &format!("ICMPv6 {message_type}, hop-by-hop"),
            &behind,
            expected,
        );
    }
}

#[test]
fn a_vlan_tag_exempts_nobody() {
    let Some(mut host) = Host::new() else { return };
    host.vlans(&[5]);
    host.apply(SEED);
    for (port, expected) in [(22, pass()), (80, Expect::Drop(DROP_POLICY))] {
        let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &tcp(902, port, SYN)));
        host.ingress("allowed tag", &tagged(&packet, 5), expected);
        host.ingress(
            "two allowed tags",
            &tagged(&tagged(&packet, 5), 5),
            expected,
        );
        host.ingress("priority tag", &tagged(&packet, 0), expected);
        host.ingress("unknown tag", &tagged(&packet, 6), Expect::Drop(DROP_VLAN));
        let hidden = tagged(&tagged(&packet, 6), 5);
        host.ingress("unknown inner tag", &hidden, Expect::Drop(DROP_VLAN));
    }
    host.apply("");
    let packet = frame(&ip(OUTSIDER4, HOST4, &Ip::default(), &tcp(902, 80, SYN)));
    host.ingress("not enforced", &tagged(&packet, 6), pass());
}

#[test]
fn what_is_no_ip_passes_by_class() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    host.ingress(
        "arp",
        &broadcast(&frame_of(0x0806, &[0; 28])),
        passes_as(reason::ARP),
    );
    for ethertype in [0x88cc_u16, 0x8847, 0x0026, 0x88f7] {
        let other = frame_of(ethertype, &[0; 46]);
        host.ingress(
            &format!("{ethertype:#x}"),
            &other,
            passes_as(reason::OTHER_ETHERTYPE),
        );
    }
}

/// Every way to cut a packet short: what is left must not pass where the whole
/// would not, and never crash or hang.
#[test]
fn truncated_packets_never_pass() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    for (from, to) in [(OUTSIDER4, HOST4), (OUTSIDER6, HOST6)] {
        let shapes = [
            Ip::default(),
            Ip {
                options: vec![1; 12],
                extensions: vec![0, 60, 51],
                ..Ip::default()
            },
            Ip {
                fragment: Some((0, true, 44)),
                ..Ip::default()
            },
        ];
        for shape in shapes {
            for l4 in [tcp(903, 80, ACK), udp(903, 80), icmp(1, 8, 0, 3), raw(47)] {
                let whole = frame(&ip(from, to, &shape, &l4));
                // A test run takes no less than a whole IP header.
                let least = if from.is_ipv4() { 14 + 20 } else { 14 + 40 };
                for length in least..whole.len() {
                    host.ingress(
                        &format!("{length} octets"),
                        &whole[..length],
                        Expect::AnyDrop,
                    );
                }
            }
        }
    }
}

/// Random octets behind a believable start.
#[test]
fn noise_never_opens_anything() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..4_000 {
        let (from, to) = if random() % 2 == 0 {
            (OUTSIDER4, HOST4)
        } else {
            (OUTSIDER6, HOST6)
        };
        let mut bytes = frame(&ip(from, to, &Ip::default(), &udp(904, 80)));
        let header = if from.is_ipv4() { 14 + 20 } else { 14 + 40 };
        for _ in 0..random() % 40 {
            let octet = u8::try_from(random() % 256).expect("an octet");
            bytes.push(octet);
        }
        // Version, addresses and protocol stay; what is between may be anything.
        let at = usize::try_from(random() % 6).expect("small") + 15;
        let keep = if from.is_ipv4() { at != 23 } else { at != 20 };
        if keep && at < header {
            bytes[at] = u8::try_from(random() % 256).expect("an octet");
        }
        host.ingress("noise", &bytes, Expect::AnyDrop);
    }
}
