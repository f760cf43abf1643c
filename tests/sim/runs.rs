//! Many seeds, on all CPUs, and faults planted to see that they are found.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::trouble::{KINDS, Plant};
use crate::world::{Counts, World};

/// Seeds of the test command.
const SEEDS: u64 = 2_000;
/// Steps before the faults stop.
const STEPS: u32 = 50;
/// Failing seeds that are looked for before it ends.
const FAILURES_MAX: usize = 10;
/// Within so many seeds a planted fault must be found.
const PLANTED_SEEDS_MAX: u64 = 200;

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn run(mut world: World) -> Counts {
    for _ in 0..STEPS {
        world.step();
    }
    world.converge();
    world.counts
}

/// What a seed saw, or why it fails.
fn attempt(seed: u64, plant: Option<Plant>) -> Result<Counts, String> {
    catch_unwind(AssertUnwindSafe(|| run(World::new(seed, plant)))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        text.unwrap_or_default()
    })
}

/// Seeds that were run, and those that failed.
#[derive(Default)]
struct Outcome {
    total: Counts,
    failures: BTreeMap<u64, String>,
}

/// Runs seeds on all CPUs until `failures_max` of them failed.
fn run_all(seeds: u64, plant: Option<Plant>, failures_max: usize) -> Outcome {
    let next = AtomicU64::new(1);
    let outcome = Mutex::new(Outcome::default());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed > seeds || outcome.lock().failures.len() >= failures_max {
                return;
            }
            let found = attempt(seed, plant);
            let mut outcome = outcome.lock();
            match found {
                Ok(counts) => outcome.total.add(counts),
                Err(text) => {
                    outcome.failures.insert(seed, text);
                }
            }
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(worker);
        }
    });
    outcome.into_inner()
}

#[test]
fn every_seed_is_safe_and_converges() {
    if let Some(seed) = number("PALISADE_SIM_SEED") {
        let mut world = World::new(seed, None);
        world.is_told = true;
        println!("seed {seed}: {:?}", run(world));
        return;
    }
    let seeds = number("PALISADE_SIM_SEEDS").unwrap_or(SEEDS);
    let Outcome { total, failures } = run_all(seeds, None, FAILURES_MAX);
    for (seed, text) in &failures {
        println!("seed {seed} failed; replay it: cargo xtask sim --seed {seed}\n  {text}");
    }
    assert!(
        failures.is_empty(),
        "{} seeds failed, see above",
        failures.len()
    );
    println!("{seeds} seeds: {total:?}");
    assert!(total.rebuilt > 0, "no old revision was ever compared");
    assert!(total.alone > 0, "no source was ever away");
    assert!(total.forgetful > 0, "no disk was ever given up");
    assert!(total.deaths > 0 && total.commits > 0);
    let met = total.met.count_ones();
    assert!(
        seeds < SEEDS || met == KINDS,
        "{met} of {KINDS} kinds of faults"
    );
}

/// A simulation that finds nothing proves nothing.
#[test]
fn every_planted_fault_is_found() {
    for plant in [
        Plant::DiskForgetsFlushes,
        Plant::DiskForgetsWrites,
        Plant::KernelMixes,
        Plant::KernelForgetsFlips,
        Plant::KernelAgrees,
    ] {
        let found = run_all(PLANTED_SEEDS_MAX, Some(plant), 1).failures;
        let (seed, text) = found
            .first_key_value()
            .unwrap_or_else(|| panic!("{plant:?} is not found in {PLANTED_SEEDS_MAX} seeds"));
        println!("{plant:?} is found by seed {seed}: {text}");
    }
}
