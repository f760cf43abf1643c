//! IPv6: headers and their extensions, keys, routing and sockets.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup, bpf_sock_tuple},
    maps::{Array, LruHashMap},
};
use palisade_abi::{
    conntrack::{CtKey6, FragKey6, FragValue},
    direction::INGRESS,
    flows::{Set, hash6},
    proto, reason,
    table::class,
};

use crate::{
    family::{Family, Inner, Packet},
    kernel,
    maps::{CT6, FRAG6},
    packet::{L4, glance, l4_state, read},
    transport::{self, Place},
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
    source: Address,
    destination: Address,
}

/// An address as two words of the size of a register: copies of it are loads and
/// stores, no calls.
pub type Address = [u64; 2];

/// A copy, word by word: as a whole the compiler would call a function for it.
#[inline(always)]
fn by_word(address: &Address) -> Address {
    // SAFETY: references; volatile, so that the two loads stay what they are.
    unsafe {
        [
            (&raw const address[0]).read_volatile(),
            (&raw const address[1]).read_volatile(),
        ]
    }
}

/// The same in words of the maps' layouts.
#[inline(always)]
fn words(address: Address) -> [u32; 4] {
    let [a, b] = address.map(|word| word.to_ne_bytes());
    let word = |bytes: [u8; 8], at: usize| {
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    [word(a, 0), word(a, 4), word(b, 0), word(b, 4)]
}

/// And back.
#[inline(always)]
fn address_of(words: [u32; 4]) -> Address {
    let half = |low: u32, high: u32| {
        let (low, high) = (low.to_ne_bytes(), high.to_ne_bytes());
        u64::from_ne_bytes([
            low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3],
        ])
    };
    [half(words[0], words[1]), half(words[2], words[3])]
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
    /// The fragment header that was met, and what its fragment is.
    fragment: Option<Fragment>,
}

struct Fragment {
    id: u32,
    place: Place,
}

/// No fragment header was met.
const WHOLE: u32 = u32::MAX;

/// Whether a header of this number is followed by another; or by nothing, which
/// no packet of ours ends with.
#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        HOP_BY_HOP | ROUTING | FRAGMENT | proto::AH | DESTINATION | NO_NEXT_HEADER
    )
}

/// Follows the extension headers; None if they cannot be followed. Goes on from
/// `packet.l4`, and keeps there what the next step needs: see `Packet::forget`.
#[inline(always)]
fn follow(skb: *mut __sk_buff, packet: &mut Packet<V6>) -> Option<Chain> {
    let l4 = &raw mut packet.l4;
    let opens = &raw mut packet.opens;
    // SAFETY: fields of `packet`, used through these pointers alone meanwhile.
    unsafe {
        let (place, id) = (&raw mut (*opens).epoch, &raw mut (*opens).identity);
        let start = &raw mut (*opens).bytes;
        place.write_volatile(WHOLE);
        // Linux 6.1 wants a loop to go back by a jump. Of a count in a register the
        // compiler makes a block before the loop, which falls into it.
        let mut followed = 0u32;
        let followed = &raw mut followed;
        while followed.read_volatile() < EXTENSIONS_MAX {
            followed.write_volatile(followed.read_volatile() + 1);
            let proto = (&raw const (*l4).proto).read_volatile();
            let offset = (&raw const (*l4).offset).read_volatile();
            if !is_extension(proto) || proto == NO_NEXT_HEADER {
                break;
            }
            let extension = read::<Extension>(skb, offset)?;
            let length = u32::from(extension.length);
            let next = if proto == FRAGMENT {
                let bits = u32::from(u16::from_be(extension.fragment));
                // An atomic fragment (RFC 6946) is a whole packet.
                if bits & 0xfff9 != 0 {
                    place.write_volatile(bits & 0xfff8);
                    id.write_volatile(extension.id);
                    start.write_volatile(offset + 8);
                }
                offset + 8
            } else if proto == proto::AH {
                offset + (length + 2) * 4
            } else {
                offset + (length + 1) * 8
            };
            (&raw mut (*l4).offset).write_volatile(next);
            (&raw mut (*l4).proto).write_volatile(extension.next_header);
            if proto == FRAGMENT && place.read_volatile() != WHOLE && place.read_volatile() != 0 {
                // What follows is no header.
                break;
            }
        }
        let offset = place.read_volatile();
        let chain = Chain {
            proto: (&raw const (*l4).proto).read_volatile(),
            offset: (&raw const (*l4).offset).read_volatile(),
            fragment: (offset != WHOLE).then(|| Fragment {
                id: id.read_volatile(),
                place: Place {
                    start: start.read_volatile(),
                    offset,
                },
            }),
        };
        let later = offset != WHOLE && offset != 0;
        (later || !is_extension(chain.proto)).then_some(chain)
    }
}

/// Where an IP packet with a payload of so many octets ends. A length of 0 is a
/// jumbogram or a segment larger than 64 KiB.
#[inline(always)]
fn end_of(l3: u32, payload: u32) -> u32 {
    if payload == 0 {
        u32::MAX >> 1
    } else {
        l3 + HEADER + payload
    }
}

/// The IPv6 family.
pub struct V6;

impl Family for V6 {
    type Addr = Address;
    type Key = CtKey6;
    type FragmentKey = FragKey6;

    const NUMBER: u8 = 6;
    const ICMP: u8 = proto::ICMPV6;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const ICMP_KEYS: u32 = class::OTHER_ICMPV6;
    const NOWHERE: Self::Addr = [0; 2];
    const NO_KEY: Self::Key = CtKey6 {
        local: [0; 4],
        remote: [0; 4],
        local_port: 0,
        remote_port: 0,
        proto: 0,
        kind: 0,
        pad: 0,
    };

    #[inline(always)]
    fn any_key(word: u32) -> CtKey6 {
        CtKey6 {
            local: [word; 4],
            remote: [word; 4],
            local_port: word as u16,
            remote_port: word as u16,
            proto: word as u8,
            kind: word as u8,
            pad: 0,
        }
    }

    #[inline(always)]
    fn parse(skb: *mut __sk_buff, l3: u32, packet: &mut Packet<Self>) -> Result<(), u8> {
        let header = read::<Header>(skb, l3).ok_or(reason::INVALID_PACKET)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return Err(reason::INVALID_PACKET);
        }
        let payload = u32::from(u16::from_be(header.payload_length));
        let end = end_of(l3, payload);
        packet.source = by_word(&header.source);
        packet.destination = by_word(&header.destination);
        packet.l4.proto = header.next_header;
        packet.l4.offset = l3 + HEADER;
        packet.l4 = match follow(skb, packet) {
            None => transport::refused(header.next_header, l3 + HEADER, reason::IPV6_EXTENSION),
            Some(chain) => parse_after(skb, &header, &chain, end),
        };
        Ok(())
    }

    #[inline(always)]
    fn parse_apart(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        crate::pal_parse6(skb, packet)
    }

    #[inline(always)]
    unsafe fn glance(skb: *mut __sk_buff, l3: u32, packet: *mut Packet<Self>) -> Option<()> {
        let header = glance::<Header>(skb, l3)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return None;
        }
        let end = end_of(l3, u32::from(u16::from_be(header.payload_length)));
        let l4 = transport::glance::<Self>(skb, header.next_header, l3 + HEADER, end)?;
        // SAFETY: the caller's word.
        unsafe {
            (*packet).source = by_word(&header.source);
            (*packet).destination = by_word(&header.destination);
            (*packet).l4 = l4;
        }
        Some(())
    }

    #[inline(always)]
    fn judge_known<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        if DIRECTION == INGRESS {
            crate::pal_known_in6(skb, packet)
        } else {
            crate::pal_known_eg6(skb, packet)
        }
    }

    #[inline(always)]
    fn judge_first<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
        if DIRECTION == INGRESS {
            crate::pal_first_in6(skb, packet)
        } else {
            crate::pal_first_eg6(skb, packet)
        }
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
            ..Packet::NOTHING
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
        local: Address,
        remote: Address,
        local_port: u16,
        remote_port: u16,
        proto: u8,
        kind: u8,
    ) -> CtKey6 {
        CtKey6 {
            local: words(local),
            remote: words(remote),
            local_port,
            remote_port,
            proto,
            kind,
            pad: 0,
        }
    }
    #[inline(always)]
    fn key_remote(key: &CtKey6) -> Address {
        address_of(key.remote)
    }
    #[inline(always)]
    fn key_ports(key: &CtKey6) -> (u8, u16, u16) {
        (key.proto, key.local_port, key.remote_port)
    }

    #[inline(always)]
    fn flows() -> &'static Array<Set<CtKey6>> {
        &CT6
    }
    #[inline(always)]
    fn hash(key: &CtKey6, seed: u32) -> u64 {
        hash6(key, seed)
    }
    #[inline(always)]
    fn enter(packet: &Packet<Self>, life: u64, kind: u64) -> u32 {
        crate::pal_enter6(packet, life, kind)
    }
    #[inline(always)]
    unsafe fn is_at(key: &CtKey6, place: *const CtKey6) -> bool {
        let (key, place): (*const u64, *const u64) = ((&raw const *key).cast(), place.cast());
        // SAFETY: a key is 5 long words, and flows stand at multiples of one.
        unsafe { (0..5).all(|at| *key.add(at) == *place.add(at)) }
    }
    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragKey6, FragValue> {
        &FRAG6
    }

    #[inline(always)]
    fn peer(address: &Address, slot: u32) -> Peer {
        Peer::unpack(crate::pal_peer6(address, slot))
    }

    #[inline(always)]
    fn is_forwarded(skb: *mut __sk_buff, packet: &Packet<Self>) -> bool {
        // SAFETY: all-zero bytes are a valid parameter block.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = AF_INET6;
        parameters.l4_protocol = packet.l4.proto;
        parameters.__bindgen_anon_3.ipv6_src = words(packet.source);
        parameters.__bindgen_anon_4.ipv6_dst = words(packet.destination);
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
    unsafe fn store(address: Address, place: *mut [u32; 4]) {
        // SAFETY: the caller's word.
        unsafe { *place = words(address) };
    }

    #[inline(always)]
    fn words(address: Address) -> [u32; 4] {
        words(address)
    }
}

#[inline(always)]
fn parse_after(skb: *mut __sk_buff, header: &Header, chain: &Chain, end: u32) -> L4 {
    let Some(fragment) = &chain.fragment else {
        return transport::parse::<V6>(skb, chain.proto, chain.offset, end);
    };
    let key = FragKey6 {
        source: words(header.source),
        destination: words(header.destination),
        id: fragment.id,
        pad: 0,
    };
    transport::parse_fragment::<V6>(skb, chain.proto, chain.offset, end, fragment.place, &key)
}
