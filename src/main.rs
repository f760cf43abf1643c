//! The one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    palisade::cli::main()
}
