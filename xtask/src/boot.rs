//! `cargo xtask boot`: the systemd unit in an emulated machine, where nothing
//! but the disk of the state directory outlives a boot.
//!
//! In reading order: `system` (what is in the guest), `guest/` (what happens in
//! it), `facts` (what must be true of what it told).

mod facts;
mod system;

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::emulator::{self, Folder, Machine};
use crate::{kernels, test, tools};
use facts::{Check, Facts};

/// Has TCX; the other one that is tested, 6.1, attaches with clsact.
const KERNEL: &str = "6.12";
/// A boot that is not done by then hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// `cargo xtask boot [--kernel 6.1|6.12]`
pub(crate) fn run(words: &[&str]) -> Result<()> {
    match words {
        [] => check(),
        ["--kernel", release] => boot_on(release),
        _ => bail!("usage: boot [--kernel 6.1|6.12]"),
    }
}

/// What CI runs.
pub(crate) fn check() -> Result<()> {
    boot_on(KERNEL)
}

/// Boots twice and prints what was seen.
fn boot_on(release: &str) -> Result<()> {
    tools::ensure()?;
    emulator::ensure()?;
    let kernel = kernels::kernel(release)?;
    let folder = Folder::new("boot")?;
    let palisade = emulator::stripped(&build()?, &folder, "palisade");
    let disk = folder.path.join("disk");
    system::disk(&disk)?;
    let mut failed = 0;
    let mut before: Option<Facts> = None;
    for boot in &system::BOOTS {
        println!("{}, kernel {}", boot.name, kernel.version);
        let machine = Machine {
            kernel: &kernel,
            initramfs: system::initramfs(&kernel, &palisade, boot)?.bytes(),
            disk: Some(&disk),
            limit: LIMIT,
        };
        let began = Instant::now();
        let ended = machine.run(&folder)?;
        let facts = Facts::read(&ended.results);
        let checks = match &before {
            None => facts::of_first_boot(&facts),
            Some(before) => facts::of_second_boot(before, &facts),
        };
        let wrong = print(&checks);
        if let Some(hung) = &ended.hung {
            println!("  FAILED {hung}");
        }
        if wrong > 0 || ended.hung.is_some() {
            println!("{}", ended.last_lines());
        }
        println!("  {:.0} s", began.elapsed().as_secs_f64());
        failed += wrong + usize::from(ended.hung.is_some());
        before = Some(facts);
    }
    if failed > 0 {
        bail!("{failed} things were not as they must be");
    }
    Ok(())
}

/// How many are not true.
fn print(checks: &[Check]) -> usize {
    for check in checks {
        if check.is_true {
            println!("  ok     {}", check.what);
        } else {
            println!("  FAILED {}: {}", check.what, check.seen);
        }
    }
    checks.iter().filter(|check| !check.is_true).count()
}

/// The agent as the tests use it: cargo builds it beside any of them.
fn build() -> Result<PathBuf> {
    println!("build");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--package", "palisade", "--test", "packets"]);
    let (_, palisade) = test::build(cargo)?;
    palisade.context("cargo built no palisade")
}
