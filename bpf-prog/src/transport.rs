//! Transport headers and fragments.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{conntrack::FragValue, proto, reason};

use crate::{
    family::Family,
    packet::{L4, glance as glance_at, l4_state, read},
};

/// Marks a transport header that must not reach the host; `icmp_code` then
/// holds the drop reason.
pub const REFUSED: u8 = 8;

/// A header that is refused with `reason` if the packet turns out to be ours.
#[inline(always)]
pub fn refused(proto: u8, offset: u32, reason: u8) -> L4 {
    L4 {
        proto,
        tcp_flags_or_type: 0,
        icmp_code: reason,
        state: REFUSED,
        source_port: 0,
        destination_port: 0,
        offset,
    }
}

/// Octets of a transport header that must be there.
#[inline(always)]
fn size_of_header<F: Family>(proto: u8) -> u32 {
    match proto {
        proto::TCP => 20,
        proto::UDP => 8,
        proto::SCTP => 12,
        other if other == F::ICMP => 8,
        _ => 0,
    }
}

/// Reads the transport header at `offset`; `end` is where the IP packet ends.
#[inline(always)]
pub fn parse<F: Family>(skb: *mut __sk_buff, proto: u8, offset: u32, end: u32) -> L4 {
    let mut l4 = L4 {
        proto,
        tcp_flags_or_type: 0,
        icmp_code: 0,
        state: l4_state::TRACKED,
        source_port: 0,
        destination_port: 0,
        offset,
    };
    if offset + size_of_header::<F>(proto) > end {
        return refused(proto, offset, reason::INVALID_PACKET);
    }
    if proto == proto::TCP {
        let Some(words) = read::<[u32; 4]>(skb, offset) else {
            return refused(proto, offset, reason::INVALID_PACKET);
        };
        let flags = u32::from_be(words[3]) >> 16;
        if (flags >> 12) < 5 {
            return refused(proto, offset, reason::INVALID_PACKET);
        }
        ports(&mut l4, words[0]);
        l4.tcp_flags_or_type = flags as u8;
    } else if proto == proto::UDP || proto == proto::SCTP {
        let Some(word) = read::<u32>(skb, offset) else {
            return refused(proto, offset, reason::INVALID_PACKET);
        };
        ports(&mut l4, word);
    } else if proto == F::ICMP {
        let Some(words) = read::<[u32; 2]>(skb, offset) else {
            return refused(proto, offset, reason::INVALID_PACKET);
        };
        let head = u32::from_be(words[0]);
        icmp::<F>(
            &mut l4,
            (head >> 24) as u8,
            (head >> 16) as u8,
            first_half(words[1]),
        );
    }
    l4
}

/// The usual cases of `parse`, read directly: TCP, UDP, echo. None for all else.
#[inline(always)]
pub fn glance<F: Family>(skb: *mut __sk_buff, proto: u8, offset: u32, end: u32) -> Option<L4> {
    let mut l4 = L4 {
        proto,
        state: l4_state::TRACKED,
        offset,
        ..L4::NOTHING
    };
    if proto == proto::TCP {
        let words = glance_at::<[u32; 5]>(skb, offset)?;
        let flags = u32::from_be(words[3]) >> 16;
        if offset + 20 > end || (flags >> 12) < 5 {
            return None;
        }
        ports(&mut l4, words[0]);
        l4.tcp_flags_or_type = flags as u8;
        return Some(l4);
    }
    if proto != proto::UDP && proto != F::ICMP {
        return None;
    }
    let words = glance_at::<[u32; 2]>(skb, offset)?;
    if offset + 8 > end {
        return None;
    }
    if proto == proto::UDP {
        ports(&mut l4, words[0]);
        return Some(l4);
    }
    let head = u32::from_be(words[0]);
    l4.tcp_flags_or_type = (head >> 24) as u8;
    l4.icmp_code = (head >> 16) as u8;
    if l4.tcp_flags_or_type == F::ECHO_REQUEST {
        l4.source_port = first_half(words[1]);
    } else if l4.tcp_flags_or_type == F::ECHO_REPLY {
        l4.destination_port = first_half(words[1]);
    } else {
        return None;
    }
    Some(l4)
}

#[inline(always)]
fn ports(l4: &mut L4, word: u32) {
    l4.source_port = first_half(word);
    l4.destination_port = second_half(word);
}

/// First two octets of a word as it stands in the packet.
#[inline(always)]
fn first_half(word: u32) -> u16 {
    if cfg!(target_endian = "little") {
        word as u16
    } else {
        (word >> 16) as u16
    }
}

#[inline(always)]
fn second_half(word: u32) -> u16 {
    if cfg!(target_endian = "little") {
        (word >> 16) as u16
    } else {
        word as u16
    }
}

#[inline(always)]
fn icmp<F: Family>(l4: &mut L4, message_type: u8, code: u8, identifier: u16) {
    l4.tcp_flags_or_type = message_type;
    l4.icmp_code = code;
    if message_type == F::ECHO_REQUEST {
        l4.source_port = identifier;
    } else if message_type == F::ECHO_REPLY {
        l4.destination_port = identifier;
    } else {
        l4.state = F::classify_icmp(message_type, code);
        if l4.state == l4_state::FORBIDDEN {
            l4.state = REFUSED;
            l4.icmp_code = reason::FORBIDDEN_ICMPV6;
        }
    }
}

/// Where a fragment stands, in octets.
#[derive(Clone, Copy)]
pub struct Place {
    /// Where its data begin in the packet.
    pub start: u32,
    /// Where they stood in the datagram; 0 in the first fragment.
    pub offset: u32,
}

/// A fragment of a datagram: the first one is parsed and remembered, later ones
/// take protocol and ports of the first. `offset`: where a transport header
/// stands, if this is the first.
#[inline(always)]
pub fn parse_fragment<F: Family>(
    skb: *mut __sk_buff,
    proto: u8,
    offset: u32,
    end: u32,
    place: Place,
    key: &F::FragmentKey,
) -> L4 {
    if place.offset == 0 {
        let l4 = parse::<F>(skb, proto, offset, end);
        if l4.state == REFUSED {
            return l4;
        }
        // Up to here a later fragment must not reach back: to the end of the
        // transport header, in units of 8 octets, rounded up.
        let head = (offset + size_of_header::<F>(proto) + 7).wrapping_sub(place.start) / 8;
        let (source_port, destination_port) = if proto == F::ICMP {
            let identifier = l4.source_port | l4.destination_port;
            (u16::from(l4.tcp_flags_or_type), identifier)
        } else {
            (l4.source_port, l4.destination_port)
        };
        let value = FragValue {
            source_port,
            destination_port,
            proto,
            head: if head > 255 { 255 } else { head as u8 },
            pad: 0,
        };
        // A full map only means that later fragments are judged without ports.
        let _ = F::fragments().insert(key, value, 0);
        return l4;
    }
    // A second fragment that begins inside the transport header could rewrite
    // it after it was judged (RFC 1858, RFC 3128).
    if place.offset < 16 && proto == proto::TCP {
        return refused(proto, offset, reason::INVALID_PACKET);
    }
    let mut l4 = refused(proto, offset, 0);
    // SAFETY: the value is copied at once; a concurrent eviction can only make
    // it stale, which a fragment of the same datagram cannot tell apart.
    match unsafe { F::fragments().get(key) } {
        Some(value) if place.offset / 8 < u32::from(value.head) => {
            l4.icmp_code = reason::INVALID_PACKET;
        }
        Some(value) => {
            l4.state = l4_state::FRAGMENT_KNOWN;
            l4.proto = value.proto;
            if value.proto == F::ICMP {
                icmp::<F>(&mut l4, value.source_port as u8, 0, value.destination_port);
                if l4.state == l4_state::ICMP_ERROR {
                    l4.state = l4_state::UNTRACKED;
                }
            } else {
                l4.source_port = value.source_port;
                l4.destination_port = value.destination_port;
            }
        }
        None => l4.state = l4_state::FRAGMENT_UNKNOWN,
    }
    l4
}

/// Ports of a header that an ICMP error quotes: 8 octets are enough (RFC 792),
/// without them it is about nothing that we know.
#[inline(always)]
pub fn parse_quoted<F: Family>(skb: *mut __sk_buff, proto: u8, offset: u32) -> Option<L4> {
    let mut l4 = refused(proto, offset, 0);
    let words = read::<[u32; 2]>(skb, offset)?;
    if proto == F::ICMP {
        let head = u32::from_be(words[0]);
        icmp::<F>(
            &mut l4,
            (head >> 24) as u8,
            (head >> 16) as u8,
            first_half(words[1]),
        );
    } else if proto == proto::TCP || proto == proto::UDP || proto == proto::SCTP {
        ports(&mut l4, words[0]);
    }
    Some(l4)
}
