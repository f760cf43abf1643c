//! The agent's own traffic: to the API server, etcd and the name servers. It passes
//! by mark and destination, whatever policy says, so that no policy can cut the
//! agent from where policies come from.
//!
//! Mark and endpoints belong to no generation: the agent writes an endpoint before
//! it connects to it, and a connection lives through flips.

/// The mark of the agent's sockets: a packet carries it if its mark is `value` in the
/// bits of `mask`. Mask 0: none does.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Mark {
    pub value: u32,
    pub mask: u32,
}

impl Mark {
    #[inline(always)]
    #[must_use]
    pub const fn is_on(self, packet_mark: u32) -> bool {
        self.mask != 0 && packet_mark & self.mask == self.value
    }
}

/// Where the agent's sockets may lead.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct EndpointKey {
    /// Network byte order; an IPv4 address stands in the first word.
    pub address: [u32; 4],
    /// Network byte order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EndpointValue {
    /// 1: while tail calls miss, packets without the mark pass too.
    pub unmarked_while_degraded: u32,
    pub pad: u32,
    /// Flows that the agent opened to it.
    pub flows: u64,
}

/// Endpoints that there can be at once.
pub const ENDPOINTS_MAX: u32 = 256;

const _: () = assert!(size_of::<Mark>() == 8);
const _: () = assert!(size_of::<EndpointKey>() == 20);
const _: () = assert!(size_of::<EndpointValue>() == 16);
