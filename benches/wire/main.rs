//! What a packet costs on a wire without a firewall, with Palisade and with
//! nftables doing the same job:
//! `cargo xtask bench wire [--json] [--rounds N] [--load NAME]...`.
//!
//! In reading order: `net` (two namespaces and a veth pair for each setting),
//! `sources` (who is allowed), `settings` (the firewalls), `cpu` (what is
//! measured), `frames` and `send` (the sender), `floods` and `streams` (the
//! loads), `rounds` (the interleaving), `report`.
//!
//! Needs root. Everything is in namespaces of its own.

mod cpu;
mod floods;
mod frames;
mod net;
mod report;
mod rounds;
mod send;
mod settings;
mod sources;
mod streams;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

/// Enough for a median that one disturbed round does not move.
const ROUNDS: usize = 9;

struct Options {
    json: bool,
    rounds: usize,
    loads: Vec<rounds::Load>,
}

fn options() -> Result<Options> {
    let mut options = Options {
        json: false,
        rounds: ROUNDS,
        loads: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--rounds" => {
                let number = words.next().and_then(|word| word.parse().ok());
                match number.filter(|rounds| *rounds > 0) {
                    Some(rounds) => options.rounds = rounds,
                    None => bail!("--rounds takes a number from 1"),
                }
            }
            "--load" => options.loads.push(load(words.next().as_deref())?),
            // From `cargo bench` itself.
            "--bench" => {}
            other => bail!("unknown option {other}: [--json] [--rounds N] [--load NAME]..."),
        }
    }
    if options.loads.is_empty() {
        options.loads = rounds::Load::ALL.into();
    }
    Ok(options)
}

fn load(name: Option<&str>) -> Result<rounds::Load> {
    let all = rounds::Load::ALL;
    let found = all.into_iter().find(|load| Some(load.name()) == name);
    let names = all.map(rounds::Load::name).join(", ");
    found.with_context(|| format!("--load takes one of {names}"))
}

fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("needs root: network namespaces and eBPF programs");
    }
    let cpu = cpu::Cpu::last()?;
    let started = report::load_average();
    let (places, missing) = settings::build()?;
    let table = rounds::run(&places, &cpu, &options.loads, options.rounds)?;
    let report = report::Report {
        rounds: options.rounds,
        cpu: cpu.number(),
        load: [started, report::load_average()],
        missing,
        table,
    };
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
