//! The command line: a contract that scripts rely on.
//!
//! Every command prints its result to standard output in the form asked for by
//! `-o`, and messages to standard error. Exit 0: fine, 1: failed or invalid,
//! 2: usage. Reading order: `args` (the tree), `node` (flags of commands that
//! answer offline), `output`, then one file for each group of commands.

mod agent;
mod args;
mod bpf;
mod crds;
mod detach;
mod diff;
mod endpoint;
mod explain;
mod identity;
mod monitor;
mod node;
mod output;
mod policy;
mod replay;
mod status;
mod validate;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
use output::Output;

use crate::api::client::{Client, ClientError};
use crate::datapath::kernel::Layout;
use crate::lab;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit 2.
    #[error("{0}")]
    Usage(String),
    /// Exit 1.
    #[error("{0}")]
    Failed(String),
    /// Exit 1; everything is said already.
    #[error("")]
    Said,
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    main_with(&arguments, Layout::current())
}

/// The same for other words, and for an agent whose pins have another layout:
/// tests play another version with it.
#[must_use]
pub fn main_with(arguments: &[OsString], layout: Layout) -> ExitCode {
    match run(arguments, layout) {
        Ok(code) => code,
        Err(CliError::Said) => ExitCode::FAILURE,
        Err(CliError::Failed(message)) => {
            eprintln!("palisade: {message}");
            ExitCode::FAILURE
        }
        Err(CliError::Usage(message)) => {
            eprintln!("palisade: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[OsString], layout: Layout) -> Result<ExitCode, CliError> {
    let cli = parse(Cli::command(), arguments);
    let out = Output::new(cli.output);
    let client = || Client::new(Path::new(&cli.socket));
    match cli.command {
        Command::Agent(options) => agent::run(&options, arguments, layout),
        Command::Lab(options) => {
            return lab::run(&options).map_err(|error| CliError::Failed(format!("{error:#}")));
        }
        Command::Status(options) => status::status(&client()?, out, &options),
        Command::Endpoint(command) => endpoint::run(&client()?, out, &command),
        Command::Policy(command) => policy::run(Path::new(&cli.socket), out, &command),
        Command::Identity(command) => identity::identities(&client()?, out, &command),
        Command::Ip(command) => identity::addresses(&client()?, out, &command),
        Command::Monitor(options) => monitor::run(&client()?, out, &options),
        Command::Bpf(command) => bpf::run(&client()?, out, &command),
        Command::Metrics(command) => status::metrics(&client()?, out, &command),
        Command::History(options) => status::history(&client()?, out, &options),
        Command::Replay(options) => replay::run(out, &options),
        Command::Crds(options) => crds::run(out, &options),
        Command::Detach(options) => detach::run(&options, out),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Parses, or prints help or a usage error and ends the process as clap does
/// (help 0, usage 2).
fn parse(command: clap::Command, arguments: &[OsString]) -> Cli {
    let matches = command.get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}
