//! The floors and the other operations, measured in the same rounds.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, RingBuf};
use palisade::datapath::IpcacheEntry;

use crate::cases::BASE;
use crate::frames::{Family, Frame};
use crate::harness::{Run, Set, empty, twin};
use crate::measure::{Figure, Samples};
use crate::place::{Place, any_frame};

/// Local ports of the flows that are in the floors' table (as many as there are
/// in the base world's conntrack), and of those that are not.
const PRESENT: u16 = 443;
const ALSO_PRESENT: [u16; 3] = [445, 446, 447];
const ABSENT: u16 = 444;
/// Flows inserted, and records sent, in one run: as many as fit.
const INSERTS: u32 = 50_000;

/// What is emptied after each run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Nothing,
    NewFlows,
    Ring,
}

/// A program of the floors' object, and what it walks over.
#[derive(Clone, Copy, Debug)]
struct Floor {
    key: &'static str,
    family: Family,
    program: &'static str,
    walk: Walks,
    local_port: u16,
    after: After,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Walks {
    No,
    Same,
    Many,
    /// In the world of 500,000 prefixes.
    SameSource,
    Sources,
}

const fn floor(key: &'static str, family: Family, program: &'static str, walk: Walks) -> Floor {
    Floor {
        key,
        family,
        program,
        walk,
        local_port: PRESENT,
        after: After::Nothing,
    }
}

/// The floors of a family: key and program. The ring has no family.
fn floors(family: Family) -> Vec<Floor> {
    let six = family == Family::V6;
    let named = |key, programs: [&'static str; 2], walk| {
        floor(key, family, programs[usize::from(six)], walk)
    };
    let hit = ["f_hit4", "f_hit6"];
    let trie = ["f_lpm4", "f_lpm6"];
    let mut all = vec![
        named("lpm_10k_same", trie, Walks::Same),
        named("lpm_10k_random", trie, Walks::Many),
        named("lpm_500k_random", trie, Walks::Sources),
        named("lru_hit_same", hit, Walks::Same),
        named("lru_hit_random", hit, Walks::Many),
        Floor {
            local_port: ABSENT,
            ..named("lru_miss", ["f_miss4", "f_miss6"], Walks::Many)
        },
        Floor {
            after: After::NewFlows,
            ..named("lru_insert", ["f_insert4", "f_insert6"], Walks::Many)
        },
    ];
    if !six {
        all.insert(0, floor("empty", family, "f_empty", Walks::No));
        all.push(Floor {
            after: After::Ring,
            ..floor("ringbuf", family, "f_ringbuf", Walks::No)
        });
    }
    all
}

/// Operations that are no floors by themselves.
fn operations() -> Vec<Floor> {
    let four = |key, program, walk| floor(key, Family::V4, program, walk);
    let six = |key, program, walk| floor(key, Family::V6, program, walk);
    vec![
        four("lpm_500k_same", "f_lpm4", Walks::SameSource),
        six("lpm_500k_same_6", "f_lpm6", Walks::SameSource),
        four("route_host_4", "o_fib4", Walks::No),
        six("route_host_6", "o_fib6", Walks::No),
        four("route_forwarded_4", "o_forward4", Walks::No),
        six("route_forwarded_6", "o_forward6", Walks::No),
        four("socket_lookup_4", "o_socket4", Walks::No),
        six("socket_lookup_6", "o_socket6", Walks::No),
        four("counter", "o_counter", Walks::No),
        four("two_counters", "o_two_counters", Walks::No),
        four("jiffies", "o_jiffies", Walks::No),
        four("ktime", "o_ktime", Walks::No),
        four("tail_call", "o_tail_call", Walks::No),
        four("load_bytes_40", "o_load_bytes", Walks::No),
        four("direct_40", "o_direct", Walks::No),
        four("control_block", "o_cb", Walks::No),
        four("hash_hit_same", "o_hash_hit", Walks::Same),
        four("hash_hit_random", "o_hash_hit", Walks::Many),
        four("lru_update_same", "o_update4", Walks::Same),
        four("lru_update_random", "o_update4", Walks::Many),
    ]
}

/// Key of a figure: its name and family.
pub(crate) type FloorKey = (&'static str, Family);

/// All floors, their samples, and the maps that runs empty again.
pub(crate) struct Floors {
    list: Vec<Floor>,
    samples: BTreeMap<FloorKey, Samples>,
    walks: BTreeMap<Walks, Samples>,
    ring: RingBuf<MapData>,
    new_flows: [MapData; 2],
}

impl Floors {
    /// Fills the maps of the base world's object (and of the big one's).
    pub(crate) fn new(base: &mut Place, big: Option<&mut Place>) -> Self {
        let mut list = floors(Family::V4);
        list.extend(floors(Family::V6));
        list.extend(operations());
        if big.is_none() {
            list.retain(|floor| !matches!(floor.walk, Walks::Sources | Walks::SameSource));
        }
        fill_tries(base);
        if let Some(big) = big {
            fill_tries(big);
        }
        fill_flows(base);
        let ring =
            RingBuf::try_from(Map::RingBuf(base.bench.map("b_ring"))).expect("a ring buffer");
        let new_flows = ["b_new4", "b_new6"].map(|name| base.bench.map(name));
        Self {
            list,
            samples: BTreeMap::new(),
            walks: BTreeMap::new(),
            ring,
            new_flows,
        }
    }

    /// Each once.
    pub(crate) fn round(&mut self, base: &mut Place, mut big: Option<&mut Place>, repeat: u32) {
        for walk in [Walks::Same, Walks::Many, Walks::SameSource, Walks::Sources] {
            let own = floor("walk", Family::V4, "f_walk", walk);
            if let Some(place) = place(walk, base, big.as_deref_mut()) {
                let ns = run(place, &own, repeat);
                self.walks.entry(walk).or_default().push(ns);
            }
        }
        for floor in self.list.clone() {
            let Some(place) = place(floor.walk, base, big.as_deref_mut()) else {
                continue;
            };
            let few = floor.after != After::Nothing;
            let ns = run(
                place,
                &floor,
                if few { repeat.min(INSERTS) } else { repeat },
            );
            self.clean(&floor);
            let key = (floor.key, floor.family);
            self.samples.entry(key).or_default().push(ns);
        }
    }

    fn clean(&mut self, floor: &Floor) {
        match floor.after {
            After::Nothing => {}
            After::NewFlows => {
                let six = floor.family == Family::V6;
                let map = twin(&self.new_flows[usize::from(six)]);
                empty(Map::LruHashMap(map), six);
            }
            After::Ring => while self.ring.next().is_some() {},
        }
    }

    /// The empty program.
    pub(crate) fn empty(&self) -> Figure {
        self.samples[&("empty", Family::V4)].figure()
    }

    /// What an operation costs above the program that does not do it; None if
    /// it was not measured.
    pub(crate) fn above(&self, key: &'static str, family: Family) -> Option<Figure> {
        let floor = self
            .list
            .iter()
            .find(|floor| (floor.key, floor.family) == (key, family))?;
        let raw = self.samples.get(&(key, family))?.figure();
        let without = match floor.walk {
            Walks::No => self.empty(),
            walk => self.walks[&walk].figure(),
        };
        Some(raw.above(without))
    }

    /// Keys of the floors of one family, and of the operations.
    pub(crate) fn keys(&self, family: Family) -> Vec<&'static str> {
        floors(family).iter().map(|floor| floor.key).collect()
    }

    pub(crate) fn operations(&self) -> Vec<FloorKey> {
        let keys = operations();
        keys.iter().map(|floor| (floor.key, floor.family)).collect()
    }
}

fn place<'a>(
    walk: Walks,
    base: &'a mut Place,
    big: Option<&'a mut Place>,
) -> Option<&'a mut Place> {
    match walk {
        Walks::Sources | Walks::SameSource => big,
        _ => Some(base),
    }
}

fn run(place: &mut Place, floor: &Floor, repeat: u32) -> u32 {
    let frame: Frame = any_frame(place.world.size, floor.family);
    let sets = place.sets(floor.family);
    let set = match floor.walk {
        Walks::No => None,
        Walks::Same => sets.one.map(Set::same),
        Walks::Many => sets.many,
        Walks::SameSource => sets.sources.map(Set::same),
        Walks::Sources => sets.sources,
    };
    if let Some(set) = set {
        place.bench.walk(set, &frame, floor.local_port);
    }
    let run = Run {
        frame: &frame,
        set: None,
        repeat,
    };
    place.bench.checked(floor.program, run)
}

/// The flows of the floors' tables.
fn fill_flows(base: &mut Place) {
    for (family, programs) in [
        (Family::V4, ["o_update4", "o_hash_fill"].as_slice()),
        (Family::V6, &["o_update6"]),
    ] {
        let frame = any_frame(BASE, family);
        let sets = base.sets(family);
        let many = sets.many.expect("the base world has the tuples");
        let same = sets.one.expect("every world has the tuples").same();
        let ports = ALSO_PRESENT.into_iter().chain([PRESENT]);
        let fills = ports.map(|port| (many, port)).chain([(same, PRESENT)]);
        for (set, port) in fills {
            for program in programs {
                base.bench.walk(set, &frame, port);
                let run = Run {
                    frame: &frame,
                    set: None,
                    repeat: set.count,
                };
                base.bench.checked(program, run);
            }
        }
    }
}

/// The prefixes of a world in plain tries.
fn fill_tries(place: &mut Place) {
    let value = |entry: &IpcacheEntry| {
        let (identity, index) = (entry.identity.0, entry.index.0);
        [identity, identity, index, index]
    };
    let mut trie: LpmTrie<MapData, [u8; 4], [u32; 4]> =
        LpmTrie::try_from(Map::LpmTrie(place.bench.map("b_lpm4"))).expect("a trie");
    for (net, entry) in &place.world.ipcache4 {
        let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
        trie.insert(&key, value(entry), 0).expect("room for it");
    }
    let mut trie: LpmTrie<MapData, [u8; 16], [u32; 4]> =
        LpmTrie::try_from(Map::LpmTrie(place.bench.map("b_lpm6"))).expect("a trie");
    for (net, entry) in &place.world.ipcache6 {
        let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
        trie.insert(&key, value(entry), 0).expect("room for it");
    }
}
