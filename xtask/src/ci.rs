//! `cargo xtask ci`: what CI checks besides `cargo xtask test`.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{root, run};
use crate::{boot, bpf, fuzz_targets, kernels, stamp, toolchain, tools};

/// The eBPF object against its sources and on other kernels, the unit of systemd,
/// the fuzz targets, the dependencies.
pub(crate) fn run_all() -> Result<()> {
    if env::var_os("CI").is_some_and(|value| value == "true") && toolchain::find().is_err() {
        install_toolchain()?;
    }
    println!("eBPF object");
    bpf::check()?;
    kernels::check()?;
    boot::check()?;
    fuzz_targets::check()?;
    deny()
}

/// Licences, bans and sources. Advisories need a database from the network:
/// they are configured in deny.toml and run where it can be fetched.
fn deny() -> Result<()> {
    if !tools::exists("cargo-deny") {
        println!("dependencies: not checked (cargo install cargo-deny)");
        return Ok(());
    }
    println!("dependencies");
    let mut deny = Command::new("cargo-deny");
    deny.current_dir(root())
        .args(["--log-level", "error", "--all-features"]);
    run(deny.args(["check", "licenses", "bans", "sources"]))
}

/// Debian's compiler for the eBPF target and the linker of the stamp.
fn install_toolchain() -> Result<()> {
    tools::apt_install(toolchain::DEBIAN_PACKAGES)?;
    let text = fs::read_to_string(root().join(stamp::STAMP)).context(stamp::STAMP)?;
    let linker = stamp::field(&text, "linker").unwrap_or_default();
    let version = linker
        .rsplit(' ')
        .next()
        .context("the stamp names no linker")?;
    println!("installing bpf-linker {version}");
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for name in ["LLVM_SYS_221_PREFIX", "LLVM_PREFIX"] {
        install.env(name, "/usr/lib/llvm-22");
    }
    install.args([
        "install",
        "--quiet",
        "bpf-linker",
        "--version",
        version,
        "--force",
    ]);
    run(install.args(["--no-default-features", "--features", "llvm-22"]))
}
