//! An emulated machine: boots a kernel with our initramfs, runs the jobs, and
//! reads from its second serial line what became of them. The first one is the
//! kernel's own, so its messages never stand between ours.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Job;
use super::debian::Kernel;
use super::initramfs::{Archive, MODULE_FOLDER};
use crate::command::run;
use crate::test::{self, Counts};
use crate::tools;

const EMULATOR: &str = "qemu-system-x86_64";
const PACKAGES: &[&str] = &["qemu-system-x86", "seabios", "busybox-static"];
/// Emulated: every machine can, and tests do not depend on what else the host
/// virtualises. `rep movs` is emulated byte by byte, so the kernel is told to copy
/// without it where it may.
const CPU: &str = "max,-erms,-fsrm";
const MEMORY_MIB: &str = "2048";
/// A guest that is not done by then hangs.
const TIME_LIMIT: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(250);
/// Begins each line of the init script, so that no test can be mistaken for it.
const MARK: &str = "palisade-guest:";
/// Characters of a long line that are shown.
const SHOWN_BEGIN: usize = 300;
const SHOWN_END: usize = 700;
/// Lines of a guest that did not end by itself which are shown.
const SHOWN_LINES_MAX: usize = 60;

/// Makes sure that there is an emulator, or says why not.
pub(crate) fn ensure_tools() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!(
            "the test binaries are for {}, the kernels for x86-64",
            env::consts::ARCH
        );
    }
    if !(tools::exists(EMULATOR) && tools::exists("busybox")) {
        tools::apt_install(PACKAGES).with_context(|| {
            format!(
                "no {EMULATOR} or no busybox here; on Debian, as root: \
                 apt-get install --no-install-recommends {}",
                PACKAGES.join(" ")
            )
        })?;
    }
    Ok(())
}

/// What one job of a guest said.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    target: String,
    output: String,
    /// None: it never ended.
    status: Option<i32>,
    seconds: f64,
}

impl Outcome {
    fn failing_tests(&self) -> Vec<&str> {
        let lines = self.output.lines();
        lines
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .collect()
    }
}

/// What became of a guest.
#[derive(Debug)]
pub(crate) struct Report {
    kernel: String,
    outcomes: Vec<Outcome>,
    /// Seconds from its boot to its end.
    seconds: f64,
    /// Why it is worth nothing, if so, with the last lines of its console.
    broken: Option<String>,
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        let ended_well = |outcome: &Outcome| outcome.status == Some(0);
        let mut counts = Counts::default();
        for outcome in &self.outcomes {
            counts.add(test::parse(&outcome.output));
        }
        // A filter that names no test must not look like a success.
        self.broken.is_none() && counts.all_passed() && self.outcomes.iter().all(ended_well)
    }

    pub(crate) fn print(&self) {
        for outcome in &self.outcomes {
            let counts: Counts = test::parse(&outcome.output);
            println!(
                "{}, {}: {counts} in {:.0} s",
                self.kernel, outcome.target, outcome.seconds
            );
            if outcome.status == Some(0) {
                continue;
            }
            println!("{}", readable(&outcome.output));
            for name in outcome.failing_tests() {
                println!("{}, {}: FAILED {name}", self.kernel, outcome.target);
            }
        }
        match &self.broken {
            Some(reason) => println!("{}: {reason}", self.kernel),
            None => println!("{}: {:.0} s with its boot", self.kernel, self.seconds),
        }
    }
}

/// Every line, of long ones (the verifier's words) begin and end.
fn readable(output: &str) -> String {
    let mut text = String::new();
    for line in output.lines() {
        let characters = line.chars().count();
        if characters <= SHOWN_BEGIN + SHOWN_END {
            text.push_str(line);
        } else {
            text.extend(line.chars().take(SHOWN_BEGIN));
            text.push_str(" [...] ");
            text.extend(line.chars().skip(characters - SHOWN_END));
        }
        text.push('\n');
    }
    text
}

/// Runs the jobs on that kernel.
pub(crate) fn boot(kernel: &Kernel, jobs: &[Job]) -> Result<Report> {
    let folder = Folder::new(&kernel.version)?;
    let mut archive = Archive::base(&kernel.modules)?;
    for job in jobs {
        let small = folder.path.join(job.target);
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&small).arg(&job.binary);
        // A large one only takes longer to unpack.
        let binary = if run(&mut strip).is_ok() {
            &small
        } else {
            &job.binary
        };
        archive.program(binary, &format!("/tests/{}", job.target))?;
    }
    archive.file("/init", init(jobs).into_bytes());
    let initramfs = folder.path.join("initramfs");
    fs::write(&initramfs, archive.bytes())?;
    let (console, results) = (folder.path.join("console"), folder.path.join("results"));
    let mut emulator = Command::new(EMULATOR);
    emulator.args(["-accel", "tcg", "-cpu", CPU, "-smp", "2", "-m", MEMORY_MIB]);
    emulator.args([
        "-display",
        "none",
        "-monitor",
        "none",
        "-nic",
        "none",
        "-no-reboot",
    ]);
    for line in [&console, &results] {
        emulator
            .arg("-serial")
            .arg(format!("file:{}", line.display()));
    }
    emulator.arg("-kernel").arg(&kernel.image);
    emulator.arg("-initrd").arg(&initramfs);
    emulator.args(["-append", "console=ttyS0 panic=1 quiet mitigations=off"]);
    let child = emulator
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {EMULATOR}"))?;
    let ended = wait(child)?;
    let results = fs::read(&results).unwrap_or_default();
    let mut report = read(&kernel.version, &String::from_utf8_lossy(&results));
    if !ended {
        report.broken = Some(format!("not done after {} s, killed", TIME_LIMIT.as_secs()));
    }
    if let Some(reason) = &mut report.broken {
        let console = fs::read(&console).unwrap_or_default();
        for (name, text) in [("results", &results), ("console", &console)] {
            reason.push_str(&format!("\n  last lines of its {name}:\n"));
            reason.push_str(&last_lines(&String::from_utf8_lossy(text)));
        }
    }
    Ok(report)
}

/// Whether it ended by itself within the limit.
fn wait(mut child: Child) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < TIME_LIMIT {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{EMULATOR} failed: {status}");
            }
            return Ok(true);
        }
        sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n")
}

/// The first program of the guest, and its only one.
fn init(jobs: &[Job]) -> String {
    let mut script = format!(
        "#!/bin/sh
export PATH=/bin PALISADE_REQUIRE_PRIVILEGED=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
exec </dev/null >/dev/ttyS1 2>&1
now() {{ read up idle </proc/uptime; }}
for module in {MODULE_FOLDER}/*.ko; do insmod $module || echo {MARK} no module $module; done
ip link set lo up
cd /tests
"
    );
    for job in jobs {
        let (target, filters) = (job.target, job.filters.join(" "));
        script.push_str(&format!(
            "now; echo {MARK} begin $up {target}\n\
             ./{target} {filters}; status=$?\n\
             now; echo; echo {MARK} end $up $status\n"
        ));
    }
    script.push_str(&format!("now; echo {MARK} done $up\npoweroff -f\n"));
    script
}

/// The report from what came over the serial line.
fn read(kernel: &str, text: &str) -> Report {
    let mut report = Report {
        kernel: kernel.to_owned(),
        outcomes: Vec::new(),
        seconds: 0.0,
        broken: Some("it ended before its tests did".to_owned()),
    };
    let mut running: Option<Outcome> = None;
    for line in text.lines() {
        let Some(said) = line.strip_prefix(MARK) else {
            if let Some(outcome) = &mut running {
                outcome.output.push_str(line);
                outcome.output.push('\n');
            }
            continue;
        };
        let words: Vec<&str> = said.split_whitespace().collect();
        let seconds = |word: &str| word.parse::<f64>().unwrap_or(0.0);
        match words.as_slice() {
            ["begin", up, target] => {
                running = Some(Outcome {
                    target: (*target).to_owned(),
                    seconds: -seconds(up),
                    ..Outcome::default()
                });
            }
            ["end", up, status] => {
                report
                    .outcomes
                    .extend(running.take().map(|outcome| Outcome {
                        status: status.parse().ok(),
                        seconds: outcome.seconds + seconds(up),
                        ..outcome
                    }));
            }
            ["done", up] => {
                report.seconds = seconds(up);
                report.broken = None;
            }
            _ => println!("{kernel}: {}", said.trim()),
        }
    }
    // What ran when the guest died.
    report.outcomes.extend(running);
    report
}

/// A folder of one guest; gone with the guard.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("palisade-kernel-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "palisade-guest: begin 2.5 packets\r\n\
        test a::b ... ok\r\ntest result: ok. 1 passed; 0 failed; 0 ignored; \r\n\r\n\
        palisade-guest: end 12.5 0\r\n";

    #[test]
    fn a_guest_that_said_everything_is_believed() {
        let report = read("6.1", &format!("{PASSED}palisade-guest: done 13\r\n"));
        assert!(report.passed(), "{report:?}");
        assert_eq!(report.outcomes[0].target, "packets");
        assert!((report.outcomes[0].seconds - 10.0).abs() < 0.01);
    }

    #[test]
    fn of_a_long_line_both_ends_are_shown() {
        let line = format!("begin{}end\nshort", "x".repeat(5_000));
        let text = readable(&line);
        assert!(text.starts_with("begin") && text.contains("xend\nshort\n"));
        assert!(text.len() < 1_100, "{}", text.len());
    }

    #[test]
    fn a_guest_that_died_or_failed_is_not() {
        assert!(!read("6.1", "").passed());
        assert!(
            !read("6.1", "palisade-guest: done 13\n").passed(),
            "it ran nothing"
        );
        let died = read(
            "6.1",
            &format!("{PASSED}palisade-guest: begin 13 kernel\ntest c"),
        );
        assert!(!died.passed());
        assert_eq!(died.outcomes[1].status, None);
        let failed = "palisade-guest: begin 1 kernel\ntest a::b ... FAILED\n\
                      palisade-guest: end 2 101\npalisade-guest: done 3\n";
        let failed = read("6.1", failed);
        assert!(!failed.passed());
        assert_eq!(failed.outcomes[0].failing_tests(), ["a::b"]);
    }
}
