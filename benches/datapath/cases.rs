//! The cases: which packet, in which world, and how it must leave.

use palisade::policy::Direction;
use palisade_abi::reason;

use crate::frames::{ACK, Family, Frame, Kind, SYN, Way, frame};
use crate::world::{CLOSED, OPEN, OPEN_TOO, Size, peer, peer_ports};

pub(crate) const BASE: Size = Size {
    rules: 1_000,
    prefixes: 10_000,
};
pub(crate) const RULES: [usize; 3] = [10, 1_000, 100_000];
pub(crate) const PREFIXES: [usize; 3] = [10, 10_000, 500_000];
/// Flows of the cases with many.
pub(crate) const MANY: u32 = 65_536;
/// Sources drawn from 500,000 prefixes.
pub(crate) const SOURCES: u32 = 524_288;

/// Port of the host from which it opens connections.
const CLIENT: u16 = 40_000;
/// Port (or identifier) of the peer where there is one flow.
const PEER_PORT: u16 = 50_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    /// TCP, opened by the peer, answered: the peer's ACK.
    Established,
    /// TCP, opened by the host: the peer's ACK.
    Reply,
    /// A SYN that a rule allows, of a flow that is not there.
    NewAllowed,
    /// A SYN that no rule allows.
    NewDenied,
    /// The same while the production reader drains the events.
    NewDeniedReader,
    /// TCP, opened by the host: the host's ACK.
    EgressEstablished,
    /// TCP from the wire to another host.
    NotOurs,
    /// UDP, answered: the peer's datagram.
    UdpEstablished,
    /// An echo request of a flow that was answered.
    IcmpEcho,
}

pub(crate) const NAMES: [Name; 9] = [
    Name::Established,
    Name::Reply,
    Name::NewAllowed,
    Name::NewDenied,
    Name::NewDeniedReader,
    Name::EgressEstablished,
    Name::NotOurs,
    Name::UdpEstablished,
    Name::IcmpEcho,
];

impl Name {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Reply => "reply",
            Self::NewAllowed => "new_allowed",
            Self::NewDenied => "new_denied",
            Self::NewDeniedReader => "new_denied_reader",
            Self::EgressEstablished => "egress_established",
            Self::NotOurs => "not_ours",
            Self::UdpEstablished => "udp_established",
            Self::IcmpEcho => "icmp_echo",
        }
    }

    pub(crate) fn way(self) -> Way {
        match self {
            Self::EgressEstablished => Way::Out,
            _ => Way::In,
        }
    }

    pub(crate) fn is_denied(self) -> bool {
        matches!(self, Self::NewDenied | Self::NewDeniedReader)
    }

    /// The counter by which every packet of the case must leave.
    pub(crate) fn exit(self) -> (u8, Direction) {
        let direction = match self.way() {
            Way::In => Direction::Ingress,
            Way::Out => Direction::Egress,
        };
        match self {
            Self::NewDenied | Self::NewDeniedReader => (reason::POLICY, direction),
            Self::NotOurs => (reason::NOT_OURS, direction),
            _ => (reason::FORWARDED, direction),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) name: Name,
    pub(crate) size: Size,
    pub(crate) flows: u32,
    pub(crate) family: Family,
}

impl Case {
    /// Opens flows? Then they are forgotten after each run.
    pub(crate) fn opens(&self) -> bool {
        self.name == Name::NewAllowed
    }

    pub(crate) fn frame(&self) -> Frame {
        let ports = Ports::of(self.flows);
        let kind = match self.name {
            Name::Established => Kind::Tcp(ACK, ports.established),
            Name::Reply | Name::EgressEstablished => Kind::Tcp(ACK, CLIENT),
            Name::NewAllowed => Kind::Tcp(SYN, ports.new),
            Name::NewDenied | Name::NewDeniedReader => Kind::Tcp(SYN, CLOSED),
            Name::NotOurs => Kind::Tcp(ACK, OPEN),
            Name::UdpEstablished => Kind::Udp(OPEN),
            Name::IcmpEcho => Kind::EchoRequest,
        };
        let local = match self.name {
            Name::NotOurs => self.family.elsewhere(),
            _ => self.family.host(),
        };
        frame(self.name.way(), kind, local, peer(self.family), PEER_PORT)
    }
}

/// Ports of the host.
struct Ports {
    established: u16,
    new: u16,
}

impl Ports {
    /// One flow: ports that rules open for this peer alone; many: for everybody.
    fn of(flows: u32) -> Self {
        if flows == 1 {
            let [established, new] = peer_ports();
            return Self { established, new };
        }
        Self {
            established: OPEN,
            new: OPEN_TOO,
        }
    }
}

/// The packets that make the flows of all cases, in order: opened, answered,
/// and gone on with.
pub(crate) fn openings(family: Family, flows: u32) -> Vec<(Way, Frame)> {
    let server = Ports::of(flows).established;
    let steps = [
        (Way::In, Kind::Tcp(SYN, server)),
        (Way::Out, Kind::Tcp(SYN | ACK, server)),
        (Way::In, Kind::Tcp(ACK, server)),
        (Way::Out, Kind::Tcp(SYN, CLIENT)),
        (Way::In, Kind::Tcp(SYN | ACK, CLIENT)),
        (Way::Out, Kind::Tcp(ACK, CLIENT)),
        (Way::In, Kind::Udp(OPEN)),
        (Way::Out, Kind::Udp(OPEN)),
        (Way::In, Kind::Udp(OPEN)),
        (Way::In, Kind::EchoRequest),
        (Way::Out, Kind::EchoReply),
        (Way::In, Kind::EchoRequest),
    ];
    let from = peer(family);
    let packet = |(way, kind)| (way, frame(way, kind, family.host(), from, PEER_PORT));
    steps.into_iter().map(packet).collect()
}

/// The same where there are fewer and more prefixes.
fn of_prefixes(base: Case) -> Vec<Case> {
    let mut cases = Vec::new();
    for prefixes in PREFIXES.into_iter().filter(|it| *it != BASE.prefixes) {
        let size = Size { prefixes, ..BASE };
        cases.push(Case { size, ..base });
        if base.name == Name::NewDenied {
            cases.push(Case {
                size,
                flows: SOURCES,
                ..base
            });
        }
    }
    cases
}

/// Every case: the base point, and each dimension varied from it alone.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in NAMES {
        let base = Case {
            name,
            size: BASE,
            flows: 1,
            family: Family::V4,
        };
        cases.push(base);
        cases.push(Case {
            flows: MANY,
            ..base
        });
        for rules in RULES.into_iter().filter(|rules| *rules != BASE.rules) {
            let size = Size { rules, ..BASE };
            cases.push(Case { size, ..base });
        }
        cases.extend(of_prefixes(base));
        let six = Case {
            family: Family::V6,
            ..base
        };
        cases.push(six);
        cases.extend(of_prefixes(six));
    }
    cases
}
