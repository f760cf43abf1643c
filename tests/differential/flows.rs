//! Flows over several generations: each is judged again after a change of
//! policy, in the direction in which it was opened, and its answers follow.

use std::collections::HashMap;
use std::net::IpAddr;

use palisade::policy::{Direction, Packet};

use crate::frames::RST;
use crate::probes::{Carrier, Probe};

/// Flows that are sent again in each generation.
const KEPT_MAX: usize = 60;

/// Peer, protocol, port of this host, port of the peer.
type Tuple = (IpAddr, u8, u16, u16);

/// The flows of a case.
#[derive(Default)]
pub(crate) struct Flows {
    opened: HashMap<Tuple, Direction>,
    pub(crate) kept: Vec<Probe>,
}

impl Flows {
    /// Whether a packet can be judged by itself: it opens a flow, or belongs to
    /// one that was opened in its direction.
    pub(crate) fn admits(&mut self, probe: &Probe) -> bool {
        let Some(tuple) = tuple(probe) else {
            return probe.packet == Packet::Fragment;
        };
        let is_new = !self.opened.contains_key(&tuple);
        let direction = *self.opened.entry(tuple).or_insert(probe.direction);
        if is_new && self.kept.len() < KEPT_MAX {
            self.kept.push(probe.clone());
        }
        direction == probe.direction
    }
}

/// None for what belongs to no flow, or to another one.
fn tuple(probe: &Probe) -> Option<Tuple> {
    let source = probe.shape.source;
    let (proto, ports) = match probe.packet {
        Packet::Port { proto, port } => (proto, (source, port)),
        Packet::Icmp { icmp_type: 8 } => (1, (0, source)),
        Packet::Icmpv6 { icmp_type: 128 } => (58, (0, source)),
        // Answers of echoes belong to the other side's flow.
        Packet::Icmp { .. } | Packet::Icmpv6 { .. } | Packet::Fragment => return None,
        Packet::Other { proto } => (proto, (0, 0)),
    };
    let (own, peer) = match probe.direction {
        Direction::Ingress => (ports.1, ports.0),
        Direction::Egress => ports,
    };
    Some((probe.peer, proto, own, peer))
}

/// Whether the other side would answer a packet that has passed.
pub(crate) fn is_answered(probe: &Probe) -> bool {
    let is_reset =
        matches!(probe.packet, Packet::Port { proto: 6, .. }) && probe.shape.tcp_flags & RST != 0;
    matches!(probe.packet, Packet::Port { .. })
        && probe.shape.carrier == Carrier::Plain
        && !is_reset
}
