//! Runs programs: the shipped ones of a world, directly or behind a wrapper,
//! and those of the floors.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use palisade_abi::conntrack::{CtKey4, CtKey6};
use palisade_abi::flows::{self, ONE_SIDED, Tag, WAYS};

use crate::frames::{Family, Frame, Way};
use crate::layout::{self, Tuple, Walk, walk};

/// Floors and wrappers, as committed.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf-prog/floors.bpf.o");
/// The shipped programs; the datapath embeds the same file.
pub(crate) static SHIPPED: &[u8] = aya::include_bytes_aligned!("../../bpf-prog/palisade.bpf.o");

/// Maps of the floors' object that are big, unless somebody needs them.
const BIG: [&str; 5] = ["b_lru4", "b_lru6", "b_new4", "b_new6", "b_hash4"];

/// `TCX_NEXT`, and what the programs of the floors' object return on success.
pub(crate) const NEXT: u32 = u32::MAX;

type Key4 = [u8; size_of::<CtKey4>()];
type Key6 = [u8; size_of::<CtKey6>()];
/// As in the floors.
type Entry = [u64; 8];

/// Tuples in the array, from `base` on; their number is a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Set {
    pub(crate) base: u32,
    pub(crate) count: u32,
}

impl Set {
    /// The first tuple, again and again.
    pub(crate) fn same(self) -> Self {
        Self { count: 1, ..self }
    }
}

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) frame: &'a Frame,
    /// Another tuple each time, or the frame as it is.
    pub(crate) set: Option<Set>,
    pub(crate) repeat: u32,
}

/// The floors' object, with the tuples of one world.
pub(crate) struct Bench {
    object: Ebpf,
    walk: Array<MapData, Walk>,
    tuples: Array<MapData, Tuple>,
    calls: ProgramArray<MapData>,
    filled: u32,
}

impl Bench {
    /// With room for `tuples`; with the big maps only where `floors` are run.
    pub(crate) fn load(tuples: u32, floors: bool) -> Self {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("b_tuples", tuples);
        if !floors {
            for name in BIG {
                loader.map_max_entries(name, 1);
            }
        }
        let mut object = loader.load(OBJECT).expect("the floors' object");
        let mut take = |name: &str| object.take_map(name).expect("a map of the floors");
        let walk = Array::try_from(take("b_walk")).expect("an array");
        let tuples = Array::try_from(take("b_tuples")).expect("an array");
        let calls = ProgramArray::try_from(take("b_calls")).expect("a program array");
        let mut bench = Self {
            object,
            walk,
            tuples,
            calls,
            filled: 0,
        };
        bench.put(layout::calls::NOTHING, "f_empty");
        bench
    }

    /// Puts a program of the object itself behind an entry of the array.
    fn put(&mut self, entry: u32, name: &str) {
        let fd = self.program(name).fd().expect("loaded").try_clone();
        let fd = fd.expect("a descriptor");
        self.calls.set(entry, &fd, 0).expect("the entry");
    }

    /// Puts the entry programs of a world behind the wrappers.
    pub(crate) fn aim(&mut self, shipped: &Shipped) {
        for (entry, program) in [
            (layout::calls::INGRESS, &shipped.from_netdev),
            (layout::calls::EGRESS, &shipped.to_netdev),
        ] {
            let fd = program.fd().expect("a pinned program");
            self.calls
                .set(entry, fd, 0)
                .expect("the wrappers and the entry programs are of one type");
        }
    }

    /// A handle of our own on a map that the programs use.
    pub(crate) fn map(&self, name: &str) -> MapData {
        match self.object.map(name).expect("a map of the floors") {
            Map::LpmTrie(data) | Map::LruHashMap(data) | Map::RingBuf(data) => twin(data),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// A program of the object, loaded when it is first asked for.
    pub(crate) fn program(&mut self, name: &str) -> &SchedClassifier {
        let program = self.object.program_mut(name).expect("a program");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        if program.fd().is_err() {
            program.load().expect("the verifier takes it");
        }
        program
    }

    /// Adds tuples, which must be a power of two in number.
    pub(crate) fn add(&mut self, tuples: &[Tuple]) -> Set {
        let set = Set {
            base: self.filled,
            count: u32::try_from(tuples.len()).expect("not that many"),
        };
        assert!(tuples.len().is_power_of_two());
        for (index, tuple) in (self.filled..).zip(tuples) {
            self.tuples.set(index, *tuple, 0).expect("room for it");
        }
        self.filled += set.count;
        set
    }

    /// The next run walks over `set`.
    pub(crate) fn walk(&mut self, set: Set, frame: &Frame, local_port: u16) {
        let mut state = Walk::default();
        state[walk::BASE] = set.base;
        state[walk::MASK] = set.count - 1;
        state[walk::ADDRESS_AT] = frame.address_at;
        state[walk::PORT_AT] = frame.port_at;
        state[walk::LOCAL_PORT] = u32::from(local_port.to_be());
        self.walk.set(0, state, 0).expect("the walk");
    }

    /// What the wrapper itself costs (with an empty program behind it).
    pub(crate) fn run_own(&mut self, family: Family, run: Run<'_>) -> u32 {
        let set = run.set.expect("a wrapper walks over a set");
        self.walk(set, run.frame, 0);
        let name = ["w_own4", "w_own6"][usize::from(family == Family::V6)];
        self.checked(name, run)
    }

    /// A program of the object, which must succeed.
    pub(crate) fn checked(&mut self, name: &str, run: Run<'_>) -> u32 {
        let (action, ns) = test_run(self.program(name), run);
        assert_eq!(action, NEXT, "{name} failed");
        ns
    }

    /// The shipped programs of the world that was aimed at: what they said of
    /// the last packet, and nanoseconds for each.
    pub(crate) fn run(
        &mut self,
        shipped: &Shipped,
        family: Family,
        way: Way,
        run: Run<'_>,
    ) -> (u32, u32) {
        let Some(set) = run.set else {
            return test_run(shipped.entry(way), run);
        };
        self.walk(set, run.frame, 0);
        let name = match (family, way) {
            (Family::V4, Way::In) => "w_in4",
            (Family::V4, Way::Out) => "w_eg4",
            (Family::V6, Way::In) => "w_in6",
            (Family::V6, Way::Out) => "w_eg6",
        };
        test_run(self.program(name), run)
    }
}

/// Another handle on the same map.
pub(crate) fn twin(map: &MapData) -> MapData {
    let fd = map.fd().as_fd().try_clone_to_owned();
    MapData::from_fd(fd.expect("a descriptor")).expect("a map")
}

fn test_run(program: &SchedClassifier, run: Run<'_>) -> (u32, u32) {
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&run.frame.bytes),
            repeat: run.repeat,
            ..TestRunOptions::default()
        })
        .expect("the test run");
    let ns = u32::try_from(result.duration.as_nanos()).expect("seconds for a packet");
    (result.return_value, ns)
}

/// The programs and maps of a datapath, by their pins.
pub(crate) struct Shipped {
    from_netdev: SchedClassifier,
    to_netdev: SchedClassifier,
    pub(crate) pins: PathBuf,
}

impl Shipped {
    pub(crate) fn open(pins: &Path) -> Self {
        let program = |name: &str| {
            SchedClassifier::from_pin(pin(pins, &format!("prog_{name}_"))).expect("a program")
        };
        Self {
            from_netdev: program("pal_from_netdev"),
            to_netdev: program("pal_to_netdev"),
            pins: pins.to_owned(),
        }
    }

    fn entry(&self, way: Way) -> &SchedClassifier {
        match way {
            Way::In => &self.from_netdev,
            Way::Out => &self.to_netdev,
        }
    }

    /// Forgets the flows that were seen from one side; how many there were.
    pub(crate) fn forget_new_flows(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.forget::<{ size_of::<flows::Set<CtKey4>>() }>("pal_ct4"),
            Family::V6 => self.forget::<{ size_of::<flows::Set<CtKey6>>() }>("pal_ct6"),
        }
    }

    fn forget<const SIZE: usize>(&self, name: &str) -> usize {
        let data = MapData::from_pin(pin(&self.pins, name)).expect("a map");
        let mut sets: Array<MapData, [u8; SIZE]> =
            Map::Array(data).try_into().expect("a table of flows");
        let mut forgotten = 0;
        for index in 0..sets.len() {
            let mut set = sets.get(&index, 0).expect("a set");
            let before = forgotten;
            for tag in set[8..].chunks_exact_mut(8).take(WAYS) {
                let word = u64::from_ne_bytes(tag.try_into().expect("eight octets"));
                if Tag(word).kind() == ONE_SIDED {
                    tag.fill(0);
                    forgotten += 1;
                }
            }
            if forgotten != before {
                sets.set(index, set, 0).expect("written");
            }
        }
        forgotten
    }
}

fn pin(pins: &Path, name: &str) -> PathBuf {
    let found = std::fs::read_dir(pins)
        .expect("the directory of pins")
        .map(|entry| entry.expect("a pin").path())
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(name)
        });
    found.unwrap_or_else(|| panic!("{name} is not pinned"))
}

/// Empties a table of flows; how many there were.
pub(crate) fn empty(map: Map, six: bool) -> usize {
    if six {
        remove_all(HashMap::<MapData, Key6, Entry>::try_from(map).expect("flows"))
    } else {
        remove_all(HashMap::<MapData, Key4, Entry>::try_from(map).expect("flows"))
    }
}

fn remove_all<K: aya::Pod>(mut flows: HashMap<MapData, K, Entry>) -> usize {
    let keys: Vec<K> = flows.keys().map(|key| key.expect("a key")).collect();
    for key in &keys {
        flows.remove(key).expect("it was there");
    }
    keys.len()
}
