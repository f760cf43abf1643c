//! `cargo xtask upgrades [--count N]`: takeovers between versions of the layout,
//! ended at every step, and N starts of agents killed under streams (as root).

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

const COUNT: &str = "200";

pub(crate) fn run(words: &[&str]) -> Result<()> {
    let count = match words {
        [] => COUNT,
        ["--count", count] if count.parse::<u32>().is_ok_and(|count| count > 0) => count,
        _ => bail!("usage: upgrades [--count N]"),
    };
    for test in ["kernel", "e2e"] {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(command::root());
        cargo.env("PALISADE_UPGRADES", count);
        cargo.env("PALISADE_REQUIRE_PRIVILEGED", "1");
        cargo.args(["test", "--quiet", "--locked", "--test", test, "--"]);
        command::run(cargo.args(["upgrade::", "--nocapture", "--test-threads=1"]))?;
    }
    Ok(())
}
