//! A seeded simulation of the whole pipeline: production workers, stepped in
//! any order, on a virtual clock, a datapath and a disk in memory. Sources tell
//! late, twice, in another order or not at all; every call of the store and of
//! the datapath may fail or be the last. Safety after each step; then the faults
//! stop and it must converge.
//!
//! `cargo xtask sim --seed N` replays one seed, `--seeds N` runs so many.

#[path = "sim/agent.rs"]
mod agent;
#[path = "sim/check.rs"]
mod check;
#[path = "sim/churn.rs"]
mod churn;
#[path = "sim/heap.rs"]
mod heap;
#[path = "sim/ledger.rs"]
mod ledger;
#[path = "sim/objects.rs"]
mod objects;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/restore.rs"]
mod restore;
#[path = "sim/runs.rs"]
mod runs;
#[path = "sim/source.rs"]
mod source;
#[path = "sim/steps.rs"]
mod steps;
#[path = "sim/trouble.rs"]
mod trouble;
#[path = "sim/verdicts.rs"]
mod verdicts;
#[path = "sim/world.rs"]
mod world;
