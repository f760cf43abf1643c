//! The packets of the cases, and where their tuple stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

const ETHERNET: usize = 14;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
    pub(crate) fn host(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 0, 1).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }
    /// Somebody that the namespace has a route to.
    pub(crate) fn elsewhere(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 99, 0, 1).into(),
            Self::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }
    /// Where the source address, the destination address and the transport
    /// header stand in a frame.
    fn offsets(self) -> [usize; 3] {
        match self {
            Self::V4 => [ETHERNET + 12, ETHERNET + 16, ETHERNET + 20],
            Self::V6 => [ETHERNET + 8, ETHERNET + 24, ETHERNET + 40],
        }
    }
}

/// What a packet is, but for its addresses and the peer's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// TCP with these flags; the host's port.
    Tcp(u8, u16),
    /// UDP; the host's port.
    Udp(u16),
    EchoRequest,
    EchoReply,
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    In,
    Out,
}

/// A frame and the places in it that a walk rewrites.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) address_at: u32,
    pub(crate) port_at: u32,
}

/// A packet between the host (or `local`) and a peer.
pub(crate) fn frame(way: Way, kind: Kind, local: IpAddr, peer: IpAddr, peer_port: u16) -> Frame {
    let family = if local.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let (from, to) = match way {
        Way::In => (peer, local),
        Way::Out => (local, peer),
    };
    let ports = |host_port: u16| match way {
        Way::In => [peer_port, host_port],
        Way::Out => [host_port, peer_port],
    };
    let (proto, l4) = transport(family, kind, ports, peer_port);
    let mut bytes = vec![0; 12];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend(length(20 + l4.len()));
            bytes.extend([0, 7, 0, 0, 64, proto, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(length(l4.len()));
            bytes.extend([proto, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("addresses of two families: {from} and {to}"),
    }
    bytes.extend(l4);
    let [source_at, destination_at, l4_at] = family.offsets();
    let echo = matches!(kind, Kind::EchoRequest | Kind::EchoReply);
    let (address_at, port_at) = match way {
        Way::In => (source_at, l4_at),
        Way::Out => (destination_at, l4_at + 2),
    };
    let port_at = if echo { l4_at + 4 } else { port_at };
    let place = |at: usize| u32::try_from(at).expect("a small frame");
    Frame {
        bytes,
        address_at: place(address_at),
        port_at: place(port_at),
    }
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).expect("a small packet").to_be_bytes()
}

fn transport(
    family: Family,
    kind: Kind,
    ports: impl Fn(u16) -> [u16; 2],
    identifier: u16,
) -> (u8, Vec<u8>) {
    let head = |host_port| ports(host_port).map(u16::to_be_bytes).concat();
    match kind {
        Kind::Tcp(flags, host_port) => {
            let mut bytes = head(host_port);
            bytes.extend([0; 8]);
            bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (6, bytes)
        }
        Kind::Udp(host_port) => {
            let mut bytes = head(host_port);
            bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
            (17, bytes)
        }
        Kind::EchoRequest | Kind::EchoReply => {
            let (proto, types) = match family {
                Family::V4 => (1, [8, 0]),
                Family::V6 => (58, [128, 129]),
            };
            let message = types[usize::from(kind == Kind::EchoReply)];
            let mut bytes = vec![message, 0, 0, 0];
            bytes.extend(identifier.to_be_bytes());
            bytes.extend([0, 1]);
            (proto, bytes)
        }
    }
}
