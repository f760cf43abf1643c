//! Build, test and lab entry points: `cargo xtask <command>`.

mod bpf;
mod command;
mod object;
mod stamp;
mod toolchain;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  bpf           rebuild bpf-prog/palisade.bpf.o and its stamp from bpf-prog/
  bpf --check   rebuild it elsewhere and compare it with the committed one
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["bpf"] => bpf::rebuild(),
        ["bpf", "--check"] => bpf::check(),
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
