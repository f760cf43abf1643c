//! The ABI between the eBPF programs and the agent.
//!
//! The only source of map layouts, slots, limits, reason codes and bit
//! positions. Rules: `#[repr(C)]`, explicit padding, no bool, enum or Option in
//! a map value, a size assertion for each type. A layout that changes must
//! raise [`ABI_VERSION`], which is part of the name of every pin.
#![no_std]

pub mod commit;
pub mod conntrack;
pub mod control;
pub mod event;
pub mod flows;
pub mod ipcache;
pub mod ipcache6;
pub mod reason;
pub mod settings;
pub mod table;

/// Layout version of everything in this crate. Part of each pin's name, so that
/// an agent never opens a map whose layout it does not know.
pub const ABI_VERSION: u32 = 5;

/// Prefix of every map and program name in the kernel (at most 15 characters
/// each), so that `bpftool map` shows what is ours.
pub const NAME_PREFIX: &str = "pal_";

/// Number of generations that exist side by side in the kernel.
pub const SLOTS: usize = 2;

/// The way of a packet, as seen from the protected host.
pub mod direction {
    /// From the wire to the host (`from_netdev`).
    pub const INGRESS: u32 = 0;
    /// From the host to the wire (`to_netdev`).
    pub const EGRESS: u32 = 1;
    /// Number of directions.
    pub const COUNT: usize = 2;
}

/// Indexes of the tail-call arrays. One array per direction, since the kernel
/// refuses programs of different expected attach types in one array.
pub mod calls {
    /// IPv4 program of slot A.
    pub const V4_SLOT_A: u32 = 0;
    /// IPv6 program of slot A.
    pub const V6_SLOT_A: u32 = 1;
    /// IPv4 program of slot B.
    pub const V4_SLOT_B: u32 = 2;
    /// IPv6 program of slot B.
    pub const V6_SLOT_B: u32 = 3;
    /// Number of entries.
    pub const COUNT: u32 = 4;
}

/// Use of the five words of `skb->cb` between the entry and family programs.
pub mod cb {
    /// Low half of the commit word.
    pub const COMMIT_LOW: usize = 0;
    /// High half of the commit word: the generation.
    pub const GENERATION: usize = 1;
    /// Offset of the IP header from the start of the packet data.
    pub const L3_OFFSET: usize = 2;
    /// Its bits: at most an Ethernet header and two tags.
    pub const L3_BITS: u32 = 0x3f;
}

/// Protocol numbers the programs know by name (IANA protocol numbers).
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const IPIP: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const VRRP: u8 = 112;
    pub const SCTP: u8 = 132;
}

/// Reserved identity numbers (Cilium's numeric space).
pub mod identity {
    /// No entry in the ipcache.
    pub const UNKNOWN: u32 = 0;
    /// The protected host itself.
    pub const HOST: u32 = 1;
    /// Everything outside the cluster.
    pub const WORLD: u32 = 2;
}
