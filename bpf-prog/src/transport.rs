//! Transport headers and fragments.

use aya_ebpf::bindings::__sk_buff;
use palisade_abi::{conntrack::FragValue, proto, reason};

use crate::{
    family::Family,
    packet::{L4, l4_state, read},
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
    let size = match proto {
        proto::TCP => 20,
        proto::UDP => 8,
        proto::SCTP => 12,
        other if other == F::ICMP => 8,
        _ => 0,
    };
    if offset + size > end {
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

/// A fragment of a datagram: the first one is parsed and remembered, later ones
/// take the ports of the first.
#[inline(always)]
pub fn parse_fragment<F: Family>(
    skb: *mut __sk_buff,
    proto: u8,
    offset: u32,
    end: u32,
    fragment_offset: u32,
    key: &F::FragmentKey,
) -> L4 {
    if fragment_offset == 0 {
        let l4 = parse::<F>(skb, proto, offset, end);
        if l4.state == REFUSED {
            return l4;
        }
        let value = if proto == F::ICMP {
            FragValue {
                source_port: u16::from(l4.tcp_flags_or_type),
                destination_port: l4.source_port | l4.destination_port,
            }
        } else {
            FragValue {
                source_port: l4.source_port,
                destination_port: l4.destination_port,
            }
        };
        // A full map only means that later fragments are judged without ports.
        let _ = F::fragments().insert(key, value, 0);
        return l4;
    }
    // A second fragment that begins inside the transport header could rewrite
    // it after it was judged (RFC 1858, RFC 3128).
    if fragment_offset < 16 && proto == proto::TCP {
        return refused(proto, offset, reason::INVALID_PACKET);
    }
    let mut l4 = refused(proto, offset, 0);
    // SAFETY: the value is copied at once; a concurrent eviction can only make
    // it stale, which a fragment of the same datagram cannot tell apart.
    match unsafe { F::fragments().get(key) } {
        Some(value) => {
            l4.state = l4_state::FRAGMENT_KNOWN;
            if proto == F::ICMP {
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

/// Ports of a header that an ICMP error quotes: 8 octets are enough.
#[inline(always)]
pub fn parse_quoted<F: Family>(skb: *mut __sk_buff, proto: u8, offset: u32) -> L4 {
    let mut l4 = refused(proto, offset, 0);
    let Some(words) = read::<[u32; 2]>(skb, offset) else {
        return l4;
    };
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
    l4
}
