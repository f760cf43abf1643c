//! Build, test and lab entry points: `cargo xtask <command>`.

mod apiserver;
mod apt;
mod bench;
mod boot;
mod bpf;
mod charts;
mod ci;
mod command;
mod emulator;
mod fuzz;
mod fuzz_targets;
mod image;
mod kernels;
mod long_tests;
mod object;
mod scale;
mod sim;
mod stamp;
mod streaming;
mod test;
mod toolchain;
mod tools;
mod upgrades;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask <command>

  bpf           rebuild bpf-prog/*.bpf.o and their stamps from bpf-prog/
  bpf --check   rebuild them elsewhere and compare them with the committed ones
  test          set up and run everything: format, lints, all tests, the lab
  kernels [--kernel 6.1|6.12|host] [--all] [--only NAME]
                every program and the packet tables on this kernel and, emulated,
                on Debian's; --all: every kernel test there too
  boot [--kernel 6.1|6.12]
                the systemd unit in an emulated machine: booted, killed, hung, stopped,
                its power cut, booted again without any source
  ci            what CI checks besides: bpf --check, kernels, boot, fuzz targets,
                dependencies
  fuzz [--minutes N] [--seed S] [--cases N]
                the differential test, built for release: policy text, tables, kernel
  fuzz packets [--minutes N] [--seed S]
                changed captures through the real programs against their plain reading
  fuzz targets [--minutes N]
                the fuzz targets of fuzz/, each for N minutes (nightly, cargo-fuzz)
  apiserver     build the kube-apiserver that the tests use, fetch helm and kubectl, once (minutes)
  scale [--nodes N]
                a node that hears of 5,000 nodes, 20,000 pods and 2,000 policies, and
                of a tenth (root): time to sync, changes per second, memory
  scale --etcd [--nodes N]
                the same of 5,000 hosts, 20,000 addresses and 2,000 policies in etcd
  streaming     the Kubernetes source against a server that streams lists (root); built once
                from the sources of Debian's unstable release (minutes)
  image         the agent's image without Docker: a static program for musl, the last stage
                of deploy/Dockerfile, an agent started out of it (root); to target/image.tar
  lab ...       `palisade lab`, built for release
  bench control what a change costs from the text of a manifest to enforced, by rules
                and identities, beside nftables; --json, --kernel (root), --rules N,
                --sets (nftables' task alone);
                or one cluster's world: --pods N, --policies N, --pairs N
  bench datapath
                what a packet costs beside what its operations cost (root);
                --json, --base (the base point only), --case NAME, --runs N,
                --repeat N
  bench wire    what a packet costs on a veth: no firewall, Palisade, nftables (root);
                --json, --rounds N
  bench start   what a start costs with 10,000 policies and 100,000 prefixes, and
                with a tenth (root); --json, --policies N, --prefixes N, --runs N;
                or the memory of maps and agent with up to 100,000 rules: --memory
  flips [--count N]
                policies replaced under traffic (root), 10,000 times
  kills [--count N] [--seed N]
                the agent killed at random moments (root), 200 times, under changes
                of policy and numbered traffic; what passed, what was dropped
  imports [--count N] [--seed N]
                the agent killed around an import (root), 1,000 times
  stops [--seconds N] [--seed N]
                the agent stopped for a minute (root) under changes and traffic
  partition [--seconds N]
                a node without its etcd for a minute (root) while policies change
  upgrades [--count N]
                takeovers between versions, ended at every step; N starts killed
                under traffic (root), 200
  sim [--seeds N | --seed N | --hours N]
                crashes and faults at every step, simulated: 20,000 seeds; one seed
                again; so many hours of churn on a virtual clock, memory printed
";

/// `cargo run --release -- lab`, with the same words.
fn lab(words: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(command::root());
    command::run(
        cargo
            .args(["run", "--release", "--quiet", "--", "lab"])
            .args(words),
    )
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["apiserver"] => apiserver::ensure().and_then(|()| charts::ensure()),
        ["scale", rest @ ..] => scale::run(rest),
        ["image"] => image::run_all(),
        ["streaming"] => streaming::run_all(),
        ["bpf"] => bpf::rebuild(),
        ["bpf", "--check"] => bpf::check(),
        ["test"] => test::run_all(),
        ["kernels", rest @ ..] => kernels::run(rest),
        ["boot", rest @ ..] => boot::run(rest),
        ["ci"] => ci::run_all(),
        ["fuzz", "targets", rest @ ..] => fuzz_targets::run_all(rest),
        ["fuzz", "packets", rest @ ..] => fuzz::run_packets(rest),
        ["fuzz", rest @ ..] => fuzz::run_for(rest),
        ["lab", rest @ ..] => lab(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["flips", rest @ ..] => long_tests::flips(rest),
        ["kills", rest @ ..] => long_tests::kills(rest),
        ["imports", rest @ ..] => long_tests::imports(rest),
        ["stops", rest @ ..] => long_tests::stops(rest),
        ["partition", rest @ ..] => long_tests::partition(rest),
        ["upgrades", rest @ ..] => upgrades::run(rest),
        ["sim", rest @ ..] => sim::run(rest),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
