//! Without a policy everything passes; with the demo policy, only what it says.

use palisade::lab::network::{Family, Place};
use palisade::lab::probe;

use super::harness::{PATIENCE, SSH, World, demo_rows, open_rows, privileged};

#[test]
fn the_bare_network_passes_everything() {
    if !privileged() {
        return;
    }
    World::bare().expect(&open_rows());
}

#[test]
fn without_a_policy_everything_passes() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let endpoint = world.agent().host_endpoint().expect("the endpoint");
    assert_eq!(endpoint["policy"]["ingress"], "disabled");
    assert_eq!(endpoint["policy"]["egress"], "disabled");
    world.expect(&open_rows());
}

#[test]
fn the_demo_policy_opens_ssh_to_all_and_all_to_the_cluster() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let mut before: Vec<_> = Family::BOTH
        .map(|family| world.connect(Place::Outsider, Place::Host, SSH, family))
        .into();
    world.manifest("policy.yaml", super::harness::DEMO_POLICY);
    let endpoint = world.wait("ingress", "enabled");
    assert_eq!(endpoint["policy"]["egress"], "disabled");
    world.expect(&demo_rows());
    for stream in &mut before {
        probe::echo(stream, PATIENCE).expect("a connection opened before the policy lives on");
    }
}
