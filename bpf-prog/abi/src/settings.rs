//! What the programs read besides tables: one element per slot, replaced by
//! the same flip as the verdicts.

/// Entries of the degraded-mode list.
pub const FAILSAFE_MAX: usize = 32;

/// One flow that passes without state while tail calls miss.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Failsafe {
    /// One of [`crate::direction`]: who opens the flow.
    pub direction: u8,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6; 0 = both and any peer.
    pub family: u8,
    /// Prefix length of `peer`, in bits.
    pub prefix_len: u8,
    /// Destination port, host byte order; 0 = any.
    pub port: u16,
    pub pad: u16,
    /// IPv4 addresses stand in the first four bytes.
    pub peer: [u8; 16],
}

/// Settings of one slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Conntrack lifetimes, in jiffies.
    pub tcp_established_jiffies: u32,
    pub tcp_syn_jiffies: u32,
    pub tcp_close_jiffies: u32,
    pub other_jiffies: u32,
    /// 1: ethertypes other than ARP, IPv4 and IPv6 are dropped where enforced.
    pub drop_other_ethertypes: u32,
    /// Events per CPU and refill interval, for each of drop and verdict.
    pub event_budget: u32,
    /// Length of the refill interval, in jiffies.
    pub event_refill_jiffies: u32,
    /// Entries of `failsafe` in use.
    pub failsafe_count: u32,
    pub failsafe: [Failsafe; FAILSAFE_MAX],
}

/// Key of the VLAN allow map: `ifindex << 12 | vid`; ifindex 0 = any device.
#[inline(always)]
#[must_use]
pub const fn vlan_key(ifindex: u32, vid: u32) -> u32 {
    (ifindex << 12) | (vid & 0xfff)
}
/// VLAN ids that can be allowed over all devices.
pub const VLANS_MAX: u32 = 4_096;

const _: () = assert!(size_of::<Failsafe>() == 24);
const _: () = assert!(size_of::<Settings>() == 32 + 24 * FAILSAFE_MAX);
