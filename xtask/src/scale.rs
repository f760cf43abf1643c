//! `cargo xtask scale`: how a node hears of a large cluster, from Kubernetes or from
//! etcd, built for release.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

const NODES: &str = "5000";

/// `cargo xtask scale [--etcd] [--nodes N]`
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (target, test, words) = match words {
        ["--etcd", rest @ ..] => ("etcd", "scale::a_whole_fleet_is_heard", rest),
        rest => ("kubernetes", "scale::a_whole_cluster_is_heard", rest),
    };
    let nodes = match words {
        [] => NODES,
        ["--nodes", nodes] if nodes.parse::<u32>().is_ok_and(|nodes| nodes >= 10) => nodes,
        _ => bail!("scale takes --etcd, and --nodes N, ten at least"),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(command::root())
        .env("PALISADE_REQUIRE_PRIVILEGED", "1")
        .env("PALISADE_SCALE_NODES", nodes)
        // As the systemd unit starts the agent: glibc's allocator keeps less for
        // threads that went.
        .env("MALLOC_ARENA_MAX", "2")
        .args(["test", "--release", "--quiet", "--locked", "--test", target])
        .args(["--", "--exact", test, "--nocapture"]);
    command::run(&mut cargo)
}
