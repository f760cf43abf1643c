//! Why a packet left the programs as it did: one number per exit.
//!
//! 130 and above are drops, with the numbers that Cilium gives them (monitor
//! output and dashboards keep their meaning). Below 130 the packet went on.

/// Allowed by policy, by conntrack or because the direction is not enforced.
pub const FORWARDED: u8 = 0;
/// Neither from nor to the protected host: untouched.
pub const NOT_OURS: u8 = 16;
/// ARP.
pub const ARP: u8 = 17;
/// An ethertype outside of policy (LLC, LLDP, MPLS...), passed by class.
pub const OTHER_ETHERTYPE: u8 = 18;
/// ICMPv6 that always passes (neighbour discovery, MLD, errors).
pub const ICMPV6_BYPASS: u8 = 19;
/// An ICMP error about a flow of ours, or a path-MTU message.
pub const RELATED: u8 = 20;
/// Would have been dropped; passed because of audit mode.
pub const AUDITED: u8 = 21;
/// A tail call missed and the packet passed: not enforced, failsafe list,
/// an allowed flow, or by configuration.
pub const MISSED_TAIL_CALL_PASSED: u8 = 22;
/// Would have been dropped, but the direction is not enforced.
pub const NOT_ENFORCED: u8 = 23;
/// Opened by the agent, to where policies come from: passes whatever they say.
pub const OWN: u8 = 24;

/// First number that means a drop.
pub const DROP_MIN: u8 = 130;
/// A packet from the wire with one of our own addresses as source.
pub const INVALID_SOURCE: u8 = 132;
/// No rule allowed it.
pub const POLICY: u8 = 133;
/// Headers that contradict themselves or are cut short.
pub const INVALID_PACKET: u8 = 134;
/// The tail call to the family's program missed.
pub const MISSED_TAIL_CALL: u8 = 140;
/// The conntrack entry could not be created.
pub const CT_INSERT: u8 = 155;
/// An IPv6 extension header chain that cannot be followed.
pub const IPV6_EXTENSION: u8 = 156;
/// An ethertype outside of policy, dropped by class.
pub const UNSUPPORTED_L2: u8 = 166;
/// A later fragment before the first, not covered by L3-only rules.
pub const FRAGMENT_NOT_FOUND: u8 = 175;
/// An ICMPv6 type that must not cross a host.
pub const FORBIDDEN_ICMPV6: u8 = 176;
/// A deny rule matched.
pub const POLICY_DENY: u8 = 181;
/// A VLAN id that is neither a sub-device nor in the allow list.
pub const VLAN: u8 = 182;

/// Counter of one (reason, direction), per CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

/// Index of the per-CPU counter array.
#[inline(always)]
#[must_use]
pub const fn counter_index(reason: u8, direction: u32) -> u32 {
    (reason as u32) * 2 + direction
}
/// Elements of the per-CPU counter array.
pub const COUNTERS: u32 = 512;

/// All reasons with Cilium's label, for tables and metrics.
#[cfg(feature = "user")]
pub const ALL: &[(u8, &str)] = &[
    (FORWARDED, "Forwarded"),
    (NOT_OURS, "Not for this host"),
    (ARP, "ARP"),
    (OTHER_ETHERTYPE, "Other ethertype"),
    (ICMPV6_BYPASS, "ICMPv6 control"),
    (RELATED, "Related"),
    (AUDITED, "Audited"),
    (MISSED_TAIL_CALL_PASSED, "Missed tail call, passed"),
    (NOT_ENFORCED, "Not enforced"),
    (OWN, "Agent's own traffic"),
    (INVALID_SOURCE, "Invalid source ip"),
    (POLICY, "Policy denied"),
    (INVALID_PACKET, "Invalid packet"),
    (MISSED_TAIL_CALL, "Missed tail call"),
    (CT_INSERT, "CT: Map insertion failed"),
    (IPV6_EXTENSION, "Invalid IPv6 extension header"),
    (UNSUPPORTED_L2, "Unsupported L2 protocol"),
    (
        FRAGMENT_NOT_FOUND,
        "First logical datagram fragment not found",
    ),
    (FORBIDDEN_ICMPV6, "Forbidden ICMPv6 message"),
    (POLICY_DENY, "Policy denied by denylist"),
    (VLAN, "VLAN traffic disallowed by VLAN filter"),
];

/// Label of a reason number.
#[cfg(feature = "user")]
#[must_use]
pub fn label(reason: u8) -> &'static str {
    ALL.iter()
        .find(|(number, _)| *number == reason)
        .map_or("Unknown", |(_, label)| label)
}
