//! `palisade detach` leaves nothing; what is not ours is never touched.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use palisade::datapath::netns;
use palisade::lab::network::{DEVICE, Family, Place};
use palisade::lab::probe::{Kind, Seen};
use palisade::lab::tool;
use rustix::process::Signal;
use serde_json::Value;

use super::harness::{ECHO, HTTP, World, demo_rows, exe, open_rows, privileged};

fn detach(world: &World) -> Output {
    let mut command = Command::new(exe());
    command
        .arg("detach")
        .arg("--bpffs")
        .arg(world.sandbox.path("bpf"));
    command.arg("--state-dir").arg(world.sandbox.path("state"));
    // Links are looked up where their devices are.
    netns::run_in(&world.sandbox.namespace("host"), || command.output())
        .expect("a namespace")
        .expect("the command starts")
}

/// Kind and id of every pinned object.
fn pinned(folder: &Path) -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(pinned(&path));
            continue;
        }
        let place = path.display().to_string();
        for kind in ["link", "prog", "map"] {
            let said = tool::run("bpftool", &["-j", kind, "show", "pinned", &place]);
            let object: Option<Value> = said.ok().and_then(|text| serde_json::from_str(&text).ok());
            if let Some(id) = object.and_then(|object| object["id"].as_u64()) {
                found.push((kind, id));
            }
        }
    }
    found
}

fn exists(kind: &str, id: u64) -> bool {
    tool::run("bpftool", &["-j", kind, "show", "id", &id.to_string()]).is_ok()
}

/// Takes everything out, once no agent runs: what is left of all that was pinned.
pub(crate) fn left_by_detach(world: &World) -> Vec<String> {
    let bpffs = world.sandbox.path("bpf");
    let objects = pinned(&bpffs);
    assert!(!objects.is_empty(), "there was nothing to take out");
    let done = detach(world);
    let mut left = Vec::new();
    if !done.status.success() || bpffs.exists() {
        left.push(format!(
            "{done:?}, and {} exists: {}",
            bpffs.display(),
            bpffs.exists()
        ));
    }
    let alive = objects.iter().filter(|(kind, id)| exists(kind, *id));
    left.extend(alive.map(|(kind, id)| format!("{kind} {id} is left")));
    println!("detach: {} objects, {} left", objects.len(), left.len());
    left
}

#[test]
fn detach_leaves_no_link_pin_map_or_program() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let objects = pinned(&world.sandbox.path("bpf"));
    for kind in ["link", "prog", "map"] {
        assert!(
            objects.iter().any(|object| object.0 == kind),
            "no {kind} among {objects:?}"
        );
    }
    // While an agent runs, it would put everything back.
    let refused = detach(&world);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    world.expect(&demo_rows());
    world.agent().end(Signal::TERM).expect("the agent ends");
    world.expect(&demo_rows());
    assert_eq!(left_by_detach(&world), [""; 0]);
    world.expect(&open_rows());
    // A second time there is nothing to do.
    assert!(detach(&world).status.success());
    // And a new agent starts from nothing, with the policy that lies there.
    world.start_agent();
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
}

/// Drops UDP to port 7777 over IPv4, passes everything else on (-1).
const FOREIGN_FILTER: &str = "8,40 0 0 12,21 0 5 2048,48 0 0 23,21 0 3 17,40 0 0 36,21 0 1 7777,\
                              6 0 0 2,6 0 0 4294967295";

#[test]
fn other_programs_on_the_hook_go_on_running() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.serve("host", &[], &[7_777]);
    let to = Place::Host.address(Family::V4);
    assert_eq!(world.probe("peer", Kind::Udp(7_777), to), Seen::Passed);
    world.tool("host", &format!("tc qdisc add dev {DEVICE} clsact"));
    netns::run_in(&world.sandbox.namespace("host"), || {
        let head = [
            "filter",
            "add",
            "dev",
            DEVICE,
            "ingress",
            "bpf",
            "direct-action",
        ];
        let mut words = head.to_vec();
        words.extend(["bytecode", FOREIGN_FILTER]);
        tool::run("tc", &words)
    })
    .expect("a namespace")
    .expect("a foreign filter");
    let works = |world: &World| {
        assert_eq!(world.probe("peer", Kind::Udp(7_777), to), Seen::Dropped);
        assert_eq!(world.probe("peer", Kind::Udp(ECHO), to), Seen::Passed);
    };
    works(&world);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.start_agent();
    works(&world);
    world.manifest("policy.yaml", super::harness::DEMO_POLICY);
    world.wait("ingress", "enabled");
    works(&world);
    world.agent().end(Signal::KILL).expect("the agent ends");
    assert!(detach(&world).status.success());
    works(&world);
}

#[test]
fn a_device_that_was_not_named_is_not_touched() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    let outsider = world.sandbox.namespace("outsider");
    world.tool(
        "host",
        &format!("ip link add eth1 type veth peer name eth1 netns {outsider}"),
    );
    for (place, last) in [("host", 1), ("outsider", 3)] {
        world.tool(place, "ip link set eth1 up");
        world.tool(place, &format!("ip addr add 10.89.0.{last}/24 dev eth1"));
    }
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", super::harness::DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    let other = "10.89.0.1".parse().expect("an address");
    assert_eq!(
        world.probe("outsider", Kind::Tcp(HTTP), other),
        Seen::Passed
    );
    assert_eq!(
        world.probe("outsider", Kind::Udp(ECHO), other),
        Seen::Passed
    );
    world.expect(&demo_rows());
    let links = pinned(&world.sandbox.path("bpf")).into_iter();
    let links = links.filter(|pin| pin.0 == "link");
    assert_eq!(
        links.count(),
        2,
        "one link for each direction of the named device"
    );
    let qdiscs = world.tool("host", "tc qdisc show dev eth1");
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    let status = world.agent().json(&["status"]).expect("status");
    let devices = status["devices"].as_array().expect("devices");
    let find = |name: &str| devices.iter().find(|device| device["name"] == name);
    let named = find(DEVICE).expect("the named device is listed");
    assert_eq!(named["protected"], true);
    let other = find("eth1").expect("the other device is listed");
    assert_eq!(other["protected"], false);
    assert_ne!(other["reason"], "", "the reason is told");
}
