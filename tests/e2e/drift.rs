//! Drift, end to end: what somebody changes in the kernel under a running agent
//! is found, mended, counted and told; and devices that come, go and change.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::network::DEVICE;
use palisade::lab::tool;
use palisade_abi::ABI_VERSION;
use palisade_abi::table::blocks_element;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use super::harness::{DEMO_POLICY, World, demo_rows, privileged, until};

fn pin(world: &World, name: &str) -> PathBuf {
    world
        .sandbox
        .path("bpf")
        .join(format!("{name}_v{ABI_VERSION}"))
}

fn links(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.sandbox.path("bpf")).expect("the pins");
    let paths = entries.map(|entry| entry.expect("a pin").path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("link_") || name.starts_with("filter_")
        })
        .collect()
}

/// The value of an element of a pinned array.
fn element(world: &World, map: &str, element: u32) -> Vec<u8> {
    let place = pin(world, map).display().to_string();
    let said = bpftool(&["-j", "map", "lookup", "pinned", &place], element, &[]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let bytes = said["value"].as_array().expect("a value").iter();
    let byte = |byte: &Value| {
        let digits = byte.as_str().expect("a byte").trim_start_matches("0x");
        u8::from_str_radix(digits, 16).expect("a byte")
    };
    bytes.map(byte).collect()
}

/// Changes it, as any root user could.
fn edit(world: &World, map: &str, element: u32, value: &[u8]) {
    let place = pin(world, map).display().to_string();
    bpftool(&["map", "update", "pinned", &place], element, value);
}

fn bpftool(words: &[&str], element: u32, value: &[u8]) -> String {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    words.push("key".to_owned());
    words.extend(element.to_ne_bytes().map(|byte| byte.to_string()));
    if !value.is_empty() {
        words.push("value".to_owned());
        words.extend(value.iter().map(u8::to_string));
    }
    tool::run("bpftool", &words).expect("bpftool")
}

/// Nothing is enforced any more, and a block of the verdicts says something else.
fn open_up(world: &World) {
    let word = element(world, "pal_commit", 0);
    let slot = u32::from(word[0] & 1);
    let places = (0..8).map(|place| blocks_element(slot, place));
    let mut used = places.filter_map(|at| {
        let block = element(world, "pal_blocks", at);
        block.iter().any(|byte| *byte != 0).then_some((at, block))
    });
    let (at, mut block) = used.next().expect("the policy has blocks");
    for byte in &mut block {
        *byte ^= 1;
    }
    edit(world, "pal_blocks", at, &block);
    let mut opened = word;
    opened[0] &= !0b110;
    edit(world, "pal_commit", 0, &opened);
}

/// Takes our program off one hook of the device.
fn take_off(world: &World) {
    let link = links(world).into_iter().next().expect("a link");
    let place = link.display().to_string();
    if place.contains("link_") {
        tool::run("bpftool", &["link", "detach", "pinned", &place]).expect("detach");
    } else {
        world.tool("host", &format!("tc filter del dev {DEVICE} ingress"));
    }
}

/// `status --verify`: exit code and answer.
fn verify(world: &mut World) -> (Option<i32>, Value) {
    let output = world.client(&["status", "--verify", "-o", "json"]);
    let answer = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), answer)
}

fn check<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let checks = answer["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} among {checks:?}"))
}

fn metric(world: &mut World, line: &str) -> f64 {
    let output = world.client(&[
        "metrics",
        "list",
        "-p",
        "datapath_drift_total",
        "-o",
        "json",
    ]);
    let samples: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = samples
        .iter()
        .find(|it| it["labels"].as_str().is_some_and(|it| it.contains(line)));
    let value = found.and_then(|sample| sample["value"].as_str()?.parse().ok());
    value.unwrap_or(0.0)
}

#[test]
fn what_somebody_changed_in_the_kernel_is_mended_counted_and_told() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    // Nothing but `--verify` looks.
    world.add_arguments(&["--audit-interval", "3600"]);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    let (code, answer) = verify(&mut world);
    assert_eq!(code, Some(0), "{answer}");
    for check in answer["checks"].as_array().expect("checks") {
        let found = (&check["ok"], &check["differed"]);
        assert_eq!(found, (&true.into(), &0.into()), "{check}");
        // Without a source beyond this host there is no traffic of the agent's own.
        let may_be_empty = ["vlans", "failsafe", "control-endpoints"];
        assert!(
            check["compared"].as_u64() > Some(0)
                || may_be_empty.iter().any(|name| check["name"] == *name),
            "{check}"
        );
    }
    let before = world.generation();
    open_up(&world);
    take_off(&world);
    fs::remove_file(pin(&world, "pal_rows")).expect("a pin");

    let (code, answer) = verify(&mut world);
    assert_eq!(code, Some(0), "{answer}");
    for kind in ["commit-word", "blocks", "attachment", "pin"] {
        let check = check(&answer, kind);
        assert_eq!(
            (&check["ok"], &check["differed"]),
            (&true.into(), &check["repaired"]),
            "{check}"
        );
        assert!(check["differed"].as_u64() > Some(0), "{check}");
        let labels = format!("kind=\"{kind}\" outcome=\"repaired\"");
        assert!(metric(&mut world, &labels) > 0.0, "{labels}");
    }
    assert!(
        world.generation() > before,
        "verdicts are replaced by a new generation"
    );
    world.expect(&demo_rows());
    let (code, answer) = verify(&mut world);
    let differs = |check: &&Value| check["differed"] != 0;
    let again: Vec<_> = answer["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(differs)
        .collect();
    assert_eq!((code, again), (Some(0), Vec::new()));
    assert_eq!(answer["drift"]["found"], answer["drift"]["repaired"]);
    let table = String::from_utf8(world.client(&["status"]).stdout).expect("text");
    assert!(
        table.contains("Drift:") && table.contains("blocks:"),
        "{table}"
    );
    let history = String::from_utf8(world.client(&["history"]).stdout).expect("text");
    assert!(
        history.contains("drift") && history.contains("commit-word"),
        "{history}"
    );
}

/// Without anybody asking.
#[test]
fn the_background_audit_mends_a_detached_program() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--audit-interval", "1"]);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    take_off(&world);
    until("the audit finds it", || {
        let status = world.agent().json(&["status"]).ok()?;
        (status["drift"]["repaired"].as_u64()? > 0).then_some(())
    });
    world.expect(&demo_rows());
}

/// Where nothing can be mounted any more: the links live on by the agent's
/// descriptors, `status` says what is wrong, and it is mended when it can be.
#[test]
fn without_a_bpffs_the_agent_enforces_on_and_says_what_it_needs() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let bpffs = world.sandbox.path("bpf");
    unmount(&bpffs, UnmountFlags::DETACH).expect("unmount");
    fs::remove_dir(&bpffs).expect("the mount point");
    fs::write(&bpffs, "in the way").expect("a file");
    let (code, answer) = verify(&mut world);
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(check(&answer, "bpf-file-system")["ok"], false);
    let problems = answer["problems"].as_array().expect("problems");
    let told = problems
        .iter()
        .any(|it| it["from"] == "drift" && it["severity"] == "error");
    assert!(told, "{problems:?}");
    world.expect(&demo_rows());
    fs::remove_file(&bpffs).expect("the file");
    let (code, answer) = verify(&mut world);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(links(&world).len(), 2);
    // And so it outlives the agent.
    world
        .agent()
        .end(rustix::process::Signal::KILL)
        .expect("the agent ends");
    world.expect(&demo_rows());
}

fn protected(world: &mut World) -> Vec<String> {
    let status = world.agent().json(&["status"]).expect("status");
    let devices = status["devices"].as_array().expect("devices").iter();
    let protected = devices.filter(|device| device["protected"] == true);
    let names = protected.map(|device| device["name"].as_str().expect("a name").to_owned());
    names.collect()
}

/// Devices come, get an address, change their name, go and come back, and leave
/// for another namespace; at the end each that is there is protected, and only
/// those have pins.
#[test]
fn devices_under_churn_are_protected_and_leave_no_pins() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--device", "d+"]);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    let outsider = world.sandbox.namespace("outsider");
    for round in 0..6 {
        for number in 0..3 {
            let name = format!("d{number}");
            world.tool(
                "host",
                &format!("ip link add {name} type veth peer name p{number}"),
            );
            world.tool("host", &format!("ip link set {name} up"));
            world.tool(
                "host",
                &format!("ip addr add 10.99.{number}.1/24 dev {name}"),
            );
        }
        world.tool("host", "ip link set d0 down");
        world.tool("host", "ip link set d0 name dx");
        if round % 2 == 0 {
            world.tool("host", &format!("ip link set d1 netns {outsider}"));
            world.tool("outsider", "ip link del d1");
        } else {
            world.tool("host", "ip link del d1");
        }
        world.tool("host", "ip link del dx");
        world.tool("host", "ip link del d2");
    }
    world.tool("host", "ip link add d1 type veth peer name p1");
    world.tool("host", "ip link add d7 type veth peer name p7");
    until("what is there is protected, and nothing else", || {
        let mut names = protected(&mut world);
        names.sort();
        (names == ["d1", "d7", DEVICE]).then_some(())
    });
    until("pins of what is gone are gone", || {
        (links(&world).len() == 6).then_some(())
    });
    let (code, answer) = verify(&mut world);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(answer["ready"], true, "{answer}");
    let protection = &answer["protection"];
    assert!(protection["measured"].as_u64() >= Some(3), "{protection}");
    println!("from appearance to protection: {protection}");
    world.expect(&demo_rows());
}

/// Another device, another hardware address.
fn forget_neighbours(world: &World) {
    for place in ["peer", "outsider"] {
        world.tool(place, "ip neigh flush dev eth0");
    }
}

/// Takes what arrived, and counts it.
fn drain(receiver: &UdpSocket) -> usize {
    let mut buffer = [0; 16];
    std::iter::from_fn(|| receiver.recv(&mut buffer).ok()).count()
}

/// Ends the sender also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What gets in before a device is protected is counted; after that nothing does.
#[test]
fn a_device_that_appears_under_traffic_is_protected_at_once() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let host = world.sandbox.namespace("host");
    let stop = AtomicBool::new(false);
    let outsider = netns::run_in(&world.sandbox.namespace("outsider"), || {
        UdpSocket::bind("10.88.0.3:0")
    });
    let outsider = outsider.expect("a namespace").expect("a socket");
    let receiver = netns::run_in(&host, || UdpSocket::bind("0.0.0.0:7000"));
    let receiver = receiver.expect("a namespace").expect("a socket");
    receiver.set_nonblocking(true).expect("a socket");
    let (sent, came) = scope(|threads| {
        let sender = threads.spawn(|| {
            let mut sent = 0u64;
            while !stop.load(Ordering::SeqCst) {
                // Nobody there is no error of ours.
                let _unreachable = outsider.send_to(b"denied", "10.88.0.1:7000");
                sent += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            sent
        });
        let _stop = Stop(&stop);
        let mut came = 0;
        for _ in 0..3 {
            world.tool("host", &format!("ip link del {DEVICE}"));
            world.tool(
                "wire",
                &format!("ip link add host type veth peer name {DEVICE} netns {host}"),
            );
            world.tool("host", &format!("ip link set {DEVICE} up"));
            world.tool("host", &format!("ip addr add 10.88.0.1/24 dev {DEVICE}"));
            world.tool(
                "host",
                &format!("ip addr add fd88::1/64 dev {DEVICE} nodad"),
            );
            world.tool("wire", "ip link set host master br0 up");
            forget_neighbours(&world);
            until("it is protected", || {
                protected(&mut world)
                    .contains(&DEVICE.to_owned())
                    .then_some(())
            });
            came += drain(&receiver);
            world.expect(&demo_rows());
            assert_eq!(drain(&receiver), 0, "a protected device lets nothing in");
        }
        stop.store(true, Ordering::SeqCst);
        (sender.join().expect("the sender"), came)
    });
    let status = world.agent().json(&["status"]).expect("status");
    let protection = &status["protection"];
    println!("{came} of {sent} denied packets came in before protection; {protection}");
}
