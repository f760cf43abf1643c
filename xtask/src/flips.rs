//! `cargo xtask flips [--count N]`: one policy replaced by another N times
//! under traffic (as root), and what was counted.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

const COUNT: &str = "10000";
/// The test that the test command runs with a few hundred.
const TEST: &str = "flips::flips_of_hundreds_of_rules_under_traffic_mix_nothing";

pub(crate) fn run(words: &[&str]) -> Result<()> {
    let count = match words {
        [] => COUNT,
        ["--count", count] if count.parse::<u32>().is_ok_and(|count| count > 0) => count,
        _ => bail!("usage: flips [--count N]"),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    cargo.env("PALISADE_FLIPS", count);
    cargo.env("PALISADE_REQUIRE_PRIVILEGED", "1");
    cargo.args(["test", "--quiet", "--locked", "--test", "e2e", "--"]);
    command::run(cargo.args(["--exact", TEST, "--nocapture"]))
}
