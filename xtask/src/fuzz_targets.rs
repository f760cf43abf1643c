//! `cargo xtask fuzz targets`: the fuzz targets of `fuzz/`, each for a while.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, root, run};

const FOLDER: &str = "fuzz";
/// Minutes for each target, when none are given.
const MINUTES: u64 = 1;
/// Inputs longer than this find nothing that shorter ones do not.
const INPUT_BYTES_MAX: usize = 4_096;
/// One input may take so long, in a build with little optimisation.
const INPUT_SECONDS_MAX: usize = 10;
const MEMORY_MIB_MAX: usize = 1_024;

const INSTALL: &str = "\
the fuzz targets need both of these; install what is missing and run the command again:
  rustup toolchain install nightly
  cargo install cargo-fuzz
what they found before is replayed without them: cargo test --test corpus";

/// Builds all targets and runs each; inputs that reach something new join its
/// corpus, which `cargo test` replays.
pub(crate) fn run_all(words: &[&str]) -> Result<()> {
    let minutes = minutes(words)?;
    check_tools()?;
    run(cargo_fuzz().arg("build"))?;
    let names = names()?;
    let mut found = Vec::new();
    for name in &names {
        println!("{name}: {minutes} minutes");
        let mut fuzz = cargo_fuzz();
        fuzz.args(["run", name, "--"])
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg("-print_final_stats=1");
        if run(&mut fuzz).is_err() {
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        println!("{} targets found nothing", names.len());
        return Ok(());
    }
    bail!(
        "finds of {}: see {FOLDER}/artifacts; give each a name, put it into {FOLDER}/finds/TARGET \
         and correct what it shows",
        found.join(", ")
    )
}

fn minutes(words: &[&str]) -> Result<u64> {
    match words {
        [] => Ok(MINUTES),
        ["--minutes", value] => value
            .parse()
            .with_context(|| format!("--minutes {value}: expected a number")),
        other => bail!("{}: expected fuzz targets [--minutes N]", other.join(" ")),
    }
}

fn check_tools() -> Result<()> {
    let nightly = capture(Command::new("rustc").args(["+nightly", "--version"]));
    let missing = match (nightly, capture(cargo_fuzz().arg("--version"))) {
        (Ok(_), Ok(_)) => return Ok(()),
        (Err(_), Ok(_)) => "no nightly compiler here",
        (Ok(_), Err(_)) => "no cargo-fuzz here",
        (Err(_), Err(_)) => "neither a nightly compiler nor cargo-fuzz here",
    };
    bail!("{missing}: {INSTALL}")
}

fn cargo_fuzz() -> Command {
    // rustup's cargo, which picks the compiler; $CARGO is one compiler's own.
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "fuzz"]).current_dir(root());
    cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

/// The targets, by their files.
fn names() -> Result<Vec<String>> {
    let folder = root().join(FOLDER).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            let stem = path.file_stem().unwrap_or_default();
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// That the targets build is checked with the product's own compiler: they
/// need a nightly one only to run.
pub(crate) fn check() -> Result<()> {
    println!("fuzz targets");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut check = Command::new(cargo);
    check.current_dir(root().join(FOLDER));
    run(check.args(["check", "--quiet", "--bins"]))
}

#[cfg(test)]
mod tests {
    use super::{minutes, names};

    #[test]
    fn minutes_are_a_number() {
        assert_eq!(minutes(&[]).ok(), Some(1));
        assert_eq!(minutes(&["--minutes", "7"]).ok(), Some(7));
        for wrong in [&["--minutes"][..], &["--minutes", "x"], &["5"]] {
            assert!(minutes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn targets_are_found() {
        let names = names().expect("a folder");
        assert!(names.iter().any(|name| name == "yaml"), "{names:?}");
    }
}
