//! `cargo xtask fuzz`: the differential test, or the packet fuzzer, for as long as
//! one likes.

use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{root, run};
use crate::tools;

/// Minutes, when none are given.
const MINUTES: u64 = 10;

#[derive(Default)]
struct Options {
    minutes: Option<u64>,
    seed: Option<u64>,
    cases: Option<u64>,
}

/// A test that runs for as long as one likes.
struct Endless {
    /// Its binary, and the test in it.
    target: &'static str,
    name: &'static str,
    /// What its environment variables begin with.
    prefix: &'static str,
}

const DIFFERENTIAL: Endless = Endless {
    target: "differential",
    name: "tests::oracle_tables_and_programs_agree",
    prefix: "PALISADE_FUZZ",
};
const PACKETS: Endless = Endless {
    target: "packets",
    name: "fuzz::changed_captures_meet_no_verdict_that_the_plain_reading_does_not_give",
    prefix: "PALISADE_PACKET_FUZZ",
};

/// The differential test.
pub(crate) fn run_for(words: &[&str]) -> Result<()> {
    run_endless(&DIFFERENTIAL, &parse(words)?)
}

/// The packet fuzzer.
pub(crate) fn run_packets(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    if options.cases.is_some() {
        bail!("fuzz packets [--minutes N] [--seed S]");
    }
    run_endless(&PACKETS, &options)
}

/// Builds the test for release and runs it.
fn run_endless(endless: &Endless, options: &Options) -> Result<()> {
    tools::ensure()?;
    let test = build(endless.target)?;
    let Some(mut command) = tools::as_root(&test) else {
        bail!("loading eBPF programs needs root, and there is no sudo");
    };
    // The seed is printed by whoever finds something; any will do.
    let seed = options
        .seed
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let minutes = options.minutes.unwrap_or(MINUTES);
    match options.cases {
        Some(cases) => {
            println!("seed {seed}, {cases} cases");
            command.env("PALISADE_FUZZ_CASES", cases.to_string());
        }
        None => println!("seed {seed}, {minutes} minutes"),
    }
    command
        .args(["--exact", endless.name])
        .arg("--nocapture")
        .env("PALISADE_REQUIRE_PRIVILEGED", "1")
        .env(format!("{}_SEED", endless.prefix), seed.to_string())
        .env(
            format!("{}_SECONDS", endless.prefix),
            (minutes * 60).to_string(),
        )
        .current_dir(root());
    run(&mut command)
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let place = match *word {
            "--minutes" => &mut options.minutes,
            "--seed" => &mut options.seed,
            "--cases" => &mut options.cases,
            other => bail!("unknown option {other}: fuzz [--minutes N] [--seed S] [--cases N]"),
        };
        let value = words
            .next()
            .with_context(|| format!("{word} needs a number"))?;
        *place = Some(value.parse().with_context(|| format!("{word} {value}"))?);
    }
    Ok(options)
}

/// Path of a test binary.
fn build(target: &str) -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo.args(["test", "--release", "--locked", "--test", target]);
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the test does not build");
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages")?;
        if message["target"]["name"] == target
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo names no binary of test {target}")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn options_are_numbers_with_names() {
        let options = parse(&["--minutes", "3", "--seed", "18446744073709551615"]);
        let options = options.expect("valid");
        assert_eq!((options.minutes, options.cases), (Some(3), None));
        assert_eq!(options.seed, Some(u64::MAX));
        for wrong in [&["--minutes"][..], &["--minutes", "x"], &["--hours", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
