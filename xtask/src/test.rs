//! `cargo xtask test`: everything that proves the house, on a fresh machine.
//!
//! Formatting, lints, then each test binary by itself: those that need the
//! kernel as root (through sudo when we are not), the others as we are; at
//! last the lab. One line for each, and a summary.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{root, run};
use crate::{apiserver, charts, tools};

/// Test targets of the root package that need root.
const PRIVILEGED: &[&str] = &[
    "kernel",
    "packets",
    "differential",
    "e2e",
    "kubernetes",
    "etcd",
];
/// Lines of a failing binary's output that are shown.
const SHOWN_LINES_MAX: usize = 400;

/// Counts over all binaries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn any_failed(self) -> bool {
        self.failed > 0
    }

    /// Whether tests ran, and all that ran passed.
    pub(crate) fn all_passed(self) -> bool {
        self.passed > 0 && !self.any_failed()
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// A built test binary.
#[derive(Debug)]
pub(crate) struct TestBinary {
    target: String,
    kind: String,
    pub(crate) path: PathBuf,
    folder: PathBuf,
    privileged: bool,
}

impl TestBinary {
    /// Whether it is that integration test.
    pub(crate) fn is_of(&self, target: &str) -> bool {
        self.target == target && self.kind == "test"
    }

    fn name(&self) -> String {
        format!("{} ({})", self.target, self.kind)
    }
}

/// Runs everything; an error if anything failed.
pub(crate) fn run_all() -> Result<()> {
    tools::ensure()?;
    if let Err(error) = apiserver::ensure() {
        println!("no kube-apiserver: its tests are skipped ({error:#})");
    }
    if let Err(error) = charts::ensure() {
        println!("no helm: the test of the chart is skipped ({error:#})");
    }
    let cargo = || {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root());
        command
    };
    println!("format");
    // The programs are a workspace of their own.
    for manifest in ["Cargo.toml", "bpf-prog/Cargo.toml"] {
        run(cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))
            .with_context(|| {
                format!(
                    "run `cargo fmt --all --manifest-path {manifest}` (rustup component add rustfmt)"
                )
            })?;
    }
    println!("lints");
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
    ];
    run(cargo().args(clippy).args(["--", "-D", "warnings"]))
        .context("rustup component add clippy, if it is missing")?;
    println!("build");
    let mut every_test = cargo();
    every_test.args(["test", "--workspace"]);
    let (binaries, palisade) = build(every_test)?;
    let palisade = palisade.context("cargo built no palisade")?;
    let mut counts = Counts::default();
    for binary in &binaries {
        counts.add(run_binary(binary)?);
    }
    counts.add(lab(&palisade));
    let strict = env::var_os("CI").is_some_and(|value| value == "true");
    if strict && counts.skipped > 0 {
        println!("a skipped test fails CI");
    }
    println!("{counts}");
    if counts.failed > 0 || strict && counts.skipped > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Builds what `cargo test` and its words name; returns where the tests and,
/// where it was built too, the binary are.
pub(crate) fn build(mut cargo: Command) -> Result<(Vec<TestBinary>, Option<PathBuf>)> {
    cargo.current_dir(root());
    cargo.args(["--locked", "--no-run", "--quiet"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let mut binaries = Vec::new();
    let mut palisade = None;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages")?;
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else {
            continue;
        };
        let target = message["target"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let kind = message["target"]["kind"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if message["profile"]["test"] != true {
            if target == "palisade" {
                palisade = Some(path);
            }
            continue;
        }
        let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().context("a manifest's folder")?.to_owned();
        let privileged = kind == "test" && PRIVILEGED.contains(&target.as_str());
        binaries.push(TestBinary {
            target,
            kind,
            path,
            folder,
            privileged,
        });
    }
    // The cheapest first, and those that need the kernel last.
    binaries.sort_by_key(|binary| (binary.privileged, binary.name()));
    Ok((binaries, palisade))
}

/// Runs one binary and reads its result.
pub(crate) fn run_binary(binary: &TestBinary) -> Result<Counts> {
    let command = if binary.privileged {
        tools::as_root(&binary.path)
    } else {
        Some(Command::new(&binary.path))
    };
    let Some(mut command) = command else {
        let skipped = count_tests(binary)?;
        println!(
            "{}: {skipped} skipped: they need root, and there is no sudo",
            binary.name()
        );
        return Ok(Counts {
            skipped,
            ..Counts::default()
        });
    };
    if binary.privileged {
        command.env("PALISADE_REQUIRE_PRIVILEGED", "1");
    }
    let output = command
        .current_dir(&binary.folder)
        .stdin(Stdio::inherit())
        .output();
    let output = output.with_context(|| binary.path.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let mut counts = parse(&text);
    if !output.status.success() {
        // A crash has no result line of its own.
        counts.failed = counts.failed.max(1);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(SHOWN_LINES_MAX);
        println!("{}", lines[start..].join("\n"));
    }
    if counts != Counts::default() {
        println!("{}: {counts}", binary.name());
    }
    Ok(counts)
}

fn count_tests(binary: &TestBinary) -> Result<usize> {
    let output = Command::new(&binary.path).arg("--list").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| line.ends_with(": test")).count())
}

/// Counts of a `test result:` line.
pub(crate) fn parse(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            let before = line.split(word).next().unwrap_or_default();
            let digits = before
                .trim_end()
                .rsplit([' ', ';'])
                .next()
                .unwrap_or_default();
            digits.parse().unwrap_or(0)
        };
        counts.add(Counts {
            passed: number(" passed"),
            failed: number(" failed"),
            skipped: number(" ignored"),
        });
    }
    counts
}

/// `palisade lab --check`, as one test.
fn lab(palisade: &PathBuf) -> Counts {
    let Some(mut command) = tools::as_root(palisade) else {
        println!("lab: skipped: it needs root, and there is no sudo");
        return Counts {
            skipped: 1,
            ..Counts::default()
        };
    };
    let outcome = run(command.args(["lab", "--check"]));
    let failed = usize::from(outcome.is_err());
    if let Err(error) = outcome {
        println!("lab: {error:#}");
    }
    Counts {
        passed: 1 - failed,
        failed,
        skipped: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let text = "running 3 tests\ntest result: FAILED. 12 passed; 3 failed; 4 ignored; \
                    0 measured; 0 filtered out; finished in 0.1s\n";
        assert_eq!(
            parse(text),
            Counts {
                passed: 12,
                failed: 3,
                skipped: 4
            }
        );
        assert_eq!(parse("segmentation fault"), Counts::default());
    }
}
