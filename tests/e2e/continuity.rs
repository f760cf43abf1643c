//! The agent's end changes nothing, and a new one takes over what it finds.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{World, privileged};
use super::streams::{self, Streams};

const A_WHILE: Duration = Duration::from_millis(500);

fn survives(signal: Signal) {
    let mut world = World::new();
    streams::prepare(&mut world);
    let generation = world.generation();
    let revision = world.revision();
    let streams = Streams::start(&mut world);
    sleep(A_WHILE);
    world.agent().end(signal).expect("the agent ends");
    // Nobody is at home: the kernel goes on alone, for old and new flows.
    sleep(A_WHILE);
    world.start_agent();
    world.wait("ingress", "enabled");
    sleep(A_WHILE);
    let report = streams.finish(&mut world);
    println!("{report}");
    let faults = report.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(world.generation(), generation, "nothing was to be written");
    assert_eq!(world.revision(), revision, "nothing has changed");
    let written = ["metrics", "list", "-p", "datapath_written_entries"];
    let written = world.agent().json(&written).expect("metrics");
    assert_eq!(written[0]["value"], "0", "{written}");
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
