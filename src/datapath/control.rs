//! The agent's own traffic: its mark, and where it may lead.

use std::fmt;
use std::net::SocketAddr;

use palisade_abi::control::Mark;
use palisade_abi::proto;

use super::DatapathError;

/// The mark of the agent's sockets, and the bits of a packet's mark in which it is
/// looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlMark(pub Mark);

impl ControlMark {
    /// In the bits that nobody else is known to use: the lowest byte, without the
    /// highest bit of it (docs/operations.md has the list).
    pub const DEFAULT: Self = Self(Mark {
        value: 0x50,
        mask: 0x7f,
    });

    /// What a socket is given.
    #[must_use]
    pub fn of_socket(self) -> u32 {
        self.0.value
    }
}

impl fmt::Display for ControlMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.0.value, self.0.mask)
    }
}

/// Where the agent's sockets may lead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ControlEndpoint {
    pub address: SocketAddr,
    /// TCP or UDP.
    pub proto: u8,
    /// While tail calls miss, packets to it pass without the mark too.
    pub unmarked_while_degraded: bool,
}

impl ControlEndpoint {
    /// `tcp` or `udp`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.proto == proto::UDP {
            "udp"
        } else {
            "tcp"
        }
    }
}

impl fmt::Display for ControlEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol(), self.address)
    }
}

/// One of them with the flows that the agent opened to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlFlows {
    pub endpoint: ControlEndpoint,
    pub flows: u64,
}

/// Where the list of them is kept. Any thread.
pub trait ControlDoor: Send + Sync {
    /// Makes the list equal to `wanted`: what is new is in force when this returns.
    ///
    /// # Errors
    /// When the kernel refuses; what was there and is wanted stays.
    fn replace(&self, wanted: &[ControlEndpoint]) -> Result<(), DatapathError>;
}
