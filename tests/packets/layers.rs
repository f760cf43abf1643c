//! What stands below IP: VLAN tags in the data, and frames that are no IP.

use palisade::policy::Direction;
use palisade_abi::reason;

use crate::classes::{Strangers, allowing, ends, own};
use crate::frames::{Ip, SYN, broadcast, frame, frame_of, ip, tcp};
use crate::host::{As, DROP_ETHERTYPE, DROP_POLICY, DROP_VLAN, Expect, Host, passes_as};

const WEB: &str = r#"toPorts: [{ports: [{port: "7001"}]}]"#;

/// The frame with a tag of either kind around what it holds.
fn tag(frame: &[u8], ethertype: u16, id: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

/// Tags from the outside in, and whether they may pass where 5 and 6 are allowed.
fn stacks() -> Vec<(Vec<(u16, u16)>, bool)> {
    vec![
        (vec![(VLAN, 5)], true),
        (vec![(QINQ, 5)], true),
        (vec![(VLAN, 7)], false),
        (vec![(QINQ, 7)], false),
        (vec![(VLAN, 0)], true),
        // Priority and drop-eligible bits are no part of the number.
        (vec![(VLAN, 0xf000 | 5)], true),
        (vec![(VLAN, 0xe000)], true),
        (vec![(VLAN, 0xf000 | 7)], false),
        (vec![(QINQ, 5), (VLAN, 6)], true),
        (vec![(VLAN, 6), (VLAN, 5)], true),
        (vec![(QINQ, 5), (VLAN, 7)], false),
        (vec![(QINQ, 7), (VLAN, 5)], false),
        (vec![(QINQ, 5), (QINQ, 5)], true),
        (vec![(VLAN, 0), (VLAN, 0)], true),
        (vec![(VLAN, 0), (VLAN, 7)], false),
        (vec![(VLAN, 4_095)], false),
    ]
}

#[test]
fn tags_are_checked_and_what_they_carry_is_judged() {
    let Some(mut host) = Host::new() else { return };
    host.vlans(&[5, 6]);
    host.apply(&allowing(WEB));
    let mut strangers = Strangers::default();
    for direction in Direction::BOTH {
        for v4 in [true, false] {
            for (port, allowed) in [(7_001, true), (7_002, false)] {
                for (stack, passes) in stacks() {
                    let (from, to) = ends(direction, own(v4), strangers.next(v4));
                    let packet = frame(&ip(from, to, &Ip::default(), &tcp(1, port, SYN)));
                    let tags = stack.iter().rev();
                    let packet = tags.fold(packet, |it, (kind, id)| tag(&it, *kind, *id));
                    let expected = match (passes, allowed) {
                        (false, _) => Expect::Drop(DROP_VLAN),
                        (true, true) => passes_as(reason::FORWARDED),
                        (true, false) => Expect::Drop(DROP_POLICY),
                    };
                    let what = format!("port {port}, tags {stack:x?}");
                    host.send(&what, direction, &packet, expected);
                }
            }
        }
    }
}

#[test]
fn every_vlan_may_be_allowed() {
    let Some(mut host) = Host::new() else { return };
    host.vlans(&[0]);
    host.apply(&allowing(WEB));
    let mut strangers = Strangers::default();
    for (port, expected) in [
        (7_001, passes_as(reason::FORWARDED)),
        (7_002, Expect::Drop(DROP_POLICY)),
    ] {
        for id in [1, 5, 4_094] {
            let packet = ip(
                strangers.next(true),
                own(true),
                &Ip::default(),
                &tcp(1, port, SYN),
            );
            let packet = tag(&tag(&frame(&packet), VLAN, id), QINQ, id);
            host.ingress(&format!("port {port}, VLAN {id}"), &packet, expected);
        }
    }
}

/// Linux takes off as many priority tags as there are and delivers what they
/// carry, so no number of them may hide a packet.
#[test]
fn no_number_of_priority_tags_hides_a_packet() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    for policy in [allowing(WEB), String::new()] {
        host.apply(&policy);
        for direction in Direction::BOTH {
            for v4 in [true, false] {
                for count in 3..=10 {
                    for kind in [VLAN, QINQ] {
                        let (from, to) = ends(direction, own(v4), strangers.next(v4));
                        let packet = ip(from, to, &Ip::default(), &tcp(1, 7_002, SYN));
                        let packet = (0..count).fold(frame(&packet), |it, _| tag(&it, kind, 0));
                        let expected = if policy.is_empty() {
                            passes_as(reason::NOT_ENFORCED)
                        } else {
                            Expect::Drop(DROP_VLAN)
                        };
                        host.send(&format!("{count} tags"), direction, &packet, expected);
                    }
                }
            }
        }
    }
}

/// Frames that are neither ARP nor IP, by what they are. Those that begin with
/// a length are IEEE 802.3 (LLC, SNAP, raw IPX).
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let typed = |ethertype| frame_of(ethertype, &[0; 46]);
    let llc = |payload: &[u8]| {
        let length = u16::try_from(payload.len()).expect("a short frame");
        let mut padded = payload.to_vec();
        padded.resize(46, 0);
        frame_of(length, &padded)
    };
    vec![
        ("spanning tree", llc(&[0x42, 0x42, 3, 0, 0, 0, 0, 0])),
        (
            "IPv4 in SNAP",
            llc(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45, 0, 0, 20]),
        ),
        ("raw 802.3", llc(&[0xff, 0xff, 0, 30])),
        ("length 0", frame_of(0, &[0; 46])),
        ("length 1500", frame_of(1_500, &[0; 1_500])),
        ("no length and no type", frame_of(1_501, &[0; 46])),
        ("RARP", typed(0x8035)),
        ("wake on LAN", typed(0x0842)),
        ("IPX", typed(0x8137)),
        ("AppleTalk", typed(0x809b)),
        ("MPLS", typed(0x8847)),
        ("MPLS multicast", typed(0x8848)),
        ("PPPoE discovery", typed(0x8863)),
        ("PPPoE session", typed(0x8864)),
        ("EAPOL", typed(0x888e)),
        ("PROFINET", typed(0x8892)),
        ("LLDP", typed(0x88cc)),
        ("MACsec", typed(0x88e5)),
        ("PTP", typed(0x88f7)),
        ("FCoE", typed(0x8906)),
        ("loopback test", typed(0x9000)),
        ("experimental", typed(0x88b5)),
        ("reserved", typed(0xffff)),
    ]
}

#[test]
fn what_is_no_ip_goes_by_its_class_and_is_counted() {
    let Some(mut host) = Host::new() else { return };
    let other = passes_as(reason::OTHER_ETHERTYPE);
    host.apply(&allowing(""));
    for direction in Direction::BOTH {
        for (name, frame) in others() {
            host.send(name, direction, &frame, other);
            host.send(name, direction, &broadcast(&frame), other);
        }
    }
    host.drop_other_ethertypes();
    host.apply(&allowing(""));
    for direction in Direction::BOTH {
        for (name, frame) in others() {
            host.send(name, direction, &frame, Expect::Drop(DROP_ETHERTYPE));
        }
    }
    // Where nothing is enforced nothing is dropped, whatever its class.
    for as_what in [[As::Watched; 2], [As::Watched, As::Enforced]] {
        host.apply_as(&allowing(""), as_what);
        for (name, frame) in others() {
            host.send(name, Direction::Ingress, &frame, other);
        }
    }
    host.apply("");
    for direction in Direction::BOTH {
        for (name, frame) in others() {
            host.send(name, direction, &frame, other);
        }
    }
}

#[test]
fn arp_passes_whatever_is_enforced_and_however_it_is_wrapped() {
    let Some(mut host) = Host::new() else { return };
    host.drop_other_ethertypes();
    host.vlans(&[5]);
    for policy in [allowing(""), String::new()] {
        host.apply(&policy);
        for direction in Direction::BOTH {
            let arp = frame_of(0x0806, &[0; 28]);
            for arp in [
                arp.clone(),
                broadcast(&arp),
                tag(&arp, VLAN, 5),
                tag(&arp, VLAN, 0),
            ] {
                host.send("ARP", direction, &arp, passes_as(reason::ARP));
            }
            // A tag that is not allowed carries nothing.
            let expected = if policy.is_empty() {
                passes_as(reason::NOT_ENFORCED)
            } else {
                Expect::Drop(DROP_VLAN)
            };
            host.send("ARP", direction, &tag(&arp, VLAN, 6), expected);
        }
    }
}
