//! The agent's own traffic (`palisade_abi::control`): it passes by mark and
//! destination, and what answers it by its flow.

use palisade_abi::{
    conntrack::flags,
    control::{EndpointKey, Mark},
    proto,
};

use crate::{
    atomic,
    family::Family,
    maps::{ENDPOINTS, MARK},
    packet::{L4, TCP_ACK},
};

/// Why a flow may be the agent's own, if it leads to one of the endpoints.
#[derive(Clone, Copy)]
pub struct Claim(u32);

impl Claim {
    const IS_OWN: u32 = flags::OWN;
    const DEGRADED: u32 = 1 << 16;
    const OPENS: u32 = 1 << 17;
    const ANSWERS: u32 = 1 << 18;
    const TCP_FLAGS_SHIFT: u32 = 24;

    /// None but the mark of the packet, which opens a flow: it is counted.
    pub const OPENS_MARKED: Self = Self(Self::OPENS);
    /// None but the mark; while tail calls miss, some endpoints do not ask for it.
    pub const MARK_DEGRADED: Self = Self(Self::DEGRADED);

    /// What the flags of a running flow say.
    #[inline(always)]
    pub fn of_flow(bits: u32) -> Self {
        Self(bits & Self::IS_OWN)
    }

    /// The packet comes from there, and answers.
    #[inline(always)]
    pub fn of_answer(l4: &L4) -> Self {
        let tcp_flags = u32::from(l4.tcp_flags_or_type) << Self::TCP_FLAGS_SHIFT;
        Self(Self::IS_OWN | Self::ANSWERS | tcp_flags)
    }

    /// Whether it claims to answer, with a segment that opens.
    #[inline(always)]
    fn lies(self, proto: u8) -> bool {
        let tcp_flags = (self.0 >> Self::TCP_FLAGS_SHIFT) as u8;
        self.0 & Self::ANSWERS != 0 && proto == proto::TCP && tcp_flags & TCP_ACK == 0
    }
}

/// Whether a flow with (`remote`, `port`, `proto`) is the agent's own, by its claim or
/// by the mark of a packet that goes out; mark 0: by the claim alone. 1 or 0.
#[inline(always)]
pub fn is_own<F: Family>(
    remote: F::Addr,
    port: u16,
    proto: u8,
    claim: Claim,
    packet_mark: u32,
) -> u32 {
    let [a, b, c, d] = F::words(remote).map(u64::from);
    let place = u64::from(port) | u64::from(proto) << 16 | u64::from(F::NUMBER) << 24;
    let claim = u64::from(claim.0) << 32;
    crate::pal_own(a | b << 32, c | d << 32, place | claim, packet_mark)
}

/// The same, packed as `is_own` does it. A function of its own (see `main`).
#[inline(always)]
pub fn find(first: u64, second: u64, place: u64, packet_mark: u32) -> Option<()> {
    let claim = Claim((place >> 32) as u32);
    let proto = (place >> 16) as u8;
    // SAFETY: a non-null pointer from a lookup.
    let mark: Mark = unsafe { *MARK.get_ptr(0)? };
    let owns = claim.0 & Claim::IS_OWN != 0 || mark.is_on(packet_mark);
    if claim.lies(proto) || !owns && claim.0 & Claim::DEGRADED == 0 {
        return None;
    }
    let key = EndpointKey {
        address: [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ],
        port: place as u16,
        proto,
        family: (place >> 24) as u8,
    };
    let endpoint = ENDPOINTS.get_ptr_mut(&key)?;
    // SAFETY: a non-null pointer from a lookup.
    unsafe {
        if !owns && (*endpoint).unmarked_while_degraded == 0 {
            return None;
        }
        if claim.0 & Claim::OPENS != 0 {
            atomic::increment(&raw mut (*endpoint).flows);
        }
    }
    Some(())
}
