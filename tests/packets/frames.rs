//! Frames as bytes: every header by hand, so that each can be made wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP flags.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// An L4 payload: protocol number and bytes.
#[derive(Clone, Debug)]
pub(crate) struct L4 {
    pub(crate) proto: u8,
    pub(crate) bytes: Vec<u8>,
}

/// A TCP header with the given flags.
pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> L4 {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    L4 { proto: 6, bytes }
}

/// A UDP header and four octets of data.
pub(crate) fn udp(source: u16, destination: u16) -> L4 {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    L4 { proto: 17, bytes }
}

/// An SCTP common header.
pub(crate) fn sctp(source: u16, destination: u16) -> L4 {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 8]);
    L4 { proto: 132, bytes }
}

/// ICMP (`proto` 1) or ICMPv6 (58) with an identifier.
pub(crate) fn icmp(proto: u8, message_type: u8, code: u8, identifier: u16) -> L4 {
    let mut bytes = vec![message_type, code, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend([0, 1]);
    L4 { proto, bytes }
}

/// An ICMP error that quotes an IP packet.
pub(crate) fn icmp_error(proto: u8, message_type: u8, code: u8, quoted: &[u8]) -> L4 {
    let mut bytes = vec![message_type, code, 0, 0, 0, 0, 0, 0];
    bytes.extend(quoted);
    L4 { proto, bytes }
}

/// Any other protocol.
pub(crate) fn raw(proto: u8) -> L4 {
    L4 {
        proto,
        bytes: vec![0; 16],
    }
}

/// What can be unusual about an IP header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ip {
    /// IPv4: option octets (padded to 4). IPv6: extension headers, each with
    /// its own protocol number, in order.
    pub(crate) options: Vec<u8>,
    pub(crate) extensions: Vec<u8>,
    /// Offset in octets, more fragments, identification.
    pub(crate) fragment: Option<(u16, bool, u32)>,
}

/// An IP packet without frame.
pub(crate) fn ip(from: IpAddr, to: IpAddr, shape: &Ip, l4: &L4) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, shape, l4),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, shape, l4),
        _ => panic!("addresses of two families: {from} and {to}"),
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, shape: &Ip, l4: &L4) -> Vec<u8> {
    let mut options = shape.options.clone();
    options.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + options.len();
    let (offset, more, id) = shape.fragment.unwrap_or((0, false, 7));
    let fragment = (offset / 8) | if more { 0x2000 } else { 0 };
    let mut bytes = vec![
        0x40 | u8::try_from(header / 4).expect("at most 60 octets"),
        0,
    ];
    bytes.extend(
        u16::try_from(header + l4.bytes.len())
            .expect("a small packet")
            .to_be_bytes(),
    );
    bytes.extend(
        u16::try_from(id)
            .expect("a 16-bit identification")
            .to_be_bytes(),
    );
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, l4.proto, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    bytes.extend(&l4.bytes);
    bytes
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, shape: &Ip, l4: &L4) -> Vec<u8> {
    let mut chain: Vec<(u8, Vec<u8>)> = shape
        .extensions
        .iter()
        .map(|proto| (*proto, extension(*proto)))
        .collect();
    if let Some((offset, more, id)) = shape.fragment {
        let mut header = vec![0, 0];
        header.extend((offset | u16::from(more)).to_be_bytes());
        header.extend(id.to_be_bytes());
        chain.push((44, header));
    }
    let mut payload = Vec::new();
    for index in 0..chain.len() {
        let next = chain.get(index + 1).map_or(l4.proto, |(proto, _)| *proto);
        let mut header = chain[index].1.clone();
        header[0] = next;
        payload.extend(header);
    }
    payload.extend(&l4.bytes);
    let first = chain.first().map_or(l4.proto, |(proto, _)| *proto);
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(
        u16::try_from(payload.len())
            .expect("a small packet")
            .to_be_bytes(),
    );
    bytes.extend([first, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    bytes
}

/// A minimal extension header; its next-header octet is filled in later.
fn extension(proto: u8) -> Vec<u8> {
    match proto {
        // AH counts its length in words, minus 2.
        51 => vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => vec![0, 0, 1, 4, 0, 0, 0, 0],
    }
}

/// An Ethernet frame around an IP packet. All-zero addresses: for this host,
/// as the loopback device of a test run has them.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if packet.first().is_some_and(|octet| octet >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    frame_of(ethertype, packet)
}

/// An Ethernet frame of any type.
pub(crate) fn frame_of(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    // A test run refuses less than an Ethernet header and wants some payload.
    bytes.resize(bytes.len().max(15), 0);
    bytes
}

/// The frame with a VLAN tag in its data.
pub(crate) fn tagged(frame: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(0x8100_u16.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

/// The frame sent to every station.
pub(crate) fn broadcast(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[..6].fill(0xff);
    bytes
}

/// The frame sent to another station.
pub(crate) fn for_other_station(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 9]);
    bytes
}
