//! Policies flipped under traffic: each packet is judged by one of them, never
//! by a mix. Once through the agent with two small policies, once with hundreds
//! of rules as fast as the datapath can (`cargo xtask flips` for thousands).

#[path = "flips/packets.rs"]
mod packets;
#[path = "flips/plan.rs"]
mod plan;
#[path = "flips/storm.rs"]
mod storm;

use std::net::SocketAddr;

use palisade::lab::network::{Family, Place};
use palisade_abi::reason;

use self::packets::Arrived;
pub(crate) use self::plan::Random;
use self::plan::{Class, Plan};
use super::harness::{World, privileged};
use super::streams::{Flow, Stream};

const FLIPS: usize = 100;
/// In the test command; `PALISADE_FLIPS` asks for another number.
const STORM_FLIPS: u32 = 300;

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

/// Always-allowed packets lose none, never-allowed ones pass none, each event
/// tells identity, rule and verdict of the generation that it names; both
/// families and directions, programs replaced meanwhile.
#[test]
fn flips_of_hundreds_of_rules_under_traffic_mix_nothing() {
    if !privileged() {
        return;
    }
    let asked = std::env::var("PALISADE_FLIPS").ok();
    let flips = asked.map_or(STORM_FLIPS, |count| count.parse().expect("PALISADE_FLIPS"));
    let plan = Plan::new();
    assert!(plan.shown_by_least > 0, "a kind of mix would not be seen");
    let outcome = storm::run(&plan, flips);
    let faults = outcome.faults(&plan, flips);
    let count = |class| -> (u64, usize) {
        let sent = outcome.sent.iter().map(|sent| sent[class as usize]).sum();
        let arrived = outcome.arrived.iter();
        (
            sent,
            arrived.map(|both| Arrived::all(both, class).len()).sum(),
        )
    };
    let drops = |reasons: &[u8]| -> u64 {
        let exits = outcome.exits.iter();
        let of = exits.filter(|((reason, _), _)| reasons.contains(reason));
        of.map(|(_, packets)| packets).sum()
    };
    println!(
        "{flips} flips and {} replacements of all programs in {:.1} s, {} kinds of mixes, \
         each shown by {} flows or more",
        outcome.reloads, outcome.seconds, plan.mixes, plan.shown_by_least
    );
    for class in Class::ALL {
        let (sent, arrived) = count(class);
        println!("{class:?}: {sent} sent, {arrived} arrived");
    }
    println!(
        "events: {} allowed, {} dropped ({} running flows cut), {} mixed; \
         missed tail calls: {}; faults: {}",
        outcome.judged.allowed,
        outcome.judged.dropped,
        outcome.judged.cut,
        outcome.judged.mixed.len(),
        drops(&[reason::MISSED_TAIL_CALL, reason::MISSED_TAIL_CALL_PASSED]),
        faults.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let judged = &outcome.judged;
    let each = [judged.allowed, judged.dropped, judged.cut];
    assert!(
        each.iter().all(|seen| *seen > 0),
        "too little traffic to tell"
    );
}
