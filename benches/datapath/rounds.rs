//! The rounds: every floor and every case once, again and again, so that what
//! disturbs the machine disturbs all of them alike.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use palisade::limits::{KERNEL_EVENTS_BATCH_MAX, KERNEL_EVENTS_POLL};

use crate::cases::{self, BASE, Case, Name};
use crate::floors::Floors;
use crate::frames::Family;
use crate::harness::{Run, Set};
use crate::measure::{Figure, Samples};
use crate::place::Place;
use crate::programs::{self, Loaded};
use crate::sandbox;
use crate::world::Size;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) runs: u32,
    /// Packets of one run.
    pub(crate) repeat: u32,
    /// The base world alone, for a quick look.
    pub(crate) only_base: bool,
    /// One case alone, by its name.
    pub(crate) only_case: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            runs: 9,
            repeat: 200_000,
            only_base: false,
            only_case: None,
        }
    }
}

/// New flows of one run: fewer than the table of one-sided flows holds.
const NEW_FLOWS: u32 = 50_000;
const LOADS: usize = 5;

/// A case and its figure; None, with the reason, where its world was refused.
pub(crate) struct Line {
    pub(crate) case: Case,
    pub(crate) figure: Result<Figure, String>,
}

pub(crate) struct Outcome {
    pub(crate) options: Options,
    pub(crate) floors: Floors,
    pub(crate) lines: Vec<Line>,
    pub(crate) programs: Vec<Loaded>,
    pub(crate) load_sum_ms: f64,
    pub(crate) load_all_ms: f64,
    pub(crate) maps: Vec<(&'static str, u64)>,
    pub(crate) worlds: Vec<String>,
    pub(crate) took: Duration,
}

type Places = BTreeMap<Size, Result<Place, String>>;

pub(crate) fn run(bpffs: &Path, options: Options) -> Outcome {
    let started = Instant::now();
    let mut list = cases::all();
    if options.only_base {
        list.retain(|case| case.size == BASE);
    }
    if let Some(name) = &options.only_case {
        list.retain(|case| case.name.as_str() == name);
        assert!(!list.is_empty(), "no case {name}");
    }
    let mut places = Places::new();
    let mut worlds = Vec::new();
    for case in &list {
        if places.contains_key(&case.size) {
            continue;
        }
        let began = Instant::now();
        let place = Place::new(bpffs, case.size).map_err(|error| error.to_string());
        worlds.push(described(case.size, &place, began.elapsed()));
        places.insert(case.size, place);
    }
    sandbox::stay_on_last_cpu(true);
    for case in &list {
        if let Some(Ok(place)) = places.get_mut(&case.size) {
            place.check(case);
        }
    }
    let mut floors = with_base(&mut places, Floors::new);
    let mut measured = Measured::default();
    for _ in 0..options.runs {
        with_base(&mut places, |base, big| {
            floors.round(base, big, options.repeat);
        });
        for (index, case) in list.iter().enumerate() {
            if let Some(Ok(place)) = places.get_mut(&case.size) {
                measured.case(index, case, place, options.repeat);
            }
        }
    }
    let lines = list
        .into_iter()
        .enumerate()
        .map(|(index, case)| Line {
            case,
            figure: match &places[&case.size] {
                Ok(_) => Ok(measured.figure(index, &case, floors.empty())),
                Err(refusal) => Err(refusal.clone()),
            },
        })
        .collect();
    let Some(Ok(base)) = places.get(&BASE) else {
        panic!("the base world stands");
    };
    let loads = programs::load(&base.inspector, LOADS);
    Outcome {
        options,
        floors,
        lines,
        programs: loads.programs,
        load_sum_ms: loads.sum_ms,
        load_all_ms: loads.all_ms,
        maps: programs::memory(&base.inspector),
        worlds,
        took: started.elapsed(),
    }
}

fn described(size: Size, place: &Result<Place, String>, took: Duration) -> String {
    let Size { rules, prefixes } = size;
    match place {
        Ok(place) => format!(
            "{rules} rules, {prefixes} prefixes: {} blocks, in force after {:.1} s",
            place.world.blocks,
            took.as_secs_f64()
        ),
        Err(refusal) => format!("{rules} rules, {prefixes} prefixes: REFUSED: {refusal}"),
    }
}

/// Calls `work` with the base world and that of the most prefixes.
fn with_base<T>(places: &mut Places, work: impl FnOnce(&mut Place, Option<&mut Place>) -> T) -> T {
    let big = Size {
        prefixes: cases::PREFIXES[2],
        ..BASE
    };
    let (mut base, mut most) = (None, None);
    for (size, place) in places {
        let Ok(place) = place else {
            continue;
        };
        if *size == BASE {
            base = Some(place);
        } else if *size == big {
            most = Some(place);
        }
    }
    match base {
        Some(base) => work(base, most),
        None => panic!("the base world was refused"),
    }
}

/// Samples of the cases, and of the wrappers that they ran behind.
#[derive(Default)]
struct Measured {
    cases: BTreeMap<usize, Samples>,
    own: BTreeMap<(Size, Family, Set), Samples>,
    behind: BTreeMap<usize, (Size, Family, Set)>,
}

impl Measured {
    fn case(&mut self, index: usize, case: &Case, place: &mut Place, repeat: u32) {
        let frame = case.frame();
        let run = Run {
            frame: &frame,
            set: place.set_of(case),
            repeat: if case.opens() {
                repeat.min(NEW_FLOWS)
            } else {
                repeat
            },
        };
        let ns = if case.name == Name::NewDeniedReader {
            with_reader(place, |place| once(case, place, run))
        } else {
            once(case, place, run)
        };
        self.cases.entry(index).or_default().push(ns);
        if let Some(set) = run.set {
            let key = (case.size, case.family, set);
            let ns = place.bench.run_own(case.family, run);
            self.own.entry(key).or_default().push(ns);
            self.behind.insert(index, key);
        }
        if case.opens() {
            place.shipped.forget_new_flows(case.family);
        }
        place.drain();
    }

    /// Without what the wrapper costs above an empty program.
    fn figure(&self, index: usize, case: &Case, empty: Figure) -> Figure {
        let raw = self.cases[&index].figure();
        match self.behind.get(&index) {
            Some(key) => raw.above(self.own[key].figure().above(empty)),
            None => {
                debug_assert!(!case.opens());
                raw
            }
        }
    }
}

fn once(case: &Case, place: &mut Place, run: Run<'_>) -> u32 {
    let way = case.name.way();
    let (_, ns) = place.bench.run(&place.shipped, case.family, way, run);
    ns
}

/// While a thread on another CPU drains the events as the agent does.
fn with_reader<T>(place: &mut Place, work: impl FnOnce(&mut Place) -> T) -> T {
    let mut reader = place.inspector.events().expect("the ring buffer");
    let stop = AtomicBool::new(false);
    let drain = || {
        sandbox::stay_on_last_cpu(false);
        let mut batch = Vec::with_capacity(KERNEL_EVENTS_BATCH_MAX);
        while !stop.load(Ordering::Relaxed) {
            while reader.read(&mut batch, KERNEL_EVENTS_BATCH_MAX) > 0 {
                batch.clear();
            }
            std::thread::sleep(KERNEL_EVENTS_POLL);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(drain);
        let result = work(place);
        stop.store(true, Ordering::Relaxed);
        result
    })
}
