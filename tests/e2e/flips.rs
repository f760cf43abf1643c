//! Two policies with different CIDRs, flipped under traffic: each packet is
//! judged by one of them, never by a mix.

use std::net::SocketAddr;

use palisade::lab::network::{Family, Place};

use super::harness::{World, privileged};
use super::traffic::{Flow, Stream};

const FLIPS: usize = 100;

/// The outsider by its own address. The first policy names it alone, the
/// second by a prefix around it, so each gives it another identity; both allow
/// 7000, neither allows 7003. A verdict from the identity of one and the table
/// of the other loses 7000 or passes 7003.
const FIRST: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: flip
spec:
  nodeSelector: {}
  ingress:
  - fromCIDR: [10.88.0.3/32, 'fd88::3/128']
    toPorts:
    - ports:
      - {port: \"7000\", protocol: UDP}
      - {port: \"7001\", protocol: UDP}
  - fromCIDR: [10.88.0.4/32, 'fd88::4/128']
    toPorts:
    - ports:
      - {port: \"7003\", protocol: UDP}
";

const SECOND: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: flip
spec:
  nodeSelector: {}
  ingress:
  - fromCIDRSet:
    - cidr: 10.88.0.0/29
      except: [10.88.0.4/32]
    - cidr: fd88::/125
      except: ['fd88::4/128']
    toPorts:
    - ports:
      - {port: \"7000\", protocol: UDP}
      - {port: \"7002\", protocol: UDP}
  - fromCIDR: [10.88.0.0/24, 'fd88::/64']
    toPorts:
    - ports:
      - {port: \"7003\", protocol: UDP}
  ingressDeny:
  - fromCIDR: [10.88.0.2/31, 'fd88::2/127']
    toPorts:
    - ports:
      - {port: \"7003\", protocol: UDP}
";

#[test]
fn a_hundred_flips_mix_nothing() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    world.manifest("flip.yaml", FIRST);
    world.wait("ingress", "enabled");
    let mut always = Vec::new();
    let mut never = Vec::new();
    for family in Family::BOTH {
        let to = |port| SocketAddr::new(Place::Host.address(family), port);
        always.push(Stream::start(
            &world,
            "outsider",
            "host",
            to(7_000),
            Flow::Fresh,
        ));
        never.push(Stream::start(
            &world,
            "outsider",
            "host",
            to(7_003),
            Flow::Fresh,
        ));
    }
    let mut revision = world.revision();
    for flip in 0..FLIPS {
        world.manifest("flip.yaml", if flip % 2 == 0 { SECOND } else { FIRST });
        revision = world.wait_revision_after(revision);
    }
    for stream in never {
        let outcome = stream.finish();
        assert!(
            outcome.sent > 1_000,
            "too little traffic to tell: {}",
            outcome.sent
        );
        assert!(
            outcome.arrived.is_empty(),
            "allowed by a mix: {:?}",
            outcome.arrived
        );
    }
    for stream in always {
        let outcome = stream.finish();
        assert!(
            outcome.lost().is_empty(),
            "denied by a mix: {:?}",
            outcome.lost()
        );
    }
}
