//! `cargo xtask sim`: the simulation, built for release: one seed again, many
//! seeds, or a day of churn.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

const SEEDS: &str = "20000";
/// The tests behind it; the test command runs them with small numbers.
const SEED_TEST: &str = "runs::every_seed_is_safe_and_converges";
const CHURN_TEST: &str = "churn::hours_of_churn_leave_memory_flat";

pub(crate) fn run(words: &[&str]) -> Result<()> {
    let is_number = |word: &str| word.parse::<u64>().is_ok_and(|number| number > 0);
    let (test, variable, value) = match words {
        [] => (SEED_TEST, "PALISADE_SIM_SEEDS", SEEDS),
        ["--seeds", count] if is_number(count) => (SEED_TEST, "PALISADE_SIM_SEEDS", *count),
        ["--seed", seed] if is_number(seed) => (SEED_TEST, "PALISADE_SIM_SEED", *seed),
        ["--hours", hours] if is_number(hours) => (CHURN_TEST, "PALISADE_SIM_HOURS", *hours),
        _ => bail!("usage: sim [--seeds N | --seed N | --hours N]"),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    cargo.env(variable, value);
    cargo.args(["test", "--release", "--quiet", "--locked", "--test", "sim"]);
    command::run(cargo.args(["--", "--exact", test, "--nocapture"]))
}
