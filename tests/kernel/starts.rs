//! The start on a real kernel, with the production workers: a matrix over what
//! the store holds, what is left of the pins, and the boot; and a death between
//! any two writes to the disk. Before the sources have spoken nothing that
//! enforces may change; afterwards their policy is in force, and what was right
//! already is not written again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use palisade::clock::{Clock, ManualClock};
use palisade::datapath::fake::FakeKernel;
use palisade::datapath::kernel::{
    CommitState, Inspector, KernelDatapath, Unwanted, WantedDevice, detach,
};
use palisade::datapath::{Datapath, DatapathSettings};
use palisade::endpoint::{HOST_ENDPOINT, NodeFacts};
use palisade::events::{
    Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, Revision, SourceName,
};
use palisade::policy::{Direction, PolicyOptions};
use palisade::queues::{ChangeOutcome, Pipeline, PipelineOptions, Workers};
use palisade_abi::ABI_VERSION;
use palisade_abi::table::class;
use palisade_state::{MemoryDisk, Store};
use serde_json::json;

use super::guard::{World, attachment_pin, in_world, pins};

/// Policies by the port that each opens.
type Files = &'static [u16];
const NONE: Files = &[];
const ONE: Files = &[22];
const TWO: Files = &[22, 80];

/// What the store holds, seen from the kernel, which enforces [`ONE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Record {
    Absent,
    /// From before the policy.
    Older,
    Present,
    /// With a policy that the kernel never got.
    Newer,
    /// As present, but the generation that it names is another one of the same
    /// numbers than that in the kernel, which an agent without history made.
    Stale,
}

/// What is left of the pins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    All,
    /// As after a reboot.
    Nothing,
    /// All but the agent's record of the slots.
    WithoutRecord,
    /// All but two maps that programs use.
    WithoutMaps,
    /// All but a program of a slot.
    WithoutProgram,
    /// All but a link, and so with one hook less.
    WithoutLink,
}

/// What a start did to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Enforces what it found, under the same generation; writes.
    Adopted(usize),
    /// Enforces another generation in the place of what it found.
    Finished,
    /// Enforces where nothing was.
    Rebuilt,
    /// Enforces nothing.
    Waits,
}

fn key(port: u16) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: format!("port-{port}"),
    }
}

fn policy(port: u16) -> RepositoryChange {
    let port_text = port.to_string();
    RepositoryChange::Upsert(Resource {
        key: key(port),
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": key(port).name},
            "spec": {
                "nodeSelector": {},
                "ingress": [{"toPorts": [{"ports": [{"port": port_text, "protocol": "TCP"}]}]}],
            },
        })
        .into(),
    })
}

/// One life of an agent, which is stepped.
struct Life {
    pipeline: Arc<Pipeline>,
    workers: Workers,
    clock: Arc<ManualClock>,
}

impl Life {
    fn start(datapath: Box<dyn Datapath>, disk: &MemoryDisk, boot_id: &str) -> Self {
        let options = PipelineOptions {
            sources: BTreeSet::from([SourceName::Manifests]),
            policy: PolicyOptions {
                node_name: "here".to_owned(),
                ..PolicyOptions::default()
            },
            settings: DatapathSettings::default(),
            build_permits: 2,
            facts: NodeFacts::default(),
            boot_id: boot_id.to_owned(),
        };
        let clock = Arc::new(ManualClock::default());
        let store = Store::on(disk.clone()).expect("the disk opens");
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let pipeline = Pipeline::start(options, datapath, store, shared);
        let workers = pipeline.take_workers().expect("not yet taken");
        let mut life = Self {
            pipeline,
            workers,
            clock,
        };
        life.settle();
        life
    }

    /// Steps until nothing is left to do now.
    fn settle(&mut self) {
        self.workers.settle(self.clock.as_ref());
    }

    /// The source tells all its files; whether the last one was taken.
    fn tell(&mut self, files: Files) -> bool {
        let mut taken = true;
        for port in files {
            let submission = self.pipeline.submit(policy(*port)).expect("a queue");
            self.settle();
            let outcome = submission.wait(Duration::ZERO);
            taken = matches!(
                outcome,
                Ok(ChangeOutcome::Applied { .. } | ChangeOutcome::Unchanged { .. })
            );
        }
        let owned = files.iter().map(|port| key(*port)).collect();
        // A disk that died refuses this too.
        let _told = self.pipeline.source_in_sync(SourceName::Manifests, &owned);
        self.settle();
        taken
    }

    /// Entries that the commits of this life wrote, by the history.
    fn writes(&self) -> usize {
        let entries = self.pipeline.history();
        let commits = entries.iter().filter(|entry| entry.event == "commit");
        let count = |message: &str| {
            let (before, _) = message.rsplit_once(" writes")?;
            before.rsplit(' ').next()?.parse::<usize>().ok()
        };
        commits.filter_map(|entry| count(&entry.message)).sum()
    }
}

fn disk(record: Record) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let files = match record {
        Record::Absent => return disk,
        Record::Older => NONE,
        Record::Present | Record::Stale => ONE,
        Record::Newer => TWO,
    };
    let kernel = FakeKernel::new();
    let mut life = Life::start(Box::new(kernel.datapath()), &disk, "boot");
    life.tell(&files[..files.len().min(1)]);
    if files.len() > 1 {
        life.tell(files);
    }
    disk.crash(usize::MAX);
    disk
}

/// A life on the real kernel.
fn live(world: &World, device: &WantedDevice, disk: &MemoryDisk, boot: &str) -> (Life, Inspector) {
    let (datapath, _) = KernelDatapath::open(&world.options).expect("open");
    let inspector = datapath.inspector();
    let synced = datapath
        .attachments()
        .sync_devices(std::slice::from_ref(device), Unwanted::Keep);
    assert_eq!(synced.expect("sync").failed, []);
    (Life::start(Box::new(datapath), disk, boot), inspector)
}

/// Ports of 22 and 80 that anybody may reach; None where nothing is enforced.
fn open_ports(inspector: &Inspector) -> Option<Vec<u16>> {
    if !inspector.commit_state().enforced[0] {
        return None;
    }
    let table = inspector.table(Direction::Ingress).expect("a table");
    let is_open = |port: &u16| (0..16).any(|index| table.lookup(index, class::TCP, *port).passes());
    Some([22, 80].into_iter().filter(is_open).collect())
}

fn remove_pins(world: &World, left: Left) {
    let gone: &[&str] = match left {
        Left::All => return,
        Left::Nothing => {
            detach(world.dir()).expect("detach");
            return;
        }
        Left::WithoutRecord => &["pal_meta"],
        Left::WithoutMaps => &["pal_blocks", "pal_commit"],
        Left::WithoutProgram => &["prog_pal_in4"],
        Left::WithoutLink => &[attachment_pin()],
    };
    for name in gone {
        let found = pins(world.dir())
            .into_iter()
            .find(|it| it.starts_with(name));
        let pin = found.expect(name);
        assert!(pin.ends_with(&format!("_v{ABI_VERSION}")), "{pin}");
        std::fs::remove_file(world.dir().join(pin)).expect(name);
    }
}

/// Puts the record of what the kernel enforces from one disk onto another.
fn name_generation_of(from: &MemoryDisk, to: &MemoryDisk) {
    let of_kernel = Store::on(from.clone()).expect("opens");
    let store = Store::on(to.clone()).expect("opens");
    let record = of_kernel.generations().expect("reads");
    store.put_generations(&record).expect("puts");
    store.flush().expect("flushes");
}

fn outcome(before: CommitState, life: &Life, inspector: &Inspector) -> Outcome {
    let now = inspector.commit_state();
    match (before.generation.0, now.generation.0) {
        (_, 0) => Outcome::Waits,
        (0, _) => Outcome::Rebuilt,
        (old, new) if old == new => Outcome::Adopted(life.writes()),
        _ => Outcome::Finished,
    }
}

/// What must become of the kernel before the sources speak, and after.
fn expected(record: Record, left: Left) -> (Outcome, Outcome) {
    let kept = Outcome::Adopted(0);
    match (left, record) {
        (Left::Nothing, Record::Absent) => (Outcome::Waits, Outcome::Rebuilt),
        (Left::Nothing, _) => (Outcome::Rebuilt, Outcome::Rebuilt),
        (Left::WithoutProgram, _) | (_, Record::Newer) => (kept, Outcome::Finished),
        (_, _) => (kept, kept),
    }
}

fn row(world: &World, device: &WantedDevice, record: Record, left: Left, boot: &str) {
    let place = format!("store {record:?}, pins {left:?}, boot {boot}");
    let first = MemoryDisk::new();
    let (life, inspector) = {
        let (mut life, inspector) = live(world, device, &first, "boot");
        life.tell(ONE);
        (life, inspector)
    };
    assert_eq!(open_ports(&inspector), Some(vec![22]), "{place}");
    let found = match left {
        Left::Nothing => CommitState {
            generation: palisade::datapath::GenerationNumber(0),
            ..inspector.commit_state()
        },
        _ => inspector.commit_state(),
    };
    drop((life, inspector));
    remove_pins(world, left);

    let disk = disk(record);
    if record == Record::Present {
        name_generation_of(&first, &disk);
    }
    let (mut life, inspector) = live(world, device, &disk, boot);
    let told = life.pipeline.endpoint(HOST_ENDPOINT).expect("the host");
    let adopts = (record, left, boot) == (Record::Present, Left::All, "boot");
    if adopts || record == Record::Stale {
        let told = told.revision.realized != Revision(0);
        assert_eq!(told, adopts, "{place}: told as realized");
    }
    let files = if record == Record::Newer { TWO } else { ONE };
    let (first, last) = expected(record, left);
    assert_eq!(outcome(found, &life, &inspector), first, "{place}: at once");
    let at_once = match (left, record) {
        (Left::Nothing, Record::Absent | Record::Older) => None,
        (Left::Nothing, Record::Newer) => Some(TWO.to_vec()),
        _ => Some(ONE.to_vec()),
    };
    assert_eq!(open_ports(&inspector), at_once, "{place}: at once");
    life.tell(files);
    assert_eq!(
        outcome(found, &life, &inspector),
        last,
        "{place}: in the end"
    );
    assert_eq!(open_ports(&inspector), Some(files.to_vec()), "{place}");
    assert_eq!(inspector.verify().expect("verify"), [""; 0], "{place}");
    drop((life, inspector));
    detach(world.dir()).expect("detach");
}

#[test]
fn whatever_is_left_of_store_and_pins_the_start_makes_it_right() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        let records = [
            Record::Absent,
            Record::Older,
            Record::Present,
            Record::Newer,
        ];
        for record in records {
            row(world, &device, record, Left::All, "boot");
            row(world, &device, record, Left::Nothing, "another boot");
        }
        // The journal is of this boot and the pins are gone, or the other way about.
        row(world, &device, Record::Present, Left::Nothing, "boot");
        row(world, &device, Record::Present, Left::All, "another boot");
        for left in [
            Left::WithoutRecord,
            Left::WithoutMaps,
            Left::WithoutProgram,
            Left::WithoutLink,
        ] {
            row(world, &device, Record::Present, left, "boot");
        }
        row(world, &device, Record::Stale, Left::All, "boot");
        row(world, &device, Record::Absent, Left::WithoutRecord, "boot");
        row(world, &device, Record::Newer, Left::WithoutMaps, "boot");
    });
}

/// Dies after each write or flush of a change from one policy to two: the kernel
/// shows one whole policy, and the next start goes on from it.
#[test]
fn a_death_between_any_two_writes_leaves_one_whole_policy() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        let disk = MemoryDisk::new();
        let (mut staged, mut died) = (0, 0);
        for kept in [0, usize::MAX] {
            for writes in 0..64 {
                let (mut life, inspector) = live(world, &device, &disk, "boot");
                life.tell(ONE);
                assert_eq!(open_ports(&inspector), Some(vec![22]));
                disk.die_after(writes);
                // What is answered after the death reaches nobody.
                let _submission = life.pipeline.submit(policy(80)).expect("a queue");
                life.settle();
                let is_dead = disk.is_dead();
                drop((life, inspector));
                disk.crash(kept);
                died += u32::from(is_dead);

                let (mut life, inspector) = live(world, &device, &disk, "boot");
                let place = format!("dead after {writes} writes, {kept} kept");
                let restored = life.pipeline.repository().policies.len();
                assert!(is_dead || restored == 2, "{place}: {restored}");
                let shown = open_ports(&inspector).expect(&place);
                assert!(shown == ONE || shown == TWO, "{place}: {shown:?}");
                let told = life.pipeline.history().into_iter();
                let mut told = told.map(|entry| entry.message);
                staged += u32::from(told.any(|message| message.starts_with("staged for")));
                life.tell(TWO);
                assert_eq!(open_ports(&inspector), Some(TWO.to_vec()), "{place}");
                assert_eq!(inspector.verify().expect("verify"), [""; 0], "{place}");
                if !is_dead {
                    break;
                }
            }
        }
        assert!(died > 8, "{died} deaths are too few to tell");
        assert!(staged > 0, "no life ended between staged and realized");
    });
}
