//! Flows of the kernel's own conntrack (netfilter), by ctnetlink, where it is
//! loaded; asking never loads it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use netlink_sys::protocols::NETLINK_NETFILTER;
use palisade_abi::proto;

use super::{Flow, Opener, Stage, plain};
use crate::datapath::netlink::{Attributes, Netlink, address, half_be};

/// There as soon as the kernel tracks connections in this network namespace.
const LOADED: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const CT_GET: u16 = 0x0101;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;
/// `TCP_CONNTRACK_ESTABLISHED`.
const TCP_ESTABLISHED: u8 = 3;

/// One side of a tracked connection.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    proto: u8,
}

/// A tracked connection.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Tracked {
    original: Tuple,
    reply: Tuple,
    seen_reply: bool,
}

/// Flows from or to an address of ours; empty where the kernel tracks nothing.
pub(crate) fn flows(own: &BTreeSet<IpAddr>) -> io::Result<Vec<Flow>> {
    if !Path::new(LOADED).exists() {
        return Ok(Vec::new());
    }
    let mut netlink = Netlink::open(NETLINK_NETFILTER, 0)?;
    let all = netlink.dump(CT_GET, &[0; 4])?;
    Ok(all
        .iter()
        .filter_map(|message| decode(&message.body, own))
        .collect())
}

/// The flow of a tracked connection as the kernel describes it.
pub(super) fn decode(body: &[u8], own: &BTreeSet<IpAddr>) -> Option<Flow> {
    on_the_wire(&parse(body)?, own)
}

fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let ip = Attributes(attributes.find(CTA_TUPLE_IP)?);
    // Sources have odd types, destinations even ones (1, 2: IPv4; 3, 4: IPv6).
    let end = |v4: u16| {
        ip.find(v4)
            .or_else(|| ip.find(v4 + 2))
            .and_then(address)
            .map(plain)
    };
    let l4 = Attributes(attributes.find(CTA_TUPLE_PROTO)?);
    let port = |kind| l4.find(kind).and_then(half_be).unwrap_or(0);
    Some(Tuple {
        source: end(1)?,
        destination: end(2)?,
        source_port: port(CTA_PROTO_SRC_PORT),
        destination_port: port(CTA_PROTO_DST_PORT),
        proto: *l4.find(CTA_PROTO_NUM)?.first()?,
    })
}

fn parse(body: &[u8]) -> Option<Tracked> {
    let attributes = Attributes(body.get(4..)?);
    let original = tuple(Attributes(attributes.find(CTA_TUPLE_ORIG)?))?;
    let reply = tuple(Attributes(attributes.find(CTA_TUPLE_REPLY)?))?;
    let status = attributes.find(CTA_STATUS)?.get(..4)?;
    let status = u32::from_be_bytes(status.try_into().ok()?);
    let tcp_state = attributes
        .find(CTA_PROTOINFO)
        .and_then(|info| Attributes(info).find(CTA_PROTOINFO_TCP))
        .and_then(|tcp| Attributes(tcp).find(CTA_PROTOINFO_TCP_STATE))
        .and_then(|state| state.first().copied());
    // TCP that opens or closes is the sockets' business, or over soon.
    if original.proto == proto::TCP && tcp_state != Some(TCP_ESTABLISHED) {
        return None;
    }
    Some(Tracked {
        original,
        reply,
        seen_reply: status & SEEN_REPLY != 0,
    })
}

/// The flow as a device of ours sees it: outgoing after source translation,
/// incoming before destination translation.
fn on_the_wire(tracked: &Tracked, own: &BTreeSet<IpAddr>) -> Option<Flow> {
    let Tracked {
        original,
        reply,
        seen_reply,
    } = tracked;
    // Echo is short-lived, and its key is an identifier.
    if matches!(original.proto, proto::ICMP | proto::ICMPV6) {
        return None;
    }
    let outgoing = |opener| Flow {
        local: reply.destination,
        local_port: reply.destination_port,
        remote: reply.source,
        remote_port: reply.source_port,
        proto: original.proto,
        opener,
        answered: *seen_reply,
        stage: Stage::Open,
    };
    let from_us = own.contains(&original.source);
    let to_us = own.contains(&original.destination);
    if from_us && to_us {
        return None;
    }
    if from_us {
        return Some(outgoing(Opener::Host));
    }
    if to_us {
        return Some(Flow {
            local: original.destination,
            local_port: original.destination_port,
            remote: original.source,
            remote_port: original.source_port,
            ..outgoing(Opener::Peer)
        });
    }
    // Forwarded and masqueraded: it leaves under an address of ours.
    own.contains(&reply.destination)
        .then(|| outgoing(Opener::Forwarded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: (&str, u16), destination: (&str, u16)) -> Tuple {
        Tuple {
            source: source.0.parse().expect("an address"),
            destination: destination.0.parse().expect("an address"),
            source_port: source.1,
            destination_port: destination.1,
            proto: proto::UDP,
        }
    }

    fn flow(original: Tuple, reply: Tuple) -> Option<(String, u16, String, u16, Opener)> {
        let own = ["192.0.2.1".parse().expect("an address")].into();
        let tracked = Tracked {
            original,
            reply,
            seen_reply: true,
        };
        on_the_wire(&tracked, &own).map(|flow| {
            let (local, remote) = (flow.local.to_string(), flow.remote.to_string());
            (
                local,
                flow.local_port,
                remote,
                flow.remote_port,
                flow.opener,
            )
        })
    }

    #[test]
    fn flows_of_the_host_keep_their_opener() {
        let (us, peer) = (("192.0.2.1", 5_000), ("203.0.113.5", 53));
        let expect = |opener| Some(("192.0.2.1".into(), 5_000, "203.0.113.5".into(), 53, opener));
        assert_eq!(flow(tuple(us, peer), tuple(peer, us)), expect(Opener::Host));
        assert_eq!(flow(tuple(peer, us), tuple(us, peer)), expect(Opener::Peer));
    }

    #[test]
    fn a_masqueraded_flow_is_forwarded_under_our_address_and_port() {
        let container = tuple(("172.17.0.2", 4_000), ("203.0.113.5", 53));
        let answer = tuple(("203.0.113.5", 53), ("192.0.2.1", 61_000));
        let expect = (
            "192.0.2.1".into(),
            61_000,
            "203.0.113.5".into(),
            53,
            Opener::Forwarded,
        );
        assert_eq!(flow(container, answer), Some(expect));
    }

    #[test]
    fn a_published_port_is_seen_before_its_translation() {
        let ask = tuple(("203.0.113.5", 4_000), ("192.0.2.1", 8_080));
        let answer = tuple(("172.17.0.2", 80), ("203.0.113.5", 4_000));
        let expect = (
            "192.0.2.1".into(),
            8_080,
            "203.0.113.5".into(),
            4_000,
            Opener::Peer,
        );
        assert_eq!(flow(ask, answer), Some(expect));
    }

    #[test]
    fn plainly_forwarded_flows_are_none_of_ours() {
        let ask = tuple(("172.17.0.2", 4_000), ("203.0.113.5", 53));
        let answer = tuple(("203.0.113.5", 53), ("172.17.0.2", 4_000));
        assert_eq!(flow(ask, answer), None);
    }
}
