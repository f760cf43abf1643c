//! Hostile packets and manifests: nothing crashes, hangs or opens.

use std::fs;
use std::os::unix::fs::symlink;

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{self, Kind, Seen};

use super::frames::Wire;
use super::harness::{DEMO_POLICY, HTTP, PATIENCE, SSH, World, demo_rows, privileged};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// An IPv4 packet from the outsider to the host, checksum right.
fn v4(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    v4_between([3, 1], protocol, fragment, options, payload)
}

/// An IPv4 packet between two addresses of the wire, given by their last byte.
fn v4_between(
    [from, to]: [u8; 2],
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let words = u8::try_from(header / 4).expect("a short header");
    let total = u16::try_from(header + payload.len()).expect("a short packet");
    let mut packet = vec![0x40 | words, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0, 10, 88, 0, from, 10, 88, 0, to]);
    packet.extend_from_slice(options);
    let sum = probe::checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet from the outsider to the host.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(payload.len()).expect("short").to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    for last in [3, 1] {
        packet.extend_from_slice(&[0xfd, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend_from_slice(payload);
    packet
}

fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40];
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    segment
}

fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40];
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&[0, 12, 0, 0, 1, 2, 3, 4]);
    datagram
}

/// Frames that contradict themselves, one kind after the other.
fn crafted(wire: &Wire) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for length in 0..60 {
        frames.push(wire.frame(IPV4, &v4(6, 0, &[], &tcp(HTTP, 2))[..length.min(40)]));
        frames.push(wire.frame(IPV6, &v6(6, &tcp(HTTP, 2))[..length]));
    }
    for header_words in 0..=15 {
        let mut packet = v4(6, 0, &[], &tcp(HTTP, 2));
        packet[0] = 0x40 | header_words;
        frames.push(wire.frame(IPV4, &packet));
    }
    for flags in 0..=255 {
        frames.push(wire.frame(IPV4, &v4(6, 0, &[], &tcp(HTTP, flags))));
        frames.push(wire.frame(IPV6, &v6(6, &tcp(HTTP, flags))));
    }
    for protocol in 0..=255 {
        frames.push(wire.frame(IPV4, &v4(protocol, 0, &[1; 40], &[0; 24])));
        frames.push(wire.frame(IPV6, &v6(protocol, &[0; 24])));
        // Each extension header leads to the next, without an end.
        frames.push(wire.frame(IPV6, &v6(protocol, &[protocol; 200])));
    }
    // Fragments: overlapping, without a first one, of length zero.
    for offset in [0, 1, 2, 0x2000, 0x2001, 0x3fff, 0x1fff] {
        frames.push(wire.frame(IPV4, &v4(17, offset, &[], &udp(9_000))));
        frames.push(wire.frame(IPV4, &v4(6, offset, &[], &[])));
    }
    // Other ethertypes, and lengths instead of a type.
    for ethertype in [
        0, 4, 46, 1_500, 0x0806, 0x8100, 0x88a8, 0x8847, 0x88cc, 0xffff,
    ] {
        frames.push(wire.frame(ethertype, &[0xff; 46]));
        frames.push(wire.frame(ethertype, &[]));
    }
    // Our own address as source; multicast and broadcast destinations.
    frames.push(wire.frame(IPV4, &v4_between([1, 1], 17, 0, &[], &udp(9_000))));
    frames.push(wire.frame(IPV4, &v4_between([3, 255], 17, 0, &[], &udp(9_000))));
    frames
}

/// A small generator: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }
}

#[test]
fn hostile_packets_open_and_break_nothing() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let mut session = world.connect(Place::Outsider, Place::Host, SSH, Family::V4);
    let wire = Wire::open(&world, "outsider");
    let frames = crafted(&wire);
    let mut random = Random(0x5eed_0fba_d0f0_0d15);
    for frame in &frames {
        // The kernel itself refuses some lengths; those never reach the wire.
        drop(wire.send(frame));
    }
    for _ in 0..20_000 {
        let mut frame = frames[random.below(frames.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(frame.len());
            frame[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        frame.truncate(14 + random.below(frame.len()));
        // To us, whatever else it says: what the bridge floods away tests nothing.
        frame[..6].copy_from_slice(&wire.host);
        drop(wire.send(&frame));
    }
    assert!(
        world.agent().exited().expect("the agent's state").is_none(),
        "the agent ended"
    );
    probe::echo(&mut session, PATIENCE).expect("an open connection lives on");
    world.expect(&demo_rows());
    let counters = world
        .agent()
        .json(&["bpf", "metrics", "list"])
        .expect("counters");
    let of = |reason: &str| -> u64 {
        let lines = counters.as_array().expect("a list").iter();
        let lines = lines.filter(|line| line["reason"] == reason);
        lines.filter_map(|line| line["packets"].as_u64()).sum()
    };
    assert!(of("Policy denied") > 100, "{counters}");
    assert!(of("Invalid packet") > 0, "{counters}");
    assert!(of("Invalid source ip") > 0, "{counters}");
    assert_eq!(of("Missed tail call"), 0, "{counters}");
    assert_eq!(of("Missed tail call, passed"), 0, "{counters}");
}

fn alias_bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = level - 1;
        let items = vec![format!("*a{below}"); 8].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    text
}

#[test]
fn hostile_manifests_open_and_break_nothing() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let place = |name: &str| world.sandbox.path("manifests").join(name);
    fs::write(place("binary.yaml"), [0_u8, 159, 146, 150, 0xff, 0xfe]).expect("written");
    fs::write(place("bomb.yaml"), alias_bomb()).expect("written");
    fs::write(place("deep.yaml"), "[".repeat(100_000)).expect("written");
    fs::write(place("deep.json"), "{\"a\":".repeat(100_000)).expect("written");
    fs::write(place("huge.yaml"), "# a line\n".repeat(4 << 20)).expect("written");
    fs::write(place("empty.yaml"), "").expect("written");
    fs::write(place("half.yaml"), &DEMO_POLICY[..DEMO_POLICY.len() / 2]).expect("written");
    fs::create_dir(place("folder.yaml")).expect("made");
    symlink("loop.yaml", place("loop.yaml")).expect("made");
    symlink("/dev/zero", place("zero.yaml")).expect("made");
    let pipe = place("pipe.yaml").display().to_string();
    palisade::lab::tool::run("mkfifo", &[pipe]).expect("made");
    // The same resource again, opening everything: the first source keeps it.
    let open = DEMO_POLICY.replace("- cluster", "- all");
    fs::write(place("zz-same-name.yaml"), open).expect("written");
    // A good file after all of them is still seen.
    let second = DEMO_POLICY
        .replace("demo-host-policy", "second")
        .replace("\"22\"", "\"80\"");
    let revision = world.revision();
    world.manifest("second.yaml", &second);
    world.wait_revision_after(revision);
    let host = Place::Host.address(Family::V4);
    assert_eq!(world.probe("outsider", Kind::Tcp(HTTP), host), Seen::Passed);
    world.remove_manifest("second.yaml");
    super::harness::until("the second policy goes", || {
        (world.probe("outsider", Kind::Tcp(HTTP), host) == Seen::Dropped).then_some(())
    });
    assert!(
        world.agent().exited().expect("the agent's state").is_none(),
        "the agent ended"
    );
    world.expect(&demo_rows());
    let status = world.agent().json(&["status"]).expect("status");
    let problems = status["problems"].to_string();
    for name in [
        "binary.yaml",
        "bomb.yaml",
        "deep.yaml",
        "deep.json",
        "huge.yaml",
        "half.yaml",
    ] {
        assert!(
            problems.contains(name),
            "{name} is not reported in {problems}"
        );
    }
}
