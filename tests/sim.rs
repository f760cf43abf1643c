//! A seeded simulation of the whole pipeline: production workers, stepped in
//! any order, on a virtual clock, a datapath and a disk in memory, with changes,
//! delays, faults and crashes. Safety after each step; then the faults stop and
//! it must converge.
//!
//! `PALISADE_SIM_SEED=n` replays one seed, `PALISADE_SIM_SEEDS=n` runs so many.

#[path = "sim/check.rs"]
mod check;
#[path = "sim/manifests.rs"]
mod manifests;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/world.rs"]
mod world;

use world::World;

const SEEDS: u64 = 200;
const STEPS: u32 = 250;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// How many old revisions were rebuilt and compared.
fn run(seed: u64) -> u32 {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    world.converge();
    world.rebuilt
}

#[test]
fn every_seed_is_safe_and_converges() {
    if let Some(seed) = number("PALISADE_SIM_SEED") {
        println!("seed {seed}");
        run(seed);
        return;
    }
    let mut rebuilt = 0;
    let seeds = number("PALISADE_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in 1..=seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        match outcome {
            Ok(count) => rebuilt += count,
            Err(_) => panic!("seed {seed} failed; replay it with PALISADE_SIM_SEED={seed}"),
        }
    }
    assert!(rebuilt > 0, "no old revision was ever compared");
}
