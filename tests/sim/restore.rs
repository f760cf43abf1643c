//! What a start does with what it finds: a table over the records in the store,
//! the tables in the kernel and the boot, and every death between two writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade::clock::ManualClock;
use palisade::datapath::fake::{FakeKernel, KernelCall, KernelFate};
use palisade::endpoint::Progress;
use palisade::events::{RepositoryChange, ResourceKey, ResourceKind, Revision, SourceName};
use palisade::policy::{Direction, Packet};
use palisade::queues::ChangeOutcome;
use palisade_state::{DiskFate, MemoryDisk, Store};
use parking_lot::Mutex;
use serde_json::json;

use crate::agent::{Agent, Config, WORKERS};
use crate::objects::{self, Sample};
use crate::verdicts::{Fate, of_kernel};

/// Policies: A came first, then B, then C. Each allows a port of its own.
const A: &str = "a";
const B: &str = "b";
const C: &str = "c";
const PORTS: [(&str, u16); 3] = [(A, 1), (B, 2), (C, 3)];
/// The port of a policy that an operator imports.
const IMPORTED: u16 = 7;

/// A machine with its disk, between two lives of the agent.
#[derive(Clone)]
struct Machine {
    disk: MemoryDisk,
    kernel: FakeKernel,
    clock: Arc<ManualClock>,
    config: Config,
}

impl Machine {
    fn new() -> Self {
        let config = Config::new();
        Self {
            disk: MemoryDisk::new(),
            kernel: FakeKernel::new(),
            clock: Arc::default(),
            config: Config {
                kubernetes: false,
                ..config
            },
        }
    }

    fn start(&self) -> Agent {
        let store = Store::on(self.disk.clone()).expect("opens");
        Agent::start(&self.config, &self.kernel, store, &self.clock)
    }

    /// Until no worker has anything to do; failed builds are not waited for.
    fn drive(&self, agent: &mut Agent) {
        agent.workers.settle(self.clock.as_ref());
    }

    /// The source tells these policies, that they are all, and rests.
    fn tell_all(&self, agent: &mut Agent, names: &[&str]) {
        for name in names {
            tell(agent, name);
        }
        let owned: BTreeSet<ResourceKey> = names.iter().map(|name| key(name)).collect();
        let said = agent.pipeline.source_in_sync(SourceName::Manifests, &owned);
        assert_eq!(said, Ok(()));
        for _ in 0..3 {
            self.drive(agent);
            self.clock.advance(std::time::Duration::from_secs(130));
        }
    }

    fn is_open(&self, port: u16) -> bool {
        let sample = Sample {
            direction: Direction::Ingress,
            peer: "192.0.2.1".parse().expect("an address"),
            packet: Packet::Port { proto: 6, port },
        };
        let enforced = self.kernel.enforced();
        enforced.is_none_or(|(_, generation)| of_kernel(&generation, &sample) == Fate::Passes)
    }

    /// What the kernel lets in: the newest policy whose port is open.
    fn enforced(&self) -> Option<&'static str> {
        if self.is_open(9) {
            assert!(PORTS.iter().all(|(_, port)| self.is_open(*port)));
            return None;
        }
        let open = PORTS.iter().filter(|(_, port)| self.is_open(*port));
        let open: Vec<&str> = open.map(|(name, _)| *name).collect();
        let all = PORTS.map(|(name, _)| name);
        assert!(all.starts_with(&open), "{open:?} is a mix");
        open.last().copied()
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: name.to_owned(),
    }
}

fn tell(agent: &mut Agent, name: &str) {
    let (_, port) = PORTS.iter().find(|(known, _)| *known == name).expect("one");
    tell_from(agent, SourceName::Manifests, name, *port);
}

fn tell_from(agent: &mut Agent, source: SourceName, name: &str, port: u16) {
    let ports = json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
    let body = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {}, "ingress": [{"toPorts": ports}]},
    });
    let resource = objects::resource(&key(name), &body, source);
    let change = RepositoryChange::Upsert(resource);
    let submission = agent.pipeline.submit(change).expect("taken");
    agent.submissions.push(submission);
}

/// What the store holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Records {
    Absent,
    /// The agent ended when A was realized.
    RealizedA,
    /// It ended between the record that B is staged and that B is realized.
    StagedB,
    RealizedB,
    /// C is in the journal and was not staged.
    AcceptedC,
    StagedC,
    /// As `AcceptedC`, and the records name C by its numbers: an agent without
    /// history has meanwhile made a generation of the same ones.
    StaleC,
}

/// What the kernel holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pins {
    Absent,
    B,
    C,
}

/// What the start does, before any source has spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    /// Nothing is known: it waits for the sources.
    Waits,
    /// The kernel enforces something that the records do not name: it stays, and
    /// is not told as realized, until every source is in sync.
    Keeps,
    /// What the kernel enforces is what was realized last: it is told at once.
    Adopts,
    /// What was staged has been committed: the records learn it.
    Finishes,
    /// What was staged has not been committed: it is dropped, and made anew at
    /// once from the journal.
    Drops,
    /// What the kernel enforces is what was realized last, and the journal is
    /// further: its end is enforced at once.
    CatchesUp,
    /// Nothing enforces: the newest state of the store does, at once.
    Rebuilds(&'static str),
}

const TABLE: [(Records, Pins, Does); 21] = [
    (Records::Absent, Pins::Absent, Does::Waits),
    (Records::Absent, Pins::B, Does::Keeps),
    (Records::Absent, Pins::C, Does::Keeps),
    (Records::RealizedA, Pins::Absent, Does::Rebuilds(A)),
    (Records::RealizedA, Pins::B, Does::Keeps),
    (Records::RealizedA, Pins::C, Does::Keeps),
    (Records::StagedB, Pins::Absent, Does::Rebuilds(B)),
    (Records::StagedB, Pins::B, Does::Finishes),
    (Records::StagedB, Pins::C, Does::Keeps),
    (Records::RealizedB, Pins::Absent, Does::Rebuilds(B)),
    (Records::RealizedB, Pins::B, Does::Adopts),
    (Records::RealizedB, Pins::C, Does::Keeps),
    (Records::AcceptedC, Pins::Absent, Does::Rebuilds(C)),
    (Records::AcceptedC, Pins::B, Does::CatchesUp),
    (Records::AcceptedC, Pins::C, Does::Keeps),
    (Records::StagedC, Pins::Absent, Does::Rebuilds(C)),
    (Records::StagedC, Pins::B, Does::Drops),
    (Records::StagedC, Pins::C, Does::Finishes),
    (Records::StaleC, Pins::Absent, Does::Rebuilds(C)),
    (Records::StaleC, Pins::B, Does::Keeps),
    (Records::StaleC, Pins::C, Does::Keeps),
];

/// Disks and kernels as an agent left them that was told A, B and C.
struct Lives {
    disks: Vec<(Records, MemoryDisk)>,
    b: FakeKernel,
    c: FakeKernel,
}

impl Lives {
    fn live() -> Self {
        let machine = Machine::new();
        let mut disks = vec![(Records::Absent, MemoryDisk::new())];
        // Between the two records the kernel is asked to commit.
        let staged: Arc<Mutex<Option<MemoryDisk>>> = Arc::default();
        let (disk, at_commit) = (machine.disk.clone(), Arc::clone(&staged));
        machine.kernel.direct(move |call| {
            if call == KernelCall::Commit {
                *at_commit.lock() = Some(disk.duplicate());
            }
            KernelFate::Works
        });
        let mut agent = machine.start();
        machine.tell_all(&mut agent, &[A]);
        disks.push((Records::RealizedA, machine.disk.duplicate()));
        tell(&mut agent, B);
        machine.drive(&mut agent);
        let at_commit = staged.lock().take().expect("committed");
        disks.push((Records::StagedB, at_commit));
        disks.push((Records::RealizedB, machine.disk.duplicate()));
        let b = machine.kernel.duplicate();
        tell(&mut agent, C);
        // The repository has it on the disk; nobody has built it yet.
        assert_eq!(agent.work(0, &machine.clock), Progress::Busy);
        disks.push((Records::AcceptedC, machine.disk.duplicate()));
        let stale = machine.disk.duplicate();
        machine.drive(&mut agent);
        let at_commit = staged.lock().take().expect("committed");
        disks.push((Records::StagedC, at_commit));
        let c = machine.kernel.duplicate();
        name_another_of_the_same_numbers(&stale, &machine.disk);
        disks.push((Records::StaleC, stale));
        Self { disks, b, c }
    }

    /// The machine of a row; the lives above were of boot 1.
    fn machine(&self, records: Records, pins: Pins, boot: u32) -> Machine {
        let machine = Machine::new();
        let found = self.disks.iter().find(|(known, _)| *known == records);
        Machine {
            disk: found.expect("one of them").1.duplicate(),
            kernel: match pins {
                Pins::Absent => FakeKernel::new(),
                Pins::B => self.b.duplicate(),
                Pins::C => self.c.duplicate(),
            },
            config: Config {
                boot,
                ..machine.config
            },
            ..machine
        }
    }
}

/// Puts the record of the last generation of `newest` into `stale`, but for what
/// tells it from another one of its numbers.
fn name_another_of_the_same_numbers(stale: &MemoryDisk, newest: &MemoryDisk) {
    let of_newest = Store::on(newest.duplicate()).expect("opens");
    let mut record = of_newest.generations().expect("reads");
    let realized = record.realized.as_mut().expect("C is realized");
    let nonce = realized.nonce.as_mut().expect("this agent notes it");
    *nonce = nonce.wrapping_add(1);
    record.staged = record.realized;
    let store = Store::on(stale.clone()).expect("opens");
    store.put_generations(&record).expect("puts");
    store.flush().expect("flushes");
}

#[test]
fn every_row_of_the_restore_table() {
    let lives = Lives::live();
    for (records, pins, does) in TABLE {
        println!("{records:?}, pins {pins:?}, same boot: {does:?}");
        row(&lives.machine(records, pins, 1), pins, does);
        // Records of another boot name generations that count from 1 again; the
        // kernel of another boot is empty, but for what an agent without history
        // has put there.
        let does = match does {
            Does::Adopts | Does::Finishes | Does::Drops | Does::CatchesUp => Does::Keeps,
            Does::Waits | Does::Keeps | Does::Rebuilds(_) => does,
        };
        println!("{records:?}, pins {pins:?}, other boot: {does:?}");
        row(&lives.machine(records, pins, 2), pins, does);
    }
}

fn row(machine: &Machine, pins: Pins, does: Does) {
    let found = machine.kernel.realized();
    let held = match pins {
        Pins::Absent => None,
        Pins::B => Some(B),
        Pins::C => Some(C),
    };
    assert_eq!(machine.enforced(), held);
    let mut agent = machine.start();
    let told = |agent: &Agent| agent.workers.endpoints[0].endpoint().revisions().realized;
    let in_kernel = found.map_or(Revision(0), |realized| realized.revision);
    match does {
        Does::Waits | Does::Keeps | Does::Rebuilds(_) => assert_eq!(told(&agent), Revision(0)),
        Does::Adopts | Does::Finishes | Does::Drops | Does::CatchesUp => {
            assert_eq!(told(&agent), in_kernel);
        }
    }
    let history = agent.pipeline.history();
    let says = |words: &str| history.iter().any(|entry| entry.message.contains(words));
    assert_eq!(says("it had been committed"), does == Does::Finishes);
    let is_dropped = matches!(does, Does::Drops | Does::Rebuilds(_) | Does::Keeps);
    assert!(is_dropped || !says("is dropped"));
    assert!(does != Does::Drops || says("is dropped"));

    let catches_up = matches!(does, Does::Drops | Does::CatchesUp);
    assert_eq!(
        agent.pipeline.is_about_to_enforce(),
        catches_up || matches!(does, Does::Rebuilds(_)),
        "what the service manager waits for"
    );

    // No source has spoken: what the journal holds is enforced, and the kernel is
    // not touched where it has that, or something that nobody knows.
    machine.drive(&mut agent);
    match does {
        Does::Waits => assert_eq!(machine.enforced(), None),
        Does::Rebuilds(newest) => assert_eq!(machine.enforced(), Some(newest)),
        Does::Drops | Does::CatchesUp => {
            let newest = agent.pipeline.repository().revision;
            assert_eq!(machine.enforced(), Some(C));
            assert_eq!(told(&agent), newest);
        }
        Does::Keeps | Does::Adopts | Does::Finishes => {
            assert_eq!(machine.kernel.realized(), found);
            assert_eq!(machine.enforced(), held);
            assert_eq!(machine.kernel.writes(), 0);
        }
    }
    assert!(!agent.pipeline.is_about_to_enforce());
    import_and_delete(machine, &mut agent, does);
    let waits = agent.pipeline.status().waiting_for;
    assert_eq!(waits, [SourceName::Manifests], "nobody has spoken");
    let before = machine.kernel.realized();
    let enforced = machine.enforced();
    machine.tell_all(&mut agent, &[A, B, C]);
    assert_eq!(machine.enforced(), Some(C));
    let realized = machine.kernel.realized().expect("realized");
    assert_eq!(realized.revision, agent.pipeline.repository().revision);
    assert!(before.is_none_or(|before| before.revision <= realized.revision));
    if enforced == Some(C) && does != Does::Keeps {
        let generation = before.map(|before| before.generation);
        assert_eq!(generation, Some(realized.generation), "nothing to write");
    }
    // The records name what the kernel holds: the next start adopts it.
    let next = machine.start();
    assert_eq!(told(&next), realized.revision);
}

/// What an operator imports and deletes while no source speaks is enforced, but
/// where the kernel holds what nobody knows: what is not known to be in it would
/// be taken out.
fn import_and_delete(machine: &Machine, agent: &mut Agent, does: Does) {
    let found = machine.kernel.realized();
    tell_from(agent, SourceName::Api, "imported", IMPORTED);
    machine.drive(agent);
    let newest = agent.pipeline.repository().revision;
    let is_enforced = || machine.kernel.realized().map(|it| it.revision) == Some(newest);
    if does == Does::Keeps {
        assert_eq!(machine.kernel.realized(), found);
    } else {
        assert!(is_enforced() && machine.is_open(IMPORTED));
    }
    let deletion = RepositoryChange::Delete {
        key: key("imported"),
        source: SourceName::Api,
    };
    let deletion = agent.pipeline.submit(deletion).expect("taken");
    machine.drive(agent);
    let outcome = deletion.try_outcome();
    let Some(ChangeOutcome::Applied { revision, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    let realized = machine.kernel.realized();
    if does == Does::Keeps {
        assert_eq!(realized, found);
    } else {
        assert_eq!(realized.map(|it| it.revision), Some(revision));
        assert_eq!(machine.is_open(IMPORTED), does == Does::Waits);
    }
}

/// Where a life ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// At the n-th call of the disk.
    Disk(u64, DiskFate),
    /// At the n-th call of the kernel.
    Kernel(u64, KernelFate),
}

/// C is told to an agent that enforces B, which dies somewhere on the way; true
/// if it died.
fn die(machine: &Machine, death: Death) -> (bool, bool) {
    let mut agent = machine.start();
    machine.tell_all(&mut agent, &[A, B]);
    let dead = Arc::new(Mutex::new((0_u64, 0_u64, false)));
    let of_disk = Arc::clone(&dead);
    machine.disk.direct(move |_| {
        let mut state = of_disk.lock();
        state.0 += 1;
        match death {
            _ if state.2 => DiskFate::Fails,
            Death::Disk(n, fate) if state.0 == n => {
                state.2 = true;
                fate
            }
            Death::Disk(..) | Death::Kernel(..) => DiskFate::Works,
        }
    });
    let of_kernel = Arc::clone(&dead);
    machine.kernel.direct(move |_| {
        let mut state = of_kernel.lock();
        state.1 += 1;
        match death {
            _ if state.2 => KernelFate::Fails,
            Death::Kernel(n, fate) if state.1 == n => {
                state.2 = true;
                fate
            }
            Death::Disk(..) | Death::Kernel(..) => KernelFate::Works,
        }
    });
    agent.submissions.clear();
    tell(&mut agent, C);
    let mut acknowledged = false;
    'life: loop {
        let mut busy = false;
        for worker in 0..WORKERS {
            busy |= agent.work(worker, &machine.clock) == Progress::Busy;
            if dead.lock().2 {
                break 'life;
            }
            let outcome = agent.submissions[0].try_outcome();
            acknowledged |= matches!(outcome, Some(ChangeOutcome::Applied { .. }));
        }
        if !busy {
            break;
        }
    }
    let is_dead = dead.lock().2;
    machine.disk.direct(|_| DiskFate::Works);
    machine.kernel.direct(|_| KernelFate::Works);
    (is_dead, acknowledged)
}

/// After a death: the kernel whole, nothing acknowledged lost, and C in the end.
fn rise(machine: &Machine, acknowledged: bool, reboot: bool) {
    let enforced = machine.enforced();
    assert!(matches!(enforced, Some(B | C)), "{enforced:?}");
    let mut machine = machine.clone();
    if reboot {
        machine.kernel.reboot();
        machine.config.boot += 1;
    }
    let mut agent = machine.start();
    let has_c = agent.pipeline.repository().policies.contains_key(&key(C));
    assert!(has_c || !acknowledged, "an acknowledged change is lost");
    assert!(
        has_c || enforced == Some(B),
        "enforced, and not in the journal"
    );
    machine.drive(&mut agent);
    let journaled = Some(if has_c { C } else { B });
    assert_eq!(machine.enforced(), journaled, "before any source speaks");
    machine.tell_all(&mut agent, &[A, B, C]);
    assert_eq!(machine.enforced(), Some(C));
}

/// Dies at each call in turn until a life has none left to die at; how many.
fn die_at_each(death: impl Fn(u64) -> Death) -> u64 {
    for n in 1.. {
        for reboot in [false, true] {
            for keeps_all in [false, true] {
                let machine = Machine::new();
                let (is_dead, acknowledged) = die(&machine, death(n));
                if !is_dead {
                    return n - 1;
                }
                let unflushed = machine.disk.unflushed();
                machine.disk.crash(if keeps_all { unflushed } else { 0 });
                rise(&machine, acknowledged, reboot);
            }
        }
    }
    0
}

#[test]
fn death_between_any_two_writes_leaves_a_whole() {
    let before = die_at_each(|n| Death::Disk(n, DiskFate::Fails));
    let after = die_at_each(|n| Death::Disk(n, DiskFate::FailsLate));
    let mut in_kernel = Vec::new();
    for fate in [
        KernelFate::Fails,
        KernelFate::FailsHalfway,
        KernelFate::FailsLate,
    ] {
        in_kernel.push(die_at_each(|n| Death::Kernel(n, fate)));
    }
    println!("{before} and {after} places at the disk, {in_kernel:?} at the kernel");
    // The event, its flush, the line of the history, staged, realized, flushes.
    assert!(before >= 8 && after >= 8, "{before}, {after}");
    // Compare, stage, commit.
    assert_eq!(in_kernel, [3, 3, 3]);
}
