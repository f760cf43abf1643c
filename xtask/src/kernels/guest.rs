//! The machine that runs test binaries: boots a kernel with our initramfs, runs
//! the jobs, and reads from its second serial line what became of them.

use std::time::Duration;

use anyhow::Result;

use super::Job;
use super::debian::Kernel;
use super::initramfs::{Archive, MODULE_FOLDER};
use crate::emulator::{self, Folder, MARK, Machine};
use crate::test::{self, Counts};

/// A guest that is not done by then hangs.
const TIME_LIMIT: Duration = Duration::from_secs(900);
/// Characters of a long line that are shown.
const SHOWN_BEGIN: usize = 300;
const SHOWN_END: usize = 700;

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
    let folder = Folder::new(&format!("kernel-{}", kernel.version))?;
    let mut archive = Archive::base(&kernel.modules)?;
    for job in jobs {
        let binary = emulator::stripped(&job.binary, &folder, job.target);
        archive.program(&binary, &format!("/tests/{}", job.target))?;
    }
    archive.file("/init", init(jobs).into_bytes());
    let machine = Machine {
        kernel,
        initramfs: archive.bytes(),
        disk: None,
        limit: TIME_LIMIT,
    };
    let ended = machine.run(&folder)?;
    let mut report = read(&kernel.version, &ended.results);
    report.broken = ended.hung.clone().or(report.broken);
    if let Some(reason) = &mut report.broken {
        reason.push_str(&ended.last_lines());
    }
    Ok(report)
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
