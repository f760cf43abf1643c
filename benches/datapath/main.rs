//! What a packet costs: `cargo xtask bench datapath [--json]`.
//!
//! BPF_PROG_TEST_RUN of the shipped programs through their tail calls, with
//! tables made by the policy engine and put in force by the datapath, in
//! namespaces of its own. Beside them, in the same rounds, the floors: single
//! kernel operations as programs of their own. Needs root.

mod cases;
mod floors;
mod frames;
mod harness;
#[expect(dead_code, reason = "some of it only the programs use")]
#[path = "../../bpf-prog/bench/src/layout.rs"]
mod layout;
mod measure;
mod place;
#[path = "../shared/private.rs"]
mod private;
mod programs;
mod random;
mod report;
mod rounds;
mod sandbox;
mod targets;
mod world;

use rounds::Options;

fn number(word: Option<String>, default: u32) -> u32 {
    word.and_then(|word| word.parse().ok()).unwrap_or(default)
}

fn main() {
    let mut options = Options::default();
    let mut json = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            "--runs" => options.runs = number(words.next(), options.runs),
            "--repeat" => options.repeat = number(words.next(), options.repeat),
            "--base" => options.only_base = true,
            "--case" => options.only_case = words.next(),
            // From `cargo bench` itself.
            "--bench" => {}
            other => {
                eprintln!(
                    "unknown option {other}: [--json] [--base] [--case NAME] [--runs N] [--repeat N]"
                );
                std::process::exit(2);
            }
        }
    }
    let outcome = sandbox::run(|bpffs| rounds::run(bpffs, options));
    if json {
        println!("{}", report::as_json(&outcome));
    } else {
        report::print(&outcome);
    }
}
