//! What differs between IPv4 and IPv6, and a packet of either. Everything else
//! is written once, generic over this trait, and compiled into one program per
//! family and direction.

use aya_ebpf::{
    bindings::__sk_buff,
    maps::{Array, LruHashMap},
};
use palisade_abi::{
    cb,
    conntrack::{FragValue, kind},
    direction::{EGRESS, INGRESS},
    flows::Set,
    reason,
    table::Cell,
};

use crate::{exit::Exit, packet::L4, verdict::Peer};

/// A packet's addresses and transport header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet<F: Family> {
    pub source: F::Addr,
    pub destination: F::Addr,
    pub l4: L4,
    /// How it leaves, once that is decided.
    pub exit: Exit,
    /// See [`Packet::forget`].
    pub scratch: u32,
    /// See [`Packet::forget_key`], and of the flow that is entered.
    pub scratch_key: F::Key,
    /// The flow that is entered. Before that, words for the reading of headers.
    pub opens: Opens,
}

/// What a packet says of the flow that it opens. Words of 32 bits: the stack has no
/// room for larger ones.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Opens {
    /// The epoch in which it was judged, and the verdict.
    pub epoch: u32,
    pub cell: Cell,
    /// As in a conntrack entry, and [`Opens::ORDERED`]. Before that, bits of [`hint`].
    pub flags: u32,
    pub identity: u32,
    /// Length of the packet; and this bit: it goes in the opener's direction.
    pub bytes: u32,
}

impl Opens {
    pub const FORWARD: u32 = 1 << 31;
    /// The processors see each other's stores in their order
    /// (`Settings::ordered_stores`).
    pub const ORDERED: u32 = 1 << 31;

    const NOTHING: Self = Self {
        epoch: 0,
        cell: Cell(0),
        flags: 0,
        identity: 0,
        bytes: 0,
    };
}

/// What one function found out for the next.
pub mod hint {
    /// Conntrack has no such flow.
    pub const NO_ENTRY: u32 = 1 << 0;
}

impl<F: Family> Packet<F> {
    #[inline(always)]
    pub fn local<const DIRECTION: u32>(&self) -> &F::Addr {
        if DIRECTION == INGRESS {
            &self.destination
        } else {
            &self.source
        }
    }
    #[inline(always)]
    pub fn remote<const DIRECTION: u32>(&self) -> &F::Addr {
        if DIRECTION == INGRESS {
            &self.source
        } else {
            &self.destination
        }
    }

    /// Local address, remote address, local port, remote port.
    #[inline(always)]
    pub fn sides<const DIRECTION: u32>(&self) -> (F::Addr, F::Addr, u16, u16) {
        let l4 = &self.l4;
        if DIRECTION == INGRESS {
            (
                self.destination,
                self.source,
                l4.destination_port,
                l4.source_port,
            )
        } else {
            (
                self.source,
                self.destination,
                l4.source_port,
                l4.destination_port,
            )
        }
    }

    /// The same value, of which the verifier no longer knows where it came from.
    ///
    /// The verifier follows every path with what it knows of each value on it;
    /// what is stored behind the pointer that a global function got, and loaded
    /// again, is just a number to it. So paths become one, and those that follow
    /// are looked at once.
    #[inline(always)]
    pub fn forget(&mut self, value: u32) -> u32 {
        // SAFETY: a field of ours; volatile, or the compiler would see through it.
        unsafe {
            core::ptr::write_volatile(&raw mut self.scratch, value);
            core::ptr::read_volatile(&raw const self.scratch)
        }
    }

    /// The same for a key. On the stack again: before Linux 6.2 no map is asked
    /// for a key that stands behind a function's argument.
    #[inline(always)]
    pub fn forget_key(&mut self, key: F::Key) -> F::Key {
        // SAFETY: a field of ours, volatile as in `forget`.
        unsafe {
            core::ptr::write_volatile(&raw mut self.scratch_key, key);
            core::ptr::read_volatile(&raw const self.scratch_key)
        }
    }

    /// A packet of which nothing is known yet.
    pub const NOTHING: Self = Self {
        source: F::NOWHERE,
        destination: F::NOWHERE,
        l4: L4::NOTHING,
        exit: Exit::NONE,
        scratch: 0,
        scratch_key: F::NO_KEY,
        opens: Opens::NOTHING,
    };

    /// Writes what a glance has left open, for functions that want all written.
    /// With numbers that the verifier does not know (they mean nothing), so that
    /// this way and that of `parse` are one to it.
    ///
    /// # Safety
    /// `skb` is the context, `packet` points to memory of this function's caller.
    #[inline(always)]
    pub unsafe fn complete(packet: *mut Self, skb: *mut __sk_buff, hints: u32) {
        // SAFETY: the caller's word; no field has a destructor.
        unsafe {
            let any = (&raw const (*skb).len).read_volatile();
            Exit::fill(&raw mut (*packet).exit, any);
            (*packet).scratch = any;
            (*packet).scratch_key = F::any_key(any);
            let opens: *mut u32 = (&raw mut (*packet).opens).cast();
            for word in 0..size_of::<Opens>() / 4 {
                opens.add(word).write_volatile(any);
            }
            (&raw mut (*packet).opens.flags).write_volatile(hints);
        }
    }

    /// The same, of all.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    pub unsafe fn begin(packet: *mut Self, skb: *mut __sk_buff) {
        // SAFETY: as above.
        unsafe {
            let any = (&raw const (*skb).len).read_volatile();
            let key = F::any_key(any);
            (*packet).source = F::key_remote(&key);
            (*packet).destination = F::key_remote(&key);
            (*packet).l4 = L4 {
                offset: any,
                ..L4::NOTHING
            };
            Self::complete(packet, skb, 0);
        }
    }

    /// The key of the packet's flow.
    #[inline(always)]
    pub fn key<const DIRECTION: u32>(&self) -> F::Key {
        let (local, remote, local_port, remote_port) = self.sides::<DIRECTION>();
        let kind = if self.l4.proto != F::ICMP {
            kind::TUPLE
        } else if (self.l4.tcp_flags_or_type == F::ECHO_REQUEST) == (DIRECTION == EGRESS) {
            kind::ECHO_LOCAL
        } else {
            kind::ECHO_REMOTE
        };
        F::key(local, remote, local_port, remote_port, self.l4.proto, kind)
    }
}

/// Reads the headers into `packet`; the entry program has left the offset of the
/// IP header in `skb->cb`. 0, or a drop reason.
#[inline(always)]
pub fn parse<F: Family>(skb: *mut __sk_buff, packet: *mut Packet<F>) -> u32 {
    if packet.is_null() {
        return u32::from(reason::INVALID_PACKET);
    }
    // SAFETY: `skb` is the context; `packet` is not null, and the verifier has
    // checked the caller's memory behind it.
    match unsafe { F::parse(skb, (*skb).cb[cb::L3_OFFSET] & cb::L3_BITS, &mut *packet) } {
        Ok(()) => 0,
        Err(reason) => u32::from(reason),
    }
}

/// Header of the packet that an ICMP error is about.
pub struct Inner<F: Family> {
    pub source: F::Addr,
    pub destination: F::Addr,
    pub proto: u8,
    /// Offset of its transport header.
    pub offset: u32,
}

/// An address family.
pub trait Family: Sized + 'static {
    /// An address in network byte order.
    type Addr: Copy;
    /// Conntrack key.
    type Key: Copy + 'static;
    /// Key of a fragmented datagram.
    type FragmentKey: Copy + 'static;

    /// 4 or 6.
    const NUMBER: u8;
    /// Protocol number of the family's ICMP.
    const ICMP: u8;
    const ECHO_REQUEST: u8;
    const ECHO_REPLY: u8;
    /// First key of the family's ICMP types in class OTHER.
    const ICMP_KEYS: u32;
    const NOWHERE: Self::Addr;
    const NO_KEY: Self::Key;
    /// A key all of this word.
    fn any_key(word: u32) -> Self::Key;

    /// Reads the IP header at `l3` and what follows. Err: a drop reason for
    /// headers that not even the addresses can be believed of.
    fn parse(skb: *mut __sk_buff, l3: u32, packet: &mut Packet<Self>) -> Result<(), u8>;
    /// `parse` as a function of its own, which the verifier sees once: 0, or
    /// the drop reason.
    fn parse_apart(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32;
    /// The usual case of `parse`, read directly: TCP, UDP or echo right behind
    /// a plain header. None for all else, which `parse` then reads.
    /// Writes addresses and `l4` of `packet`, nothing else.
    ///
    /// # Safety
    /// `packet` points to memory of the caller.
    unsafe fn glance(skb: *mut __sk_buff, l3: u32, packet: *mut Packet<Self>) -> Option<()>;
    /// [`crate::known::judge`] as a function of its own.
    fn judge_known<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32;
    /// [`crate::first::judge`] as a function of its own.
    fn judge_first<const DIRECTION: u32>(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32;
    /// The plain case of `parse`, for the degraded mode: neither fragments nor
    /// extension headers. None for all else.
    fn parse_plain(skb: *mut __sk_buff, l3: u32) -> Option<Packet<Self>>;
    /// One of `l4_state` for an ICMP message.
    fn classify_icmp(message_type: u8, code: u8) -> u8;
    /// Reads the header inside an ICMP error; None if it is cut short or a
    /// later fragment.
    fn parse_inner(skb: *mut __sk_buff, offset: u32) -> Option<Inner<Self>>;

    fn key(
        local: Self::Addr,
        remote: Self::Addr,
        local_port: u16,
        remote_port: u16,
        proto: u8,
        kind: u8,
    ) -> Self::Key;
    fn key_remote(key: &Self::Key) -> Self::Addr;
    /// Protocol, local port, remote port.
    fn key_ports(key: &Self::Key) -> (u8, u16, u16);

    /// The table of flows.
    fn flows() -> &'static Array<Set<Self::Key>>;
    /// Where a flow stands in it ([`palisade_abi::flows`]).
    fn hash(key: &Self::Key, seed: u32) -> u64;
    /// [`crate::flows::enter`] as a function of its own.
    fn enter(packet: &Packet<Self>, life: u64, kind: u64) -> u32;
    /// Whether the key at `place` is this one.
    ///
    /// # Safety
    /// `place` can be read.
    unsafe fn is_at(key: &Self::Key, place: *const Self::Key) -> bool;
    fn fragments() -> &'static LruHashMap<Self::FragmentKey, FragValue>;

    /// Identity of an address in one slot.
    fn peer(address: &Self::Addr, slot: u32) -> Peer;
    /// Whether the routing table says that the packet is to be forwarded.
    fn is_forwarded(skb: *mut __sk_buff, packet: &Packet<Self>) -> bool;
    /// State (`TCP_*`) of the socket that would get a packet from `remote`, by
    /// the kernel's tables; 0 if there is none. `remote_port` 0 finds listeners.
    fn socket_state(skb: *mut __sk_buff, key: &Self::Key, listeners_only: bool) -> u32;

    /// The address as four words; IPv4 stands in the first.
    fn words(address: Self::Addr) -> [u32; 4];
    /// The same, written where it belongs.
    ///
    /// # Safety
    /// `place` can be written.
    unsafe fn store(address: Self::Addr, place: *mut [u32; 4]);
}
