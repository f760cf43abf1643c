//! Records of the ring buffer: one per decision, never two.

/// A decision about one packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
    pub time_ns: u64,
    /// One of [`kind`].
    pub kind: u8,
    /// Drop reason of [`crate::reason`]; 0 if allowed; for audit: what would
    /// have been the reason.
    pub reason: u8,
    /// One of [`crate::direction`].
    pub direction: u8,
    /// 4, 6, or 0 where the packet is not IP.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags byte, or ICMP type.
    pub tcp_flags_or_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    pub generation: u32,
    pub ifindex: u32,
    /// Packet length in bytes (`skb->len`).
    pub len: u32,
    /// Number of the deciding rule, 0 if none matched.
    pub rule: u32,
    /// Identity of the peer; 0 if it was not resolved.
    pub peer_identity: u32,
    /// Host byte order.
    pub source_port: u16,
    pub destination_port: u16,
    /// Network byte order; an IPv4 address stands in the first word.
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// Kinds of events.
pub mod kind {
    /// The packet was dropped.
    pub const DROP: u8 = 1;
    /// A new flow was allowed by policy.
    pub const ALLOW: u8 = 2;
    /// A denial was reported and passed (audit mode).
    pub const AUDIT: u8 = 3;
}

/// Flag bits of [`Event::flags`].
pub mod flags {
    /// A running flow was judged again after a change of policy.
    pub const REJUDGED: u8 = 1 << 0;
    /// A fragment.
    pub const FRAGMENT: u8 = 1 << 1;
    /// The packet went against its flow: the verdict is that of the other
    /// direction, in which the flow was opened.
    pub const REPLY: u8 = 1 << 2;
}

/// Size of the ring buffer in bytes (a power of two, pages).
pub const RING_BYTES: u32 = 4 << 20;

/// Per-CPU budget of one event kind.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Budget {
    /// Jiffies at which the interval began.
    pub interval_start: u64,
    /// Events sent in this interval.
    pub used: u32,
    pub pad: u32,
}

/// Index of the per-CPU array of lost events.
pub mod lost {
    /// Over the budget.
    pub const BUDGET: u32 = 0;
    /// The ring buffer was full.
    pub const RING_FULL: u32 = 1;
    /// Number of indexes.
    pub const COUNT: u32 = 2;
}

const _: () = assert!(size_of::<Event>() == 72);
const _: () = assert!(size_of::<Budget>() == 16);
