//! `cargo xtask kernels`: loads, verifies and runs every program on kernels
//! other than this one.
//!
//! The test binaries that need the kernel run on this machine's kernel, and in
//! emulated machines on Debian's: a kernel from its package, an initramfs with
//! the binaries, a serial line that brings the results back. No root is needed
//! for that but to install what is missing.

mod debian;
mod guest;
mod initramfs;

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub(crate) use debian::{Kernel, kernel};
pub(crate) use initramfs::Archive;

use crate::test::{self, Counts, TestBinary};
use crate::{emulator, tools};

/// The oldest kernel that is tested, which has no TCX, and the one after it in Debian.
const RELEASES: &[&str] = &["6.1", "6.12"];
const HOST: &str = "host";

/// A test binary and which of its tests an emulated machine runs: those that
/// reach every program and every kernel feature. Emulation is twenty times
/// slower, so what is about policy alone stays out; `--all` runs it too.
struct Suite {
    target: &'static str,
    filters: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite {
        target: "packets",
        filters: &["verdicts::", "headers::", "flows::", "degraded::"],
    },
    Suite {
        target: "kernel",
        filters: &["attach::", "features::"],
    },
];

/// What an emulated machine is to run.
#[derive(Debug)]
struct Job {
    binary: PathBuf,
    target: &'static str,
    filters: Vec<String>,
}

/// What the words of the command line ask for.
#[derive(Debug)]
struct Wish {
    kernels: Vec<String>,
    /// To be passed over is a failure.
    must: bool,
    all: bool,
    filters: Vec<String>,
}

impl Wish {
    /// Debian's kernels.
    fn releases() -> Self {
        Self {
            kernels: RELEASES.iter().map(|name| (*name).to_owned()).collect(),
            must: env::var_os("CI").is_some_and(|value| value == "true"),
            all: false,
            filters: Vec::new(),
        }
    }

    fn read(words: &[&str]) -> Result<Self> {
        let mut wish = Self::releases();
        wish.kernels.insert(0, HOST.to_owned());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--kernel" => {
                    let name = words.next().context("--kernel 6.1|6.12|host")?;
                    wish.kernels = vec![(*name).to_owned()];
                    wish.must = true;
                }
                "--all" => wish.all = true,
                "--only" => {
                    let filter = words.next().context("--only NAME, part of a test's name")?;
                    wish.filters.push((*filter).to_owned());
                }
                other => bail!("unknown word {other}: --kernel 6.1|6.12|host, --all, --only NAME"),
            }
        }
        Ok(wish)
    }

    fn filters(&self, suite: &Suite) -> Vec<String> {
        if !self.filters.is_empty() {
            self.filters.clone()
        } else if self.all {
            Vec::new()
        } else {
            suite.filters.iter().map(|it| (*it).to_owned()).collect()
        }
    }
}

/// `cargo xtask kernels`: this kernel and Debian's, or the one that is named.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    run_on(&Wish::read(words)?)
}

/// What CI runs: Debian's kernels. `cargo xtask test` runs on this one.
pub(crate) fn check() -> Result<()> {
    run_on(&Wish::releases())
}

fn run_on(wish: &Wish) -> Result<()> {
    tools::ensure()?;
    let binaries = build()?;
    let mut failed = Vec::new();
    for name in &wish.kernels {
        let passed = match name.as_str() {
            HOST => on_this_kernel(&binaries)?,
            release => in_guest(release, wish, &binaries)?,
        };
        if !passed {
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("not everything passed on: {}", failed.join(", "));
    }
    Ok(())
}

fn build() -> Result<Vec<TestBinary>> {
    println!("build");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--package", "palisade"]);
    for suite in SUITES {
        cargo.args(["--test", suite.target]);
    }
    Ok(test::build(cargo)?.0)
}

fn on_this_kernel(binaries: &[TestBinary]) -> Result<bool> {
    println!("this kernel");
    let mut counts = Counts::default();
    for binary in binaries {
        counts.add(test::run_binary(binary)?);
    }
    Ok(!counts.any_failed())
}

/// Whether everything passed on Debian's kernel of that release; also true
/// where this machine cannot tell and need not.
fn in_guest(release: &str, wish: &Wish, binaries: &[TestBinary]) -> Result<bool> {
    println!("Debian's kernel {release}");
    let ready = emulator::ensure().and_then(|()| kernel(release));
    let kernel = match ready {
        Ok(kernel) => kernel,
        Err(error) if wish.must => return Err(error.context(format!("kernel {release}"))),
        Err(error) => {
            println!("kernel {release}: skipped: {error:#}");
            return Ok(true);
        }
    };
    let mut jobs = Vec::new();
    for suite in SUITES {
        let binary = binaries
            .iter()
            .find(|binary| binary.is_of(suite.target))
            .with_context(|| format!("cargo built no test {}", suite.target))?;
        jobs.push(Job {
            binary: binary.path.clone(),
            target: suite.target,
            filters: wish.filters(suite),
        });
    }
    let report = guest::boot(&kernel, &jobs)?;
    report.print();
    Ok(report.passed())
}
