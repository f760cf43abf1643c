//! IPv6: headers and their extensions, keys, routing and sockets.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup, bpf_sock_tuple},
    maps::{LruHashMap, lpm_trie::Key},
};
use palisade_abi::{
    conntrack::{CtEntry, CtKey6, FragKey6, FragValue},
    proto, reason,
    table::column,
};

use crate::{
    family::{Family, Inner, Packet},
    kernel,
    maps::{CT6, FRAG6, HALF6, IPCACHE6},
    packet::{L4, l4_state, read},
    transport,
    verdict::Peer,
};

/// `AF_INET6`.
const AF_INET6: u8 = 10;
const HEADER: u32 = 40;
/// Extension headers that are followed; a longer chain is refused.
const EXTENSIONS_MAX: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;

/// The fixed IPv6 header, RFC 8200.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version_class_flow: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// Next header, length, and (fragment header) offset and flags.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extension {
    next_header: u8,
    length: u8,
    fragment: u16,
    id: u32,
}

/// Where a chain of extension headers ends.
struct Chain {
    proto: u8,
    offset: u32,
    /// Offset and identification, if a fragment header was met.
    fragment: Option<(u32, u32)>,
}

/// Follows the extension headers; None if they cannot be followed.
#[inline(always)]
fn follow(skb: *mut __sk_buff, first: u8, start: u32) -> Option<Chain> {
    let mut chain = Chain {
        proto: first,
        offset: start,
        fragment: None,
    };
    for _ in 0..=EXTENSIONS_MAX {
        let proto = chain.proto;
        if proto != HOP_BY_HOP
            && proto != ROUTING
            && proto != DESTINATION
            && proto != FRAGMENT
            && proto != proto::AH
        {
            return if proto == NO_NEXT_HEADER {
                None
            } else {
                Some(chain)
            };
        }
        let extension = read::<Extension>(skb, chain.offset)?;
        chain.proto = extension.next_header;
        if proto == FRAGMENT {
            let bits = u32::from(u16::from_be(extension.fragment));
            chain.offset += 8;
            // An atomic fragment (RFC 6946) is a whole packet.
            if bits & 0xfff9 != 0 {
                chain.fragment = Some((bits & 0xfff8, extension.id));
                if bits & 0xfff8 != 0 {
                    return Some(chain);
                }
            }
        } else if proto == proto::AH {
            chain.offset += (u32::from(extension.length) + 2) * 4;
        } else {
            chain.offset += (u32::from(extension.length) + 1) * 8;
        }
    }
    None
}

/// The IPv6 family.
pub struct V6;

impl Family for V6 {
    type Addr = [u32; 4];
    type Key = CtKey6;
    type FragmentKey = FragKey6;

    const NUMBER: u8 = 6;
    const ICMP: u8 = proto::ICMPV6;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const ICMP_COLUMN: u32 = column::OTHER_ICMPV6;

    #[inline(always)]
    fn parse(skb: *mut __sk_buff, l3: u32) -> Result<Packet<Self>, u8> {
        let header = read::<Header>(skb, l3).ok_or(reason::INVALID_PACKET)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return Err(reason::INVALID_PACKET);
        }
        let payload = u32::from(u16::from_be(header.payload_length));
        // A length of 0 is a jumbogram or a segment larger than 64 KiB.
        let end = if payload == 0 {
            u32::MAX >> 1
        } else {
            l3 + HEADER + payload
        };
        let l4 = match follow(skb, header.next_header, l3 + HEADER) {
            None => transport::refused(header.next_header, l3 + HEADER, reason::IPV6_EXTENSION),
            Some(chain) => parse_after(skb, &header, &chain, end),
        };
        Ok(Packet {
            source: header.source,
            destination: header.destination,
            l4,
        })
    }

    #[inline(always)]
    fn parse_plain(skb: *mut __sk_buff, l3: u32) -> Option<Packet<Self>> {
        let header = read::<Header>(skb, l3)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return None;
        }
        let l4 = transport::parse::<Self>(skb, header.next_header, l3 + HEADER, u32::MAX >> 1);
        Some(Packet {
            source: header.source,
            destination: header.destination,
            l4,
        })
    }

    #[inline(always)]
    fn classify_icmp(message_type: u8, _code: u8) -> u8 {
        match message_type {
            1..=4 => l4_state::PASS_RELATED,
            130..=136 | 141..=143 | 148 | 149 | 151..=153 => l4_state::PASS_CONTROL,
            _ => l4_state::FORBIDDEN,
        }
    }

    #[inline(always)]
    fn parse_inner(_skb: *mut __sk_buff, _offset: u32) -> Option<Inner<Self>> {
        // Every ICMPv6 error passes by its type (`classify_icmp`).
        None
    }

    #[inline(always)]
    fn key(
        local: [u32; 4],
        remote: [u32; 4],
        local_port: u16,
        remote_port: u16,
        proto: u8,
        kind: u8,
    ) -> CtKey6 {
        CtKey6 {
            local,
            remote,
            local_port,
            remote_port,
            proto,
            kind,
            pad: 0,
        }
    }
    #[inline(always)]
    fn key_remote(key: &CtKey6) -> [u32; 4] {
        key.remote
    }
    #[inline(always)]
    fn key_ports(key: &CtKey6) -> (u8, u16, u16) {
        (key.proto, key.local_port, key.remote_port)
    }

    #[inline(always)]
    fn full() -> &'static LruHashMap<CtKey6, CtEntry> {
        &CT6
    }
    #[inline(always)]
    fn half() -> &'static LruHashMap<CtKey6, CtEntry> {
        &HALF6
    }
    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragKey6, FragValue> {
        &FRAG6
    }

    #[inline(always)]
    fn peer(address: [u32; 4], slot: u32) -> Peer {
        IPCACHE6
            .get(Key::new(128, address))
            .map_or(Peer::UNKNOWN, |value| Peer::of_slot(value, slot))
    }

    #[inline(always)]
    fn is_forwarded(skb: *mut __sk_buff, packet: &Packet<Self>) -> bool {
        // SAFETY: all-zero bytes are a valid parameter block.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = AF_INET6;
        parameters.l4_protocol = packet.l4.proto;
        parameters.__bindgen_anon_3.ipv6_src = packet.source;
        parameters.__bindgen_anon_4.ipv6_dst = packet.destination;
        kernel::is_forwarded(skb, &mut parameters)
    }

    #[inline(always)]
    fn socket_state(skb: *mut __sk_buff, key: &CtKey6, listeners_only: bool) -> u32 {
        // SAFETY: all-zero bytes are a valid tuple.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        // SAFETY: writes to the IPv6 member of a union of plain words.
        unsafe {
            let ipv6 = &mut tuple.__bindgen_anon_1.ipv6;
            ipv6.daddr = key.local;
            ipv6.dport = key.local_port;
            if !listeners_only {
                ipv6.saddr = key.remote;
                ipv6.sport = key.remote_port;
            }
        }
        kernel::socket_state(skb, &mut tuple, 36)
    }

    #[inline(always)]
    fn words(address: [u32; 4]) -> [u32; 4] {
        address
    }
}

#[inline(always)]
fn parse_after(skb: *mut __sk_buff, header: &Header, chain: &Chain, end: u32) -> L4 {
    let Some((fragment_offset, id)) = chain.fragment else {
        return transport::parse::<V6>(skb, chain.proto, chain.offset, end);
    };
    let key = FragKey6 {
        source: header.source,
        destination: header.destination,
        id,
        proto: chain.proto,
        pad: [0; 3],
    };
    transport::parse_fragment::<V6>(skb, chain.proto, chain.offset, end, fragment_offset, &key)
}
