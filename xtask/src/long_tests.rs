//! Tests of the end-to-end suites that take a number: the test command runs them
//! a few times, these commands (as root) as often as asked, and print what was
//! counted. `--seed` repeats the moments of an earlier run.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// A test, and what its numbers are called.
struct Long {
    suite: &'static str,
    test: &'static str,
    option: &'static str,
    variable: &'static str,
    default: u64,
    has_seed: bool,
}

/// `cargo xtask flips [--count N]`
pub(crate) fn flips(words: &[&str]) -> Result<()> {
    run(
        words,
        &Long {
            suite: "e2e",
            test: "flips::flips_of_hundreds_of_rules_under_traffic_mix_nothing",
            option: "--count",
            variable: "PALISADE_FLIPS",
            default: 10_000,
            has_seed: false,
        },
    )
}

/// `cargo xtask kills [--count N] [--seed N]`
pub(crate) fn kills(words: &[&str]) -> Result<()> {
    run(
        words,
        &Long {
            suite: "e2e",
            test: "kills::sigkill_at_random_moments_loses_nothing",
            option: "--count",
            variable: "PALISADE_KILLS",
            default: 200,
            has_seed: true,
        },
    )
}

/// `cargo xtask imports [--count N] [--seed N]`
pub(crate) fn imports(words: &[&str]) -> Result<()> {
    run(
        words,
        &Long {
            suite: "e2e",
            test: "imports::an_acknowledged_import_outlives_sigkill_at_any_instant",
            option: "--count",
            variable: "PALISADE_IMPORTS",
            default: 1_000,
            has_seed: true,
        },
    )
}

/// `cargo xtask stops [--seconds N] [--seed N]`
pub(crate) fn stops(words: &[&str]) -> Result<()> {
    run(
        words,
        &Long {
            suite: "e2e",
            test: "kills::a_stopped_agent_loses_nothing_and_catches_up",
            option: "--seconds",
            variable: "PALISADE_STOP_SECONDS",
            default: 60,
            has_seed: true,
        },
    )
}

/// `cargo xtask partition [--seconds N]`
pub(crate) fn partition(words: &[&str]) -> Result<()> {
    run(
        words,
        &Long {
            suite: "etcd",
            test: "outage::a_partitioned_node_enforces_on_and_converges",
            option: "--seconds",
            variable: "PALISADE_PARTITION_SECONDS",
            default: 60,
            has_seed: false,
        },
    )
}

fn run(words: &[&str], long: &Long) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    cargo.env("PALISADE_REQUIRE_PRIVILEGED", "1");
    cargo.env(long.variable, long.default.to_string());
    for pair in words.chunks(2) {
        let (name, value) = match pair {
            [name, value] if value.parse::<u64>().is_ok() => (*name, *value),
            _ => bail!("{} takes a number", pair[0]),
        };
        match name {
            _ if name == long.option && value != "0" => cargo.env(long.variable, value),
            "--seed" if long.has_seed => cargo.env("PALISADE_SEED", value),
            _ => bail!("`{name} {value}`: see cargo xtask help"),
        };
    }
    cargo.args(["test", "--quiet", "--locked", "--test", long.suite, "--"]);
    command::run(cargo.args(["--exact", long.test, "--nocapture"]))
}
