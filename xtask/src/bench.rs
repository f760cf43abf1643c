//! `cargo xtask bench control` (what a change costs beside computing all from
//! nothing), built for release, and `bench datapath` (what a packet costs
//! beside what its operations cost), where only the kernel's side is timed and
//! a build for release would be waited for in vain; `bench wire`: what a packet
//! costs on a wire; `bench start`: what a start costs with a large store.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// Runs a benchmark; the words behind its name are its own.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (name, profile, rest) = match words {
        ["control", rest @ ..] => ("control", "bench", rest),
        ["datapath", rest @ ..] => ("datapath", "dev", rest),
        ["wire", rest @ ..] => ("wire", "bench", rest),
        // The binary that is started is of the same profile.
        ["start", rest @ ..] => ("start", "bench", rest),
        _ => bail!("name a benchmark: bench control | datapath | start | wire (cargo xtask help)"),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    cargo.args(["bench", "--quiet", "--locked", "--profile", profile]);
    cargo.args(["--bench", name, "--"]);
    command::run(cargo.args(rest))
}
