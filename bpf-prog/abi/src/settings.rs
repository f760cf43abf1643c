//! What the programs read besides tables: one element per slot, replaced by
//! the same flip as the verdicts.

/// Key of the degraded-mode list, an LPM trie: the flows that pass without state
/// while tail calls miss. `peer` is matched by prefix, all before it exactly.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FailsafeKey {
    pub slot: u8,
    /// One of [`crate::direction`]: who opens the flow.
    pub direction: u8,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6. An entry for every peer stands once for each family.
    pub family: u8,
    /// Destination port, host byte order; 0 = every port.
    pub port: u16,
    pub pad: u16,
    /// Network byte order; an IPv4 address stands in the first word.
    pub peer: [u32; 4],
}

impl FailsafeKey {
    /// Bits before `peer`; prefix length of an entry = this + length of its CIDR.
    pub const EXACT_BITS: u32 = 64;
}

/// Entries of the degraded-mode list (both slots, both families).
pub const FAILSAFE_MAX: u32 = 1_024;

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
    /// 1: this machine's processors see each other's stores in their order, so that a
    /// flow is published by a plain store; 0: by an exchange, which waits for all.
    pub ordered_stores: u32,
}

/// Key of the VLAN allow map: `ifindex << 12 | vid`; ifindex 0 = any device,
/// vid 0 = any id. Bit n of the value: allowed in slot n.
#[inline(always)]
#[must_use]
pub const fn vlan_key(ifindex: u32, vid: u32) -> u32 {
    (ifindex << 12) | (vid & 0xfff)
}
/// VLAN ids that can be allowed over all devices.
pub const VLANS_MAX: u32 = 4_096;

const _: () = assert!(size_of::<FailsafeKey>() == 24);
const _: () = assert!(size_of::<Settings>() == 32);
