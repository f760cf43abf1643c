//! The packets: numbered datagrams from raw sockets, counted by raw sockets
//! behind the programs of the other side.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use palisade::policy::Direction;
use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recv, socket, sockopt};

use super::plan::{Class, Plan, Random, Tuple};
use crate::frames::Wire;
use crate::harness::World;

/// Payload: class, then the number.
const PAYLOAD: usize = 16;
const UDP: u8 = 17;
/// Source port of flows that go on, and the number of those of one packet from
/// 1024 on: none is a port of the policies, else a packet could be the answer
/// to a flow of the other direction, and allowed as such.
const RUNNING_PORT: u16 = 30_000;
const FRESH_PORTS: u32 = 18_000;
/// Packets at once, and the pause behind them.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_micros(400);
/// A receiver that the machine does not run for a while loses nothing.
const BUFFER_BYTES: usize = 64 << 20;
const SILENCE: Duration = Duration::from_millis(300);

/// Classes of a batch, over and over: most are those that show a mix.
const PATTERN: [Class; 8] = [
    Class::Always,
    Class::Never,
    Class::Always,
    Class::Toggling,
    Class::Always,
    Class::Never,
    Class::Always,
    Class::Never,
];

/// How many packets of each class were sent.
pub(crate) type Sent = [u64; 3];

/// The tuple and the way of a numbered packet of a class.
fn chosen(plan: &Plan, class: Class, direction: Direction, number: u64) -> (Tuple, bool) {
    let tuples = &plan.tuples[class as usize][direction as usize];
    let count = tuples.len() as u64;
    let tuple = tuples[usize::try_from(number % count).expect("an index")];
    // Each tuple is now a running flow, now a new one.
    (tuple, (number / count).is_multiple_of(4))
}

/// Shown when a packet went the wrong way.
pub(crate) fn describe(plan: &Plan, class: Class, direction: Direction, number: u64) -> String {
    let (tuple, running) = chosen(plan, class, direction, number);
    format!("{class:?} {number}: {tuple:?}, running flow: {running}")
}

/// Sends in one direction until stopped.
pub(crate) fn send(world: &World, plan: &Plan, direction: Direction, stop: &AtomicBool) -> Sent {
    let peer = Wire::open(world, Place::Peer.name());
    let (host_address, peer_address) = (peer.host, peer.own);
    let (wire, to, from) = match direction {
        Direction::Ingress => (peer, host_address, peer_address),
        Direction::Egress => {
            let host = Wire::open(world, Place::Host.name());
            (host, peer_address, host_address)
        }
    };
    let mut ethernet = [to, from].concat();
    let mut random = Random::new(u64::from(direction.number()));
    let mut sent = Sent::default();
    ethernet.resize(14, 0);
    while !stop.load(Ordering::SeqCst) {
        for class in PATTERN.into_iter().cycle().take(BATCH) {
            let number = &mut sent[class as usize];
            let (tuple, running) = chosen(plan, class, direction, *number);
            let fresh = 1_024 + u16::try_from(random.below(FRESH_PORTS)).expect("a port");
            let port = if running { RUNNING_PORT } else { fresh };
            let frame = frame(&ethernet, &tuple, port, class, *number);
            // A packet that egress drops is refused to its sender; who arrived
            // says more.
            if let Err(error) = wire.send(&frame) {
                assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            }
            *number += 1;
        }
        std::thread::sleep(PAUSE);
    }
    sent
}

fn frame(ethernet: &[u8], tuple: &Tuple, port: u16, class: Class, number: u64) -> Vec<u8> {
    let host = |family| Place::Host.address(family);
    let family = if tuple.peer.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let (source, destination) = match tuple.direction {
        Direction::Ingress => (tuple.peer, host(family)),
        Direction::Egress => (host(family), tuple.peer),
    };
    let length = 8 + PAYLOAD;
    let mut frame = ethernet.to_vec();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            let total = u8::try_from(20 + length).expect("a short packet");
            let mut header = [0x45, 0, 0, total, 0, 0, 0, 0, 64, UDP, 0, 0].to_vec();
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            let short = u8::try_from(length).expect("a short packet");
            frame.extend([0x60, 0, 0, 0, 0, short, UDP, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        mixed => panic!("two families: {mixed:?}"),
    }
    frame.extend(port.to_be_bytes());
    frame.extend(tuple.port.to_be_bytes());
    frame.extend(u16::try_from(length).expect("a short packet").to_be_bytes());
    // A wrong checksum: UDP drops it in silence, raw sockets do not look.
    frame.extend([0xba, 0xad]);
    frame.extend((class as u64).to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame
}

fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}

/// What arrived behind the programs, of one family.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Numbers, by class; each may come once.
    numbers: [Vec<u64>; 3],
    pub(crate) strange: u64,
}

impl Arrived {
    fn note(&mut self, packet: &[u8]) {
        let word = |from_end: usize| {
            let at = packet.len().checked_sub(from_end)?;
            Some(u64::from_be_bytes(packet[at..at + 8].try_into().ok()?))
        };
        let class = word(PAYLOAD).and_then(|class| usize::try_from(class).ok());
        match (class.and_then(|class| self.numbers.get_mut(class)), word(8)) {
            (Some(numbers), Some(number)) => numbers.push(number),
            _ => self.strange += 1,
        }
    }

    /// All numbers of a class that arrived, over both families.
    pub(crate) fn all(both: &[Self], class: Class) -> Vec<u64> {
        let mut numbers: Vec<u64> = both
            .iter()
            .flat_map(|one| one.numbers[class as usize].iter().copied())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// A socket that gets every datagram that comes to a place.
pub(crate) fn open(world: &World, place: Place, family: Family) -> OwnedFd {
    let domain = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let opened = netns::run_in(&world.sandbox.namespace(place.name()), || {
        let raw = socket(domain, SocketType::RAW, Some(ipproto::UDP))?;
        sockopt::set_socket_recv_buffer_size_force(&raw, BUFFER_BYTES)?;
        sockopt::set_socket_timeout(&raw, sockopt::Timeout::Recv, Some(SILENCE))?;
        rustix::io::Result::Ok(raw)
    });
    opened.expect("a namespace").expect("a raw socket")
}

/// Reads until stopped and silent.
pub(crate) fn receive(socket: &OwnedFd, stop: &AtomicBool) -> Arrived {
    let mut arrived = Arrived::default();
    let mut buffer = [0_u8; 256];
    loop {
        match recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, length)) => arrived.note(&buffer[..length.min(buffer.len())]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) if stop.load(Ordering::SeqCst) => return arrived,
            Err(_) => {}
        }
    }
}

/// Packets that the raw sockets of a place had no room for.
pub(crate) fn overflows(world: &World, place: Place) -> u64 {
    let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let texts = netns::run_in(&world.sandbox.namespace(place.name()), || {
        ["raw", "raw6"].map(|name| read(name).expect("the kernel's list"))
    });
    let texts = texts.expect("a namespace");
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    let drops = lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    drops.sum()
}
