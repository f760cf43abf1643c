//! What the agent's configuration says.

use palisade::policy::language::{NamedPort, PortProtocol};
use palisade::policy::{EnforcementMode, FailsafeEntry, PolicyOptions};

use super::objects::labels;
use super::{names, prefixes};
use crate::case::NODE;
use crate::random::Random;

/// Options of an agent.
pub(crate) fn options(random: &mut Random) -> PolicyOptions {
    let enforcement = match random.below(20) {
        0 => EnforcementMode::Never,
        1 | 2 => EnforcementMode::Always,
        _ => EnforcementMode::Default,
    };
    let failsafe = if random.chance(25) {
        (0..=random.below(3)).map(|_| failsafe(random)).collect()
    } else {
        Vec::new()
    };
    PolicyOptions {
        node_name: NODE.to_owned(),
        node_labels: labels(random),
        enforcement,
        audit: random.chance(10),
        failsafe,
        cidr_match_nodes: random.chance(30),
        named_ports: named_ports(random),
        ..PolicyOptions::default()
    }
}

/// What named ports of rules for ingress mean here.
fn named_ports(random: &mut Random) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    for name in names::PORTS {
        if random.chance(60) {
            ports.push(NamedPort {
                name: name.to_owned(),
                protocol: *random.pick(&PortProtocol::ALL),
                port: *random.pick(&[22, 80, 443, 8_080]),
            });
        }
    }
    ports
}

fn failsafe(random: &mut Random) -> FailsafeEntry {
    let proto = *random.pick(&[6_u8, 6, 17, 132, 1, 58, 47, 2]);
    let port = match proto {
        6 | 17 | 132 => *random.pick(&[0, 22, 53, 443, 65_535]),
        1 => *random.pick(&[0, 8]),
        58 => *random.pick(&[0, 128]),
        _ => 0,
    };
    FailsafeEntry {
        direction: u32::from(random.chance(40)),
        proto,
        port,
        peer: random.chance(50).then(|| prefixes::prefix(random)),
    }
}
