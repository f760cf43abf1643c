//! Flips as fast as the kernel lets the datapath do them, under traffic.
//!
//! The datapath is driven without an agent around it: stage, commit, again.
//! From time to time it is opened anew with programs that are loaded anew, as
//! by an agent of another version: the links and the slots get other programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use palisade::datapath::Datapath as _;
use palisade::datapath::events::EventReader;
use palisade::datapath::kernel::{KernelDatapath, KernelOptions, Unwanted, WantedDevice};
use palisade::datapath::netns;
use palisade::lab::network::{DEVICE, Family, Place};
use palisade::policy::Direction;
use palisade_abi::event::{Event, flags, kind};
use palisade_abi::reason;
use palisade_abi::table::action;

use super::packets::{self, Arrived, Sent};
use super::plan::{Class, PEER_NETWORKS, Plan, Tuple};
use crate::harness::World;

/// How often, in a storm, programs are loaded anew.
const RELOADS: u32 = 5;
const EVENTS_POLL: Duration = Duration::from_millis(10);
const FLOWS_MAX: u32 = 65_536;

/// What a storm did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Generation in force at the end.
    pub(crate) generation: u32,
    pub(crate) reloads: u32,
    /// By direction.
    pub(crate) sent: [Sent; 2],
    /// By direction; both families.
    pub(crate) arrived: [[Arrived; 2]; 2],
    pub(crate) overflows: u64,
    pub(crate) judged: Judged,
    /// Packets by reason and direction.
    pub(crate) exits: BTreeMap<(u8, Direction), u64>,
}

/// Events, each held against the generation that it names.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) allowed: u64,
    pub(crate) dropped: u64,
    /// Of them: running flows that a flip cut.
    pub(crate) cut: u64,
    /// Events whose verdict, rule or identity is not that generation's.
    pub(crate) mixed: Vec<String>,
}

impl Judged {
    fn check(&mut self, plan: &Plan, event: &Event) {
        let direction = Direction::BOTH[usize::from(event.direction)];
        let peer = match direction {
            Direction::Ingress => event.source,
            Direction::Egress => event.destination,
        };
        let tuple = Tuple {
            direction,
            peer: address(event.family, peer),
            port: event.destination_port,
        };
        let (identity, cell) = plan.verdict(event.generation, &tuple);
        let wanted = match cell.action() {
            action::ALLOW => (kind::ALLOW, 0),
            action::DENY => (kind::DROP, reason::POLICY_DENY),
            _ => (kind::DROP, reason::POLICY),
        };
        let wanted = (wanted.0, wanted.1, cell.rule(), identity);
        let seen = (event.kind, event.reason, event.rule, event.peer_identity);
        if seen != wanted {
            self.mixed.push(format!(
                "(kind, reason, rule, identity) {seen:?}, generation {} says {wanted:?}: {tuple:?}",
                event.generation
            ));
        }
        match event.kind {
            kind::ALLOW => self.allowed += 1,
            _ => self.dropped += 1,
        }
        self.cut += u64::from(event.flags & flags::REJUDGED != 0);
    }

    fn follow(plan: &Plan, mut reader: EventReader, stop: &AtomicBool) -> Self {
        let mut judged = Self::default();
        let mut events = Vec::new();
        loop {
            let last = stop.load(Ordering::SeqCst);
            while reader.read(&mut events, 4_096) > 0 {
                let ours = events.iter().filter(|event| event.proto == 17);
                ours.for_each(|event| judged.check(plan, event));
                events.clear();
            }
            if last {
                return judged;
            }
            std::thread::sleep(EVENTS_POLL);
        }
    }
}

fn address(family: u8, words: [u32; 4]) -> IpAddr {
    let bytes = words.map(u32::to_ne_bytes);
    match family {
        4 => Ipv4Addr::from(bytes[0]).into(),
        _ => {
            let mut all = [0; 16];
            all.copy_from_slice(bytes.as_flattened());
            Ipv6Addr::from(all).into()
        }
    }
}

/// The datapath, in the host's namespace; its thread has entered it.
struct Flipper<'a> {
    plan: &'a Plan,
    options: KernelOptions,
    device: WantedDevice,
    datapath: Option<KernelDatapath>,
    generation: u32,
}

impl Flipper<'_> {
    fn open(&mut self) {
        let (datapath, report) = KernelDatapath::open(&self.options).expect("the datapath opens");
        assert!(report.programs_loaded, "the programs are new ones");
        let wanted = std::slice::from_ref(&self.device);
        let attachments = datapath.attachments();
        let report = attachments.sync_devices(wanted, Unwanted::Keep);
        let report = report.expect("the device is attached");
        let changed = report.attached.len() + report.updated.len();
        assert!(changed == 1 && report.failed.is_empty(), "{report:?}");
        self.datapath = Some(datapath);
    }

    /// Ends, as an agent does, and begins again with other programs.
    fn reload(&mut self) {
        drop(self.datapath.take());
        forget_programs(&self.options.bpffs);
        self.open();
    }

    fn flip(&mut self) {
        let datapath = self.datapath.as_mut().expect("open");
        let next = self.plan.of(self.generation + 1);
        datapath.stage(next).expect("it is staged");
        self.generation = datapath.commit().expect("it is committed").generation.0;
    }
}

/// Removes the pins of the programs; links and slots hold the running ones.
fn forget_programs(bpffs: &Path) {
    for entry in std::fs::read_dir(bpffs).expect("the directory of pins") {
        let path = entry.expect("a pin").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("prog_") {
            std::fs::remove_file(&path).expect("the pin is removed");
        }
    }
}

/// The place that receives what goes in a direction.
fn receiver(direction: Direction) -> Place {
    match direction {
        Direction::Ingress => Place::Host,
        Direction::Egress => Place::Peer,
    }
}

fn network(world: &World) {
    for (network, family) in PEER_NETWORKS.into_iter().zip(Family::BOTH) {
        let version = if family == Family::V4 { "-4" } else { "-6" };
        let peer = Place::Peer.address(family);
        world.tool(
            "peer",
            &format!("ip {version} route add local {network} dev lo"),
        );
        world.tool(
            "host",
            &format!("ip {version} route add {network} via {peer}"),
        );
    }
}

fn device(world: &World) -> WantedDevice {
    let line = world.tool("host", &format!("ip -o link show dev {DEVICE}"));
    let index = line
        .split(':')
        .next()
        .and_then(|word| word.trim().parse().ok());
    WantedDevice {
        ifindex: index.expect("an index"),
        name: DEVICE.to_owned(),
        ethernet: true,
        vlans: Vec::new(),
    }
}

/// Runs `flips` flips under traffic.
pub(crate) fn run(plan: &Plan, flips: u32) -> Outcome {
    let world = World::bare();
    network(&world);
    let mut flipper = Flipper {
        plan,
        options: KernelOptions {
            bpffs: world.sandbox.path("bpf"),
            ct_entries_max: FLOWS_MAX,
            ..KernelOptions::default()
        },
        device: device(&world),
        datapath: None,
        generation: 0,
    };
    let host = world.sandbox.namespace(Place::Host.name());
    let outcome = netns::run_in(&host, || {
        flipper.open();
        flipper.flip();
        under_traffic(&world, flipper, flips)
    });
    outcome.expect("a namespace")
}

fn under_traffic(world: &World, mut flipper: Flipper<'_>, flips: u32) -> Outcome {
    let plan = flipper.plan;
    let inspector = flipper.datapath.as_ref().expect("open").inspector();
    let reader = inspector.events().expect("the ring buffer");
    let (stop_sending, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let sockets = Direction::BOTH.map(|direction| {
        Family::BOTH.map(|family| packets::open(world, receiver(direction), family))
    });
    let started = Instant::now();
    let mut reloads = 0;
    let (sent, arrived, judged) = scope(|threads| {
        let receivers = sockets.each_ref().map(|both| {
            both.each_ref()
                .map(|socket| threads.spawn(|| packets::receive(socket, &stop)))
        });
        let events = threads.spawn(|| Judged::follow(plan, reader, &stop));
        let senders = Direction::BOTH.map(|direction| {
            let stop = &stop_sending;
            threads.spawn(move || packets::send(world, plan, direction, stop))
        });
        for flip in 1..=flips {
            if flip % (flips / RELOADS).max(1) == 0 {
                flipper.reload();
                reloads += 1;
            }
            flipper.flip();
        }
        stop_sending.store(true, Ordering::SeqCst);
        let sent = senders.map(|sender| sender.join().expect("a sender"));
        stop.store(true, Ordering::SeqCst);
        let arrived = receivers.map(|both| both.map(|one| one.join().expect("a receiver")));
        (sent, arrived, events.join().expect("the reader"))
    });
    let counters = inspector.counters().expect("the counters").into_iter();
    Outcome {
        seconds: started.elapsed().as_secs_f64(),
        generation: flipper.generation,
        reloads,
        sent,
        arrived,
        overflows: [Place::Host, Place::Peer]
            .map(|place| packets::overflows(world, place))
            .iter()
            .sum(),
        judged,
        exits: counters
            .map(|it| ((it.reason, it.direction), it.packets))
            .collect(),
    }
}

impl Outcome {
    /// Everything that is not as it must be.
    pub(crate) fn faults(&self, plan: &Plan, flips: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is_one: bool, text: String| faults.extend(is_one.then_some(text));
        // The first one came before the traffic.
        let wanted = flips + 1;
        fault(
            self.generation != wanted,
            format!("generation {}, not {wanted}", self.generation),
        );
        fault(
            self.overflows > 0,
            format!("the test's own sockets lost {} packets", self.overflows),
        );
        for (direction, arrived) in Direction::BOTH.into_iter().zip(&self.arrived) {
            let sent = self.sent[direction as usize];
            let name = direction.as_str();
            let always = Arrived::all(arrived, Class::Always);
            let lost = missing(&always, sent[Class::Always as usize]);
            let shown = |numbers: &[u64], class| -> Vec<String> {
                let first = numbers.iter().take(5);
                let shown = first.map(|number| packets::describe(plan, class, direction, *number));
                shown.collect()
            };
            fault(
                !lost.is_empty(),
                format!(
                    "{name}: {} lost: {:?}",
                    lost.len(),
                    shown(&lost, Class::Always)
                ),
            );
            let never = Arrived::all(arrived, Class::Never);
            fault(
                !never.is_empty(),
                format!(
                    "{name}: {} passed: {:?}",
                    never.len(),
                    shown(&never, Class::Never)
                ),
            );
            let strange: u64 = arrived.iter().map(|one| one.strange).sum();
            fault(
                strange > 0,
                format!("{name}: {strange} datagrams of others"),
            );
        }
        fault(
            !self.judged.mixed.is_empty(),
            format!(
                "{} mixed verdicts: {:#?}",
                self.judged.mixed.len(),
                &self.judged.mixed[..self.judged.mixed.len().min(5)]
            ),
        );
        const EXPECTED: [u8; 2] = [reason::POLICY, reason::POLICY_DENY];
        for ((reason, direction), packets) in &self.exits {
            let is_drop = *reason >= reason::DROP_MIN && !EXPECTED.contains(reason);
            fault(
                is_drop || *reason == reason::MISSED_TAIL_CALL_PASSED,
                format!(
                    "{packets} packets left by {} ({})",
                    reason::label(*reason),
                    direction.as_str()
                ),
            );
        }
        faults
    }
}

fn missing(sorted: &[u64], sent: u64) -> Vec<u64> {
    let mut seen = sorted.iter().peekable();
    (0..sent)
        .filter(|number| seen.next_if(|it| *it == number).is_none())
        .collect()
}
