//! The cold boot: a store from before, nothing in the kernel, no source that
//! answers, and a network that comes later.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::network::{self, DEVICE};
use palisade_state::{BootRecord, Store};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::Value;

use super::harness::{DEMO_POLICY, World, demo_rows, exe, privileged, until};

/// What a reboot leaves: the state directory, and nothing in the kernel.
fn reboot(world: &mut World) {
    world.agent().end(Signal::KILL).expect("the agent ends");
    let bpffs = world.sandbox.path("bpf");
    unmount(&bpffs, UnmountFlags::DETACH).expect("unmount");
    mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("a new bpffs");
    let store = Store::open(&world.sandbox.path("state")).expect("the store");
    let boot = BootRecord {
        boot_id: "an earlier boot".to_owned(),
    };
    store.put_boot(&boot).expect("the boot id of then");
    store.flush().expect("a flush");
    drop(store);
    until("the programs are off the device", || {
        let shown = world.tool("host", "bpftool net show");
        (!shown.contains("pal_")).then_some(())
    });
}

/// A machine that enforced the demo policy and was booted anew, with manifests
/// that cannot be listed: their source never gets in sync.
fn booted() -> (World, u64) {
    let mut world = World::bare();
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    let revision = world.revision();
    reboot(&mut world);
    let directory = world.sandbox.path("manifests");
    fs::remove_dir_all(&directory).expect("the manifests");
    fs::write(&directory, "not a directory").expect("a file");
    (world, revision)
}

fn status(world: &World) -> Option<Value> {
    let mut client = Command::new(exe());
    client
        .args(["status", "-o", "json", "--socket"])
        .arg(world.sandbox.path("agent.sock"));
    serde_json::from_slice(&client.output().ok()?.stdout).ok()
}

/// Starts the agent as the service manager does; gives what it is told.
fn start(world: &World) -> (palisade::lab::sandbox::Process, UnixDatagram) {
    let place = world.sandbox.path("notify");
    let told = UnixDatagram::bind(&place).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(world.sandbox.path("agent.log"));
    let mut command = Command::new(exe());
    command
        .arg("agent")
        .env("NOTIFY_SOCKET", &place)
        .env("WATCHDOG_USEC", "400000");
    for (option, part) in [
        ("--manifests", "manifests"),
        ("--state-dir", "state"),
        ("--bpffs", "bpf"),
        ("--socket", "agent.sock"),
    ] {
        command.arg(option).arg(world.sandbox.path(part));
    }
    command.args(["--node-name", "host", "--device", DEVICE]);
    command.stdin(Stdio::null()).stderr(log.expect("a log"));
    let child = netns::run_in(&world.sandbox.namespace("host"), || command.spawn());
    let child = child.expect("a namespace").expect("the agent starts");
    (world.sandbox.adopt(child).expect("a process"), told)
}

/// Reads until a message begins so.
fn wait_told(told: &UnixDatagram, begin: &str) -> String {
    let mut buffer = [0; 512];
    loop {
        let length = told
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {begin}: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.starts_with(begin) {
            return text;
        }
    }
}

#[test]
fn the_last_good_policy_is_enforced_before_any_source_answers() {
    if !privileged() {
        return;
    }
    let (world, revision) = booted();
    let (_agent, told) = start(&world);
    let ready = wait_told(&told, "READY=1");
    assert!(ready.contains("waiting for manifests"), "{ready}");
    // What the service manager was told is true: it is enforced now.
    world.expect(&demo_rows());
    let status = status(&world).expect("status");
    assert_eq!(
        status["ready"], false,
        "a source has not answered: {status}"
    );
    assert_eq!(status["enforcing"]["ingress"], "enabled", "{status}");
    assert!(
        status["realized"]["revision"].as_u64() >= Some(revision),
        "{status}"
    );
    assert_eq!(
        status["kernel"]["adopted"], false,
        "nothing was left in the kernel"
    );
    wait_told(&told, "WATCHDOG=1");
}

#[test]
fn a_network_that_comes_up_later_is_protected_as_it_comes() {
    if !privileged() {
        return;
    }
    let (world, _) = booted();
    world.tool("host", &format!("ip link del {DEVICE}"));
    let (_agent, told) = start(&world);
    wait_told(&told, "READY=1");
    let before = until("the API answers", || status(&world));
    assert_eq!(before["enforcing"]["ingress"], "enabled", "{before}");
    let problems = before["problems"].to_string();
    assert!(
        problems.contains("it is protected as soon as it appears"),
        "{problems}"
    );

    let host = world.sandbox.namespace("host");
    world.tool(
        "wire",
        &format!("ip link add host type veth peer name {DEVICE} netns {host}"),
    );
    world.tool("wire", "ip link set host master br0 up");
    world.tool("host", &format!("ip link set {DEVICE} up"));
    for family in network::Family::BOTH {
        let address = network::Place::Host.address(family);
        let suffix = if address.is_ipv4() {
            "/24"
        } else {
            "/64 nodad"
        };
        world.tool(
            "host",
            &format!("ip addr add {address}{suffix} dev {DEVICE}"),
        );
    }
    for place in ["peer", "outsider"] {
        // Another device, another hardware address.
        world.tool(place, "ip neigh flush dev eth0");
    }
    let after = until("the device is protected", || {
        let status = status(&world)?;
        let devices = status["devices"].as_array()?;
        let mut ours = devices.iter().filter(|device| device["name"] == DEVICE);
        let protected = ours.any(|device| device["protected"] == true);
        (protected && status["protection"]["measured"].as_u64()? > 0).then_some(status)
    });
    println!("the network came up: {}", after["protection"]);
    world.expect(&demo_rows());
}
