//! Conntrack entries, one per flow of the host.
//!
//! The key is (local, remote) and not (source, destination): on ingress the
//! destination is local, on egress the source is, so both directions of a flow
//! make the same key without a comparison. Addresses and ports are in network
//! byte order, as they stand in the packet: words, not byte arrays, so that the
//! programs build a key with whole stores (`u32::from_ne_bytes` of the octets).
//!
//! Where an entry stands, and until when it lives: [`crate::flows`].

use crate::table::Cell;

/// IPv4 flow key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CtKey4 {
    pub local: u32,
    pub remote: u32,
    /// Network byte order. ICMP echo: the identifier if the host asked, else 0.
    pub local_port: u16,
    /// Network byte order. ICMP echo: the identifier if the peer asked, else 0.
    pub remote_port: u16,
    pub proto: u8,
    /// One of [`kind`].
    pub kind: u8,
    pub pad: u16,
}

/// IPv6 flow key; fields as in [`CtKey4`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CtKey6 {
    pub local: [u32; 4],
    pub remote: [u32; 4],
    pub local_port: u16,
    pub remote_port: u16,
    pub proto: u8,
    pub kind: u8,
    pub pad: u16,
}

/// What the ports of a key mean.
pub mod kind {
    /// Ports (or zeros for protocols without).
    pub const TUPLE: u8 = 0;
    /// ICMP echo asked by the host.
    pub const ECHO_LOCAL: u8 = 1;
    /// ICMP echo asked by the peer.
    pub const ECHO_REMOTE: u8 = 2;
}

/// Flag bits of [`CtEntry::flags`].
pub mod flags {
    /// The flow was opened by the host (egress); else by the peer (ingress).
    pub const OPENED_EGRESS: u32 = 1 << 0;
    /// Never judged: forwarded traffic with a local source (masqueraded).
    pub const UNJUDGED: u32 = 1 << 1;
    /// First seen mid-stream: the direction is a guess until adopted.
    pub const GUESSED: u32 = 1 << 2;
    /// Entered or corrected by the agent from a socket or the kernel's table.
    pub const ADOPTED: u32 = 1 << 3;
    /// The opener has closed its side (FIN or RST).
    pub const CLOSING_FORWARD: u32 = 1 << 4;
    /// The other side has closed.
    pub const CLOSING_REPLY: u32 = 1 << 5;
    /// TCP: a packet other than a SYN was seen.
    pub const SEEN_NON_SYN: u32 = 1 << 6;
    /// An answer was seen.
    pub const SEEN_REPLY: u32 = 1 << 7;
    /// The agent's own traffic: passes while it leads to one of its endpoints
    /// ([`crate::control`]).
    pub const OWN: u32 = 1 << 8;
    /// Both sides of a closing flow.
    pub const CLOSING_BOTH: u32 = CLOSING_FORWARD | CLOSING_REPLY;
}

/// The verdict cell (see [`crate::table::Cell`]) that a flow was judged with, and
/// the decision epoch in which that was.
///
/// One word, loaded and stored whole: around a flip, a packet of the old
/// generation and one of the new may judge a flow at the same time, and neither
/// may leave its verdict under the other's epoch.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged(u64);

impl Judged {
    #[inline(always)]
    #[must_use]
    pub const fn new(epoch: u32, cell: Cell) -> Self {
        Self(epoch as u64 | (cell.0 as u64) << 32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    #[must_use]
    pub const fn cell(self) -> Cell {
        Cell((self.0 >> 32) as u32)
    }
}

/// State of one flow. IPv4: with its key a cache line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CtEntry {
    /// The verdict, and the epoch in which it was given.
    pub judged: Judged,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Identity of the peer when it was judged.
    pub identity: u32,
    /// Packets and bytes in the opener's direction, then in the other one.
    /// Updated without atomics: a lost increment is possible, a wrong verdict is not.
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
}

/// Ports of a fragmented datagram, by its identification.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FragKey4 {
    pub source: u32,
    pub destination: u32,
    pub id: u16,
    pub proto: u8,
    pub pad: u8,
}

/// IPv6 form of [`FragKey4`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FragKey6 {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub id: u32,
    /// The protocol is not part of it: IPv6 puts fragments together without a
    /// look at it (RFC 8200), and later ones name the first header behind the
    /// fragment header.
    pub pad: u32,
}

/// L4 facts of a first fragment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragValue {
    /// Network byte order; for ICMP: type in the low byte of `source_port`.
    pub source_port: u16,
    pub destination_port: u16,
    /// Protocol of the transport header.
    pub proto: u8,
    /// Where the transport header ends, from the start of what was fragmented,
    /// in units of 8 octets, rounded up.
    pub head: u8,
    pub pad: u16,
}

// The programs shift by the side that closes.
const _: () = assert!(flags::CLOSING_FORWARD << 1 == flags::CLOSING_REPLY);
const _: () = assert!(size_of::<CtKey4>() == 16);
const _: () = assert!(size_of::<CtKey6>() == 40);
const _: () = assert!(size_of::<CtEntry>() == 48);
const _: () = assert!(size_of::<FragKey4>() == 12);
const _: () = assert!(size_of::<FragKey6>() == 40);
const _: () = assert!(size_of::<FragValue>() == 8);
