//! A world with all that its cases need: programs, tuples, open flows.

use std::path::Path;

use palisade::datapath::DatapathError;
use palisade::datapath::events::EventReader;
use palisade::datapath::kernel::Inspector;

use crate::cases::{self, BASE, Case, MANY, PREFIXES, SOURCES};
use crate::frames::{Family, Frame};
use crate::harness::{Bench, NEXT, Run, Set, Shipped};
use crate::layout::{TUPLE_PORT, Tuple};
use crate::random::{Random, within4, within6, words6};
use crate::world::{Size, World, all4, all6, peer};

/// Packets of a case before it is measured, by which it is checked.
const CHECKED: u32 = 256;

/// The tuples of one family.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sets {
    /// One peer, every port once.
    pub(crate) one: Option<Set>,
    /// Random sources and ports.
    pub(crate) many: Option<Set>,
    /// Random sources of 500,000 prefixes.
    pub(crate) sources: Option<Set>,
}

pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) bench: Bench,
    pub(crate) shipped: Shipped,
    pub(crate) inspector: Inspector,
    pub(crate) events: EventReader,
    sets: [Sets; 2],
}

impl Place {
    pub(crate) fn new(bpffs: &Path, size: Size) -> Result<Self, DatapathError> {
        let pins = bpffs.join(format!("r{}-p{}", size.rules, size.prefixes));
        let world = World::new(&pins, size)?;
        let inspector = world.datapath.inspector();
        let events = inspector.events()?;
        let shipped = Shipped::open(&pins);
        let mut bench = Bench::load(2 * MANY + 2 * MANY + 2 * SOURCES, size == BASE);
        bench.aim(&shipped);
        let sets = fill(&mut bench, &world);
        let mut place = Self {
            world,
            bench,
            shipped,
            inspector,
            events,
            sets,
        };
        for family in [Family::V4, Family::V6] {
            place.open_flows(family, 1);
        }
        if size == BASE {
            place.open_flows(Family::V4, MANY);
        }
        Ok(place)
    }

    pub(crate) fn sets(&self, family: Family) -> Sets {
        self.sets[usize::from(family == Family::V6)]
    }

    /// The tuples of a case; None where one packet is sent as it is.
    pub(crate) fn set_of(&self, case: &Case) -> Option<Set> {
        let sets = self.sets(case.family);
        let set = match case.flows {
            1 if !case.opens() => return None,
            1 => sets.one,
            MANY => sets.many,
            _ => sets.sources,
        };
        Some(set.expect("this world has the tuples"))
    }

    fn open_flows(&mut self, family: Family, flows: u32) {
        let set = match flows {
            1 => None,
            _ => self.sets(family).many,
        };
        for (way, frame) in cases::openings(family, flows) {
            let run = Run {
                frame: &frame,
                set,
                repeat: flows,
            };
            let (action, _) = self.bench.run(&self.shipped, family, way, run);
            assert_eq!(
                action, NEXT,
                "a flow could not be opened: {way:?} {frame:?}"
            );
        }
        assert_eq!(
            self.shipped.forget_new_flows(family),
            0,
            "flows without answer"
        );
    }

    /// Every packet of a case leaves as it must, and opens a flow only if it
    /// must; so no figure is that of another case.
    pub(crate) fn check(&mut self, case: &Case) {
        let frame = case.frame();
        let run = Run {
            frame: &frame,
            set: self.set_of(case),
            repeat: CHECKED,
        };
        let way = case.name.way();
        let before = self.exits(case);
        let (action, _) = self.bench.run(&self.shipped, case.family, way, run);
        assert_eq!(action == NEXT, !case.name.is_denied(), "{case:?}");
        assert_eq!(self.exits(case) - before, u64::from(CHECKED), "{case:?}");
        let opened = self.shipped.forget_new_flows(case.family);
        let expected = if case.opens() { CHECKED } else { 0 };
        assert_eq!(opened, expected as usize, "{case:?}");
        self.drain();
    }

    /// Packets that left as those of the case must.
    fn exits(&self, case: &Case) -> u64 {
        let counters = self.inspector.counters().expect("the counters");
        let found = counters
            .iter()
            .find(|counter| (counter.reason, counter.direction) == case.name.exit());
        found.map_or(0, |counter| counter.packets)
    }

    /// Forgets the events.
    pub(crate) fn drain(&mut self) {
        let mut events = Vec::new();
        self.events.read(&mut events, usize::MAX);
    }
}

/// The tuples of a world.
fn fill(bench: &mut Bench, world: &World) -> [Sets; 2] {
    let mut random = Random(65_536);
    let mut sets = [Sets::default(); 2];
    for (place, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let peer = match peer(family) {
            std::net::IpAddr::V4(peer) => [u32::from_ne_bytes(peer.octets()), 0, 0, 0],
            std::net::IpAddr::V6(peer) => words6(peer),
        };
        let one: Vec<Tuple> = (0..MANY).map(|port| tuple(peer, port)).collect();
        sets[place].one = Some(bench.add(&one));
    }
    if world.size == BASE {
        let (nets4, nets6) = (&world.prefixes4, &world.prefixes6);
        let many = tuples(&mut random, nets4, MANY, within4);
        sets[0].many = Some(bench.add(&many));
        let many = tuples(&mut random, nets6, MANY, within6);
        sets[1].many = Some(bench.add(&many));
    }
    let extremes = [PREFIXES[0], PREFIXES[2]];
    if extremes.contains(&world.size.prefixes) {
        // The same sources, whether the world knows their prefixes or not.
        let sources = tuples(&mut random, &all4(PREFIXES[2]), SOURCES, within4);
        sets[0].sources = Some(bench.add(&sources));
        let sources = tuples(&mut random, &all6(PREFIXES[2]), SOURCES, within6);
        sets[1].sources = Some(bench.add(&sources));
    }
    sets
}

/// Distinct tuples with sources in `nets`.
fn tuples<N: Copy>(
    random: &mut Random,
    nets: &[N],
    count: u32,
    within: impl Fn(&mut Random, N) -> [u32; 4],
) -> Vec<Tuple> {
    let one = |number: u32| {
        let net = nets[random.below(nets.len())];
        tuple(within(random, net), number)
    };
    (0..count).map(one).collect()
}

fn tuple(address: [u32; 4], port: u32) -> Tuple {
    let mut tuple = Tuple::default();
    tuple[..4].copy_from_slice(&address);
    // Ports run through all values, so no two of 65,536 tuples are one.
    tuple[TUPLE_PORT] = port & 0xffff;
    tuple
}

/// A frame that the floors run on.
pub(crate) fn any_frame(size: Size, family: Family) -> Frame {
    let case = Case {
        name: cases::Name::Established,
        size,
        flows: 1,
        family,
    };
    case.frame()
}
