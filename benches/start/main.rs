//! What a start of the agent costs when its store is large:
//! `cargo xtask bench start [--json] [--policies N] [--prefixes N] [--runs N]
//! [--exe FILE]`, and what it then takes in memory: `--memory [--json]`.
//!
//! The real binary in a sandbox of its own. Each kind of start is measured with
//! a tenth of everything, then with all of it, and the growth is printed.
//! Memory is that of a first start, with 100, 10,000 and 100,000 rules. Needs
//! root.

mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use world::{Before, Size, Start, World};

const SIZE: Size = Size {
    policies: 10_000,
    prefixes: 100_000,
};
const RUNS: usize = 3;
/// For `--memory`: a rule is a policy for a prefix of its own.
const MEMORY_RULES: [usize; 3] = [100, 10_000, 100_000];

/// Kinds of starts, in the order in which they are made.
const KINDS: [(Before, &str); 4] = [
    (Before::Nothing, "first, all from manifests"),
    (Before::Term, "warm, after SIGTERM"),
    (Before::Kill, "warm, after SIGKILL"),
    (Before::Detached, "cold, the kernel holds nothing"),
];

#[derive(Debug)]
struct Line {
    name: &'static str,
    size: Size,
    /// The run with the median time.
    start: Start,
}

fn main() -> Result<()> {
    let mut size = SIZE;
    let mut runs = RUNS;
    let (mut as_json, mut only_memory) = (false, false);
    let mut exe = PathBuf::from(env!("CARGO_BIN_EXE_palisade"));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word.as_str() {
            "--json" => as_json = true,
            "--memory" => only_memory = true,
            "--policies" => size.policies = number().unwrap_or(size.policies),
            "--prefixes" => size.prefixes = number().unwrap_or(size.prefixes),
            "--runs" => runs = number().unwrap_or(runs).max(1),
            "--exe" => exe = words.next().map_or(exe, PathBuf::from),
            // From `cargo bench` itself.
            "--bench" => {}
            other => {
                eprintln!(
                    "unknown option {other}: [--json] [--policies N] [--prefixes N] [--runs N] \
                     [--exe FILE] | [--json] --memory"
                );
                std::process::exit(2);
            }
        }
    }
    if only_memory {
        return memory(&exe, as_json);
    }
    let tenth = Size {
        policies: (size.policies / 10).max(1),
        prefixes: size.prefixes / 10,
    };
    let lines = [measure(&exe, tenth, runs)?, measure(&exe, size, runs)?];
    if as_json {
        let lines: Vec<_> = lines.iter().flatten().map(machine_line).collect();
        println!("{}", json!(lines));
    } else {
        print(&lines);
    }
    Ok(())
}

/// What the agent and its maps take.
fn memory(exe: &Path, as_json: bool) -> Result<()> {
    let mut starts = Vec::new();
    for rules in MEMORY_RULES {
        let size = Size {
            policies: rules,
            prefixes: rules,
        };
        let start = World::build(exe, size)?.start(Before::Nothing)?;
        eprintln!(
            "{rules} rules: maps {} KiB, agent {} KiB, its peak {} KiB",
            start.maps_kib, start.resident_kib, start.peak_kib
        );
        starts.push((rules, start));
    }
    if as_json {
        let lines: Vec<_> = starts
            .iter()
            .map(|(rules, start)| {
                json!({
                    "rules": rules,
                    "maps_kib": start.maps_kib,
                    "agent_kib": start.resident_kib,
                    "agent_peak_kib": start.peak_kib,
                })
            })
            .collect();
        println!("{}", json!(lines));
        return Ok(());
    }
    println!(
        "{:>9} {:>12} {:>12} {:>12}",
        "rules", "maps", "agent", "peak"
    );
    for (rules, start) in starts {
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1_024.0);
        let Start {
            maps_kib,
            resident_kib,
            peak_kib,
            ..
        } = start;
        println!(
            "{rules:>9} {:>12} {:>12} {:>12}",
            mib(maps_kib),
            mib(resident_kib),
            mib(peak_kib)
        );
    }
    Ok(())
}

fn measure(exe: &Path, size: Size, runs: usize) -> Result<Vec<Line>> {
    let mut world = World::build(exe, size)?;
    let mut lines = Vec::new();
    for (before, name) in KINDS {
        let runs = if before == Before::Nothing { 1 } else { runs };
        let mut starts = Vec::new();
        for _ in 0..runs {
            starts.push(world.start(before)?);
        }
        starts.sort_by_key(|start| start.enforcing);
        let start = starts[starts.len() / 2];
        lines.push(Line { name, size, start });
    }
    Ok(lines)
}

fn machine_line(line: &Line) -> serde_json::Value {
    json!({
        "start": line.name,
        "policies": line.size.policies,
        "prefixes": line.size.prefixes,
        "enforcing_ms": milliseconds(line.start.enforcing),
        "ready_ms": milliseconds(line.start.ready),
        "cpu_ms": milliseconds(line.start.cpu),
        "peak_kib": line.start.peak_kib,
        "written": line.start.written,
        "status_us": u64::try_from(line.start.status.as_micros()).unwrap_or(u64::MAX),
    })
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn print(lines: &[Vec<Line>; 2]) {
    println!(
        "{:<32} {:>8} {:>8} {:>12} {:>12} {:>12} {:>9} {:>9} {:>9}",
        "start", "policies", "prefixes", "enforcing", "ready", "CPU", "peak", "written", "status"
    );
    for (small, large) in lines[0].iter().zip(&lines[1]) {
        for line in [small, large] {
            let Line { name, size, start } = line;
            println!(
                "{name:<32} {:>8} {:>8} {:>9} ms {:>9} ms {:>9} ms {:>5} MiB {:>9} {:>6.2} ms",
                size.policies,
                size.prefixes,
                milliseconds(start.enforcing),
                milliseconds(start.ready),
                milliseconds(start.cpu),
                start.peak_kib >> 10,
                start.written,
                start.status.as_secs_f64() * 1e3
            );
        }
        let times = |of: fn(&Start) -> f64| of(&large.start) / of(&small.start).max(1.0);
        println!(
            "{:<50} {:>10.1} x {:>10.1} x {:>10.1} x {:>7.1} x",
            "  growth",
            times(|start| start.enforcing.as_secs_f64() * 1e3),
            times(|start| start.ready.as_secs_f64() * 1e3),
            times(|start| start.cpu.as_secs_f64() * 1e3),
            times(|start| start.peak_kib as f64),
        );
    }
}
