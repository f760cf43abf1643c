//! `cargo xtask bench control`: what a change costs beside computing all from
//! nothing, built for release.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// Runs a benchmark; the words behind its name are its own.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let ["control", rest @ ..] = words else {
        bail!("name a benchmark: bench control [--json] [--kernel] [--pods N] [--policies N]");
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    cargo.args(["bench", "--quiet", "--locked", "--bench", "control", "--"]);
    command::run(cargo.args(rest))
}
