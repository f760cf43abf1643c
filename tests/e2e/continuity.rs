//! The agent's end changes nothing, and a new one takes over what it finds.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use palisade::lab::network::{Family, Place};
use palisade::lab::probe;
use rustix::process::Signal;

use super::harness::{PATIENCE, SSH, World, demo_rows, privileged};
use super::traffic::{Flow, Stream};

/// Numbered traffic through every kind of verdict.
struct Traffic {
    allowed: Vec<Stream>,
    denied: Vec<Stream>,
}

fn start(world: &World) -> Traffic {
    let mut traffic = Traffic {
        allowed: Vec::new(),
        denied: Vec::new(),
    };
    for (family, port) in Family::BOTH.into_iter().zip([9_100, 9_200]) {
        let at = |place: Place, port: u16| SocketAddr::new(place.address(family), port);
        let fresh = at(Place::Host, port);
        let same = at(Place::Host, port + 1);
        let out = at(Place::Outsider, port + 2);
        let closed = at(Place::Host, port + 3);
        traffic
            .allowed
            .push(Stream::start(world, "peer", "host", fresh, Flow::Fresh));
        traffic
            .allowed
            .push(Stream::start(world, "peer", "host", same, Flow::Same));
        traffic
            .allowed
            .push(Stream::start(world, "host", "outsider", out, Flow::Fresh));
        let echo = at(Place::Outsider, super::harness::ECHO);
        traffic.allowed.push(Stream::echo(world, "host", echo));
        traffic.denied.push(Stream::start(
            world,
            "outsider",
            "host",
            closed,
            Flow::Fresh,
        ));
    }
    traffic
}

impl Traffic {
    fn finish(self) {
        for stream in self.denied {
            let outcome = stream.finish();
            assert!(
                outcome.sent > 100,
                "too little traffic to tell: {}",
                outcome.sent
            );
            assert!(
                outcome.arrived.is_empty(),
                "denied and passed: {:?}",
                outcome.arrived
            );
        }
        for stream in self.allowed {
            let outcome = stream.finish();
            assert!(
                outcome.sent > 100,
                "too little traffic to tell: {}",
                outcome.sent
            );
            assert!(
                outcome.lost().is_empty(),
                "allowed and lost: {:?}",
                outcome.lost()
            );
        }
    }
}

fn survives(signal: Signal) {
    let mut world = World::with_demo_policy();
    let mut connections = Vec::new();
    for family in Family::BOTH {
        connections.push(world.connect(Place::Outsider, Place::Host, SSH, family));
        connections.push(world.connect(Place::Host, Place::Outsider, SSH, family));
    }
    let generation = world.generation();
    let revision = world.revision();
    let traffic = start(&world);
    sleep(Duration::from_millis(300));
    world.agent().end(signal).expect("the agent ends");
    // Nobody is at home: the kernel goes on alone, for old and new flows.
    world.expect(&demo_rows());
    for stream in &mut connections {
        probe::echo(stream, PATIENCE).expect("an open connection, without an agent");
    }
    world.start_agent();
    world.wait("ingress", "enabled");
    sleep(Duration::from_millis(300));
    traffic.finish();
    for stream in &mut connections {
        probe::echo(stream, PATIENCE).expect("an open connection, with the new agent");
    }
    assert_eq!(world.generation(), generation, "nothing was to be written");
    assert_eq!(world.revision(), revision, "nothing has changed");
    world.expect(&demo_rows());
    let missed = world
        .agent()
        .json(&["bpf", "metrics", "list"])
        .expect("counters");
    let missed: u64 = missed
        .as_array()
        .expect("a list")
        .iter()
        .filter(|line| line["reason"].to_string().contains("Missed tail call"))
        .filter_map(|line| line["packets"].as_u64())
        .sum();
    assert_eq!(missed, 0, "missed tail calls");
}

#[test]
fn sigterm_changes_nothing_and_a_new_start_adopts() {
    if privileged() {
        survives(Signal::TERM);
    }
}

#[test]
fn sigkill_changes_nothing_and_a_new_start_adopts() {
    if privileged() {
        survives(Signal::KILL);
    }
}

#[test]
fn what_changed_while_the_agent_was_away_is_enforced_when_it_is_back() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let generation = world.generation();
    world.agent().end(Signal::KILL).expect("the agent ends");
    world.remove_manifest("policy.yaml");
    world.start_agent();
    world.wait("ingress", "disabled");
    assert_ne!(world.generation(), generation);
    world.expect(&super::harness::open_rows());
}
