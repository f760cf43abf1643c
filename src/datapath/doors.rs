//! Doors for bytes that nobody vouches for: each feeds one decoder as the
//! kernel would, and says how much of it was understood. For the fuzz targets
//! and the replay of their finds (`fuzz/`); the agent does not pass here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use palisade_abi::event::Event;

use super::netlink::{Attributes, bodies};
use super::{devices, kernel};

/// Nested attributes are followed as deep as any message nests them.
const DEPTH: usize = 4;

/// Messages of a datagram and their attributes, at all depths.
#[must_use]
pub fn netlink(datagram: &[u8]) -> usize {
    let attributes = bodies(datagram).map(|body| count(body, DEPTH));
    attributes.sum::<usize>() + count(datagram, DEPTH)
}

fn count(bytes: &[u8], depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let values = Attributes(bytes).map(|(_, value)| 1 + count(value, depth - 1));
    values.sum()
}

/// Devices, addresses and default routes among a datagram's messages.
#[must_use]
pub fn devices(datagram: &[u8]) -> usize {
    let found = each(datagram).flat_map(devices::decode);
    found.filter(|found| *found).count()
}

/// Flows among the sockets of a datagram (sock_diag).
#[must_use]
pub fn sockets(datagram: &[u8]) -> usize {
    kernel::decode_sockets(each(datagram))
}

/// Flows of ours among the connections of a datagram (ctnetlink); ours are
/// the addresses 10.0.0.1 and fd00::1.
#[must_use]
pub fn connections(datagram: &[u8]) -> usize {
    let own: BTreeSet<IpAddr> = [
        IpAddr::from([10, 0, 0, 1]),
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
    ]
    .into();
    let found = each(datagram).filter(|body| kernel::decode_connection(body, &own));
    found.count()
}

/// The datagram's messages, and the datagram itself as one body: so that a
/// decoder is reached without a header that fits.
fn each(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    bodies(datagram).chain([datagram])
}

/// Records of the ring buffer, of the size of an event each; the rest of the
/// bytes is one more record.
#[must_use]
pub fn events(bytes: &[u8]) -> Vec<Event> {
    let records = bytes.chunks(size_of::<Event>());
    records.filter_map(kernel::value_from_bytes).collect()
}
