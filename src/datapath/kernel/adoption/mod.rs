//! Running connections, entered into conntrack with their true direction before
//! anything can be dropped for the first time.
//!
//! From two places: the sockets of this network namespace (always there), and
//! the kernel's own conntrack where it is loaded (forwarded and masqueraded
//! flows, unconnected UDP). An entry is only made where there is none, or put
//! right where the programs had to guess the direction.

mod entries;
mod kernel_table;
mod sockets;

pub use entries::AdoptionReport;
pub(crate) use entries::run;

use std::collections::BTreeSet;
use std::net::IpAddr;

/// A flow that runs, as seen on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flow {
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote: IpAddr,
    pub(crate) remote_port: u16,
    pub(crate) proto: u8,
    pub(crate) opener: Opener,
    /// Both sides were heard.
    pub(crate) answered: bool,
    pub(crate) stage: Stage,
}

/// Who opened a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Opener {
    Host,
    Peer,
    /// Somebody behind this host, under its address: never judged.
    Forwarded,
}

/// How far a TCP flow is; other protocols are open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    Opening,
    Open,
    Closing,
}

/// An IPv4 address in the clothes of IPv6 (dual-stack sockets) is an IPv4 address.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// How many flows the bodies of socket descriptions make.
pub(crate) fn decode_sockets<'a>(bodies: impl IntoIterator<Item = &'a [u8]>) -> usize {
    sockets::decode(bodies).len()
}

/// Whether the body of a tracked connection makes a flow of ours.
pub(crate) fn decode_connection(body: &[u8], own: &BTreeSet<IpAddr>) -> bool {
    kernel_table::decode(body, own).is_some()
}
