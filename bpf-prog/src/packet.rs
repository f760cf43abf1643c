//! Reading the packet: direct access where the bytes are linear, the helper
//! where they are not. Every read is bounds-checked.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};

/// `TCX_NEXT`, `TC_ACT_UNSPEC`: the packet goes on to the next program.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub const SHOT: i32 = 2;

/// `PACKET_HOST` and `PACKET_OTHERHOST` of `skb->pkt_type`.
pub const PACKET_HOST: u32 = 0;
pub const PACKET_OTHERHOST: u32 = 3;

/// Largest offset that is read directly; what lies behind goes by the helper.
const DIRECT_MAX: usize = 0xff;

/// Reads a `T` at `offset` from the start of the packet data; None past its end.
///
/// `T` must be plain words for which every bit pattern is valid.
#[inline(always)]
pub fn read<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let offset = offset as usize;
    // SAFETY: `skb` is the program's context; the verifier proves that the
    // direct access lies between data and data_end. Unaligned words are fine on
    // the architectures whose JIT we support, and the verifier refuses others.
    unsafe {
        if offset <= DIRECT_MAX {
            let start = (*skb).data as usize + (offset & DIRECT_MAX);
            if start + size_of::<T>() <= (*skb).data_end as usize {
                return Some(*(start as *const T));
            }
        }
        let mut value = MaybeUninit::<T>::uninit();
        let failed = bpf_skb_load_bytes(
            skb as *const _,
            offset as u32,
            value.as_mut_ptr().cast::<c_void>().cast(),
            size_of::<T>() as u32,
        );
        if failed != 0 {
            return None;
        }
        Some(value.assume_init())
    }
}

/// Reads a `T` at `offset` where it is linear; None otherwise. `offset` is at
/// most 255.
#[inline(always)]
pub fn glance<'a, T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<&'a T> {
    // SAFETY: as in `read`; the program writes no packet.
    unsafe {
        let start = (*skb).data as usize + (offset as usize & DIRECT_MAX);
        if start + size_of::<T>() <= (*skb).data_end as usize {
            Some(&*(start as *const T))
        } else {
            None
        }
    }
}

/// What is known of the transport header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct L4 {
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags byte or ICMP type.
    pub tcp_flags_or_type: u8,
    pub icmp_code: u8,
    /// One of `L4State`.
    pub state: u8,
    /// Network byte order. ICMP echo: the identifier stands on the asker's side.
    pub source_port: u16,
    pub destination_port: u16,
    /// Offset of the transport header.
    pub offset: u32,
}

impl L4 {
    /// Nothing is known.
    pub const NOTHING: Self = Self {
        proto: 0,
        tcp_flags_or_type: 0,
        icmp_code: 0,
        state: l4_state::UNTRACKED,
        source_port: 0,
        destination_port: 0,
        offset: 0,
    };
}

/// What can be done with the transport header.
pub mod l4_state {
    /// Belongs to a flow that conntrack can hold.
    pub const TRACKED: u8 = 0;
    /// Judged packet by packet (ICMP other than echo).
    pub const UNTRACKED: u8 = 1;
    /// A later fragment whose first one was not seen.
    pub const FRAGMENT_UNKNOWN: u8 = 2;
    /// A later fragment, known by its first one (flags of TCP are not).
    pub const FRAGMENT_KNOWN: u8 = 3;
    /// An ICMP error about another packet.
    pub const ICMP_ERROR: u8 = 4;
    /// ICMP that always passes (path MTU).
    pub const PASS_RELATED: u8 = 5;
    /// ICMPv6 that always passes (neighbour discovery, MLD).
    pub const PASS_CONTROL: u8 = 6;
    /// ICMPv6 that must not cross a host.
    pub const FORBIDDEN: u8 = 7;
}

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;
