//! A plain reading of a frame, by the documents: what it is, whose it is, and
//! which exits it may take. Shares nothing with the programs but the numbers of
//! the exits.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade::policy::{Direction, Packet};
use palisade_abi::reason;

use crate::host::{HOST4, HOST6};

/// What a frame is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Reading {
    Arp,
    OtherEthertype,
    /// Refused before anybody asks whose it is.
    Refused(u8),
    Ip(Ip),
}

/// An IP packet.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) what: What,
}

/// What policy has to say about it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum What {
    /// Passes by this exit without being asked.
    Passes(u8),
    /// Refused for this reason if it is the host's.
    Refused(u8),
    /// Judged as `packet`; `flow` if conntrack can know it.
    Judged { packet: Packet, flow: Option<Flow> },
    /// An error that passes with the flow it quotes, else judged.
    Error { packet: Packet, about: Option<Flow> },
}

/// The two ends of a flow, in the order of the packet; each with its port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flow {
    pub(crate) proto: u8,
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    /// ICMP echo: whether this is the question.
    pub(crate) asks: Option<bool>,
}

impl Flow {
    /// The same flow, in whatever direction its packet went.
    pub(crate) fn name(self) -> Self {
        let turned = Self {
            from: self.to,
            to: self.from,
            asks: self.asks.map(|asks| !asks),
            ..self
        };
        match self.from.cmp(&self.to) {
            Ordering::Less => self,
            Ordering::Greater => turned,
            // Both ends are one: question and answer cannot be told apart.
            Ordering::Equal => Self { asks: None, ..self },
        }
    }
}

/// First fragments that were seen: by addresses, identification and (IPv4)
/// protocol.
type FragmentKey = (IpAddr, IpAddr, u32, u8);

/// What a later fragment takes from the first one.
#[derive(Clone, Copy, Debug)]
struct First {
    proto: u8,
    ports: (u16, u16),
    icmp_type: u8,
    /// Octets of the datagram up to the end of the transport header.
    head: usize,
}

/// Reads frames, and remembers first fragments.
#[derive(Default)]
pub(crate) struct Reader {
    firsts: HashMap<FragmentKey, First>,
}

/// Tags that are followed.
const TAGS_MAX: usize = 2;
const EXTENSIONS_MAX: usize = 8;
/// Length of a packet that says that it has none (a jumbo segment).
const ENDLESS: usize = usize::MAX / 2;

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn address4(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn address6(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

impl Reader {
    pub(crate) fn read(&mut self, frame: &[u8], vlans: &[u16]) -> Reading {
        let mut at = 12;
        let mut ethertype = word16(frame, at).unwrap_or(0);
        let mut tags = 0;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            let (Some(tag), Some(inner)) = (word16(frame, at + 2), word16(frame, at + 4)) else {
                return Reading::Refused(reason::VLAN);
            };
            let id = tag & 0xfff;
            tags += 1;
            if tags > TAGS_MAX || id != 0 && !vlans.contains(&id) && !vlans.contains(&0) {
                return Reading::Refused(reason::VLAN);
            }
            ethertype = inner;
            at += 4;
        }
        let packet = &frame[at + 2..];
        let malformed = Reading::Refused(reason::INVALID_PACKET);
        match ethertype {
            0x0806 => Reading::Arp,
            0x0800 => self.read_v4(packet).map_or(malformed, Reading::Ip),
            0x86dd => self.read_v6(packet).map_or(malformed, Reading::Ip),
            _ => Reading::OtherEthertype,
        }
    }

    fn read_v4(&mut self, packet: &[u8]) -> Option<Ip> {
        let header = packet.get(..20)?;
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(word16(header, 2)?);
        if header[0] >> 4 != 4 || length < 20 || total != 0 && total < length {
            return None;
        }
        let end = if total == 0 { ENDLESS } else { total };
        let source = address4(&header[12..16])?;
        let destination = address4(&header[16..20])?;
        let fragment = word16(header, 6)?;
        let mut body = Body {
            packet,
            proto: header[9],
            at: length,
            end,
            source,
            destination,
        };
        let what = if fragment & 0x3fff == 0 {
            body.transport().0
        } else {
            let id = u32::from(word16(header, 4)?);
            let key = (source, destination, id, header[9]);
            let offset = usize::from(fragment & 0x1fff) * 8;
            self.fragment(&mut body, key, offset, length)
        };
        Some(Ip {
            source,
            destination,
            what,
        })
    }

    fn read_v6(&mut self, packet: &[u8]) -> Option<Ip> {
        let header = packet.get(..40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let payload = usize::from(word16(header, 4)?);
        let source = address6(&header[8..24])?;
        let destination = address6(&header[24..40])?;
        let mut body = Body {
            packet,
            proto: header[6],
            at: 40,
            end: if payload == 0 { ENDLESS } else { 40 + payload },
            source,
            destination,
        };
        let what = match body.walk() {
            None => What::Refused(reason::IPV6_EXTENSION),
            Some(None) => body.transport().0,
            Some(Some(piece)) => {
                let key = (source, destination, piece.id, 0);
                self.fragment(&mut body, key, piece.offset, piece.start)
            }
        };
        Some(Ip {
            source,
            destination,
            what,
        })
    }

    /// A fragment whose data begin at `start` of the packet.
    fn fragment(
        &mut self,
        body: &mut Body<'_>,
        key: FragmentKey,
        offset: usize,
        start: usize,
    ) -> What {
        if offset == 0 {
            let (what, ports) = body.transport();
            if !matches!(what, What::Refused(_)) {
                let icmp = body.is_icmp();
                let first = First {
                    proto: body.proto,
                    ports,
                    icmp_type: if icmp { body.packet[body.at] } else { 0 },
                    head: body.at + body.header_length() - start,
                };
                self.firsts.insert(key, first);
            }
            return what;
        }
        if offset < 16 && body.proto == 6 {
            return What::Refused(reason::INVALID_PACKET);
        }
        let Some(first) = self.firsts.get(&key) else {
            let packet = Packet::Fragment;
            return What::Judged { packet, flow: None };
        };
        if offset < first.head {
            return What::Refused(reason::INVALID_PACKET);
        }
        body.proto = first.proto;
        if body.is_icmp() {
            let identifier = first.ports.0 | first.ports.1;
            return body.icmp(first.icmp_type, 0, identifier, false);
        }
        body.with_ports(first.ports)
    }
}

/// A fragment header.
struct Piece {
    id: u32,
    offset: usize,
    /// Where the data begin.
    start: usize,
}

/// A packet on its way to the transport header.
struct Body<'a> {
    packet: &'a [u8],
    proto: u8,
    at: usize,
    end: usize,
    source: IpAddr,
    destination: IpAddr,
}

impl Body<'_> {
    fn is_icmp(&self) -> bool {
        self.proto == if self.source.is_ipv4() { 1 } else { 58 }
    }

    /// Octets of the transport header that must be there.
    fn header_length(&self) -> usize {
        match self.proto {
            6 => 20,
            17 => 8,
            132 => 12,
            _ if self.is_icmp() => 8,
            _ => 0,
        }
    }

    /// Over the extension headers; the fragment header, if there is one. None if
    /// they cannot be followed.
    fn walk(&mut self) -> Option<Option<Piece>> {
        let mut piece = None;
        for followed in 0.. {
            if !matches!(self.proto, 0 | 43 | 44 | 51 | 60) {
                return (self.proto != 59).then_some(piece);
            }
            if followed == EXTENSIONS_MAX {
                break;
            }
            let header = self.packet.get(self.at..self.at + 8)?;
            let here = std::mem::replace(&mut self.proto, header[0]);
            let length = usize::from(header[1]);
            self.at += match here {
                44 => 8,
                51 => (length + 2) * 4,
                _ => (length + 1) * 8,
            };
            let bits = usize::from(word16(header, 2)?);
            // Offset 0 and no more fragments: a whole packet.
            if here == 44 && bits & 0xfff9 != 0 {
                let offset = bits & 0xfff8;
                piece = Some(Piece {
                    id: u32::from_be_bytes(header[4..8].try_into().ok()?),
                    offset,
                    start: self.at,
                });
                if offset != 0 {
                    return Some(piece);
                }
            }
        }
        None
    }

    /// The transport header and its ports (for echo: the identifier, twice).
    fn transport(&self) -> (What, (u16, u16)) {
        let refused = (What::Refused(reason::INVALID_PACKET), (0, 0));
        let length = self.header_length();
        if self.at + length > self.end {
            return refused;
        }
        // Of TCP and SCTP less is looked at than their whole header.
        let looked_at = match self.proto {
            6 => 16,
            132 => 4,
            17 => 4,
            _ => length,
        };
        let Some(header) = self.packet.get(self.at..).and_then(|rest| {
            if looked_at == 0 {
                Some(&[][..])
            } else {
                rest.get(..looked_at)
            }
        }) else {
            return if looked_at == 0 {
                (self.with_ports((0, 0)), (0, 0))
            } else {
                refused
            };
        };
        if self.proto == 6 && header[12] >> 4 < 5 {
            return refused;
        }
        if self.is_icmp() {
            let identifier = word16(header, 4).unwrap_or(0);
            let what = self.icmp(header[0], header[1], identifier, true);
            return (what, (identifier, identifier));
        }
        let ports = match self.proto {
            6 | 17 | 132 => (
                word16(header, 0).unwrap_or(0),
                word16(header, 2).unwrap_or(0),
            ),
            _ => (0, 0),
        };
        (self.with_ports(ports), ports)
    }

    fn with_ports(&self, (source, destination): (u16, u16)) -> What {
        let proto = self.proto;
        let packet = match proto {
            6 | 17 | 132 => Packet::Port {
                proto,
                port: destination,
            },
            _ => Packet::Other { proto },
        };
        let flow = Flow {
            proto,
            from: (self.source, source),
            to: (self.destination, destination),
            asks: None,
        };
        What::Judged {
            packet,
            flow: Some(flow),
        }
    }

    /// A message of ICMP; `whole` unless it is a later fragment of one.
    fn icmp(&self, icmp_type: u8, code: u8, identifier: u16, whole: bool) -> What {
        let v4 = self.source.is_ipv4();
        let (packet, asked, answered) = if v4 {
            (Packet::Icmp { icmp_type }, 8, 0)
        } else {
            (Packet::Icmpv6 { icmp_type }, 128, 129)
        };
        if icmp_type == asked || icmp_type == answered {
            let flow = Flow {
                proto: self.proto,
                from: (self.source, identifier),
                to: (self.destination, identifier),
                asks: Some(icmp_type == asked),
            };
            return What::Judged {
                packet,
                flow: Some(flow),
            };
        }
        if v4 {
            return match (icmp_type, code) {
                (3, 4) => What::Passes(reason::RELATED),
                (3 | 11 | 12, _) if whole => What::Error {
                    packet,
                    about: self.quoted(),
                },
                _ => What::Judged { packet, flow: None },
            };
        }
        match icmp_type {
            1..=4 => What::Passes(reason::RELATED),
            130..=136 | 141..=143 | 148 | 149 | 151..=153 => What::Passes(reason::ICMPV6_BYPASS),
            _ => What::Refused(reason::FORBIDDEN_ICMPV6),
        }
    }

    /// The flow of the packet that an ICMPv4 error quotes.
    fn quoted(&self) -> Option<Flow> {
        let quote = self.packet.get(self.at + 8..)?;
        let header = quote.get(..20)?;
        if header[0] >> 4 != 4 || word16(header, 6)? & 0x1fff != 0 {
            return None;
        }
        let address = |at: usize| {
            let octets: [u8; 4] = header[at..at + 4].try_into().ok()?;
            Some(IpAddr::from(octets))
        };
        // A quote that ends too early is one without ports.
        let rest = quote.get(usize::from(header[0] & 15) * 4..);
        let rest = rest.and_then(|rest| rest.get(..8));
        let proto = header[9];
        let ports = match (proto, rest) {
            (6 | 17 | 132, Some(rest)) => (word16(rest, 0)?, word16(rest, 2)?),
            (1, Some(rest)) => (word16(rest, 4)?, word16(rest, 4)?),
            _ => (0, 0),
        };
        let asks = match (proto, rest) {
            (1, Some(rest)) => Some(rest[0] == 8),
            _ => None,
        };
        Some(Flow {
            proto,
            from: (address(12)?, ports.0),
            to: (address(16)?, ports.1),
            asks,
        })
    }
}

/// Flows of which some packet has passed.
pub(crate) type Opened = HashSet<Flow>;

/// Whether the host is asked about a packet.
pub(crate) fn is_ours(frame: &[u8], ip: &Ip, direction: Direction, forwarded: bool) -> bool {
    match direction {
        Direction::Egress => !forwarded,
        Direction::Ingress => {
            let for_all = frame[0] & 1 != 0;
            let for_us = frame[..6] == [0; 6];
            for_all || for_us || is_own(ip.destination)
        }
    }
}

pub(crate) fn is_own(address: IpAddr) -> bool {
    address == HOST4 || address == HOST6
}
