//! `palisade agent`: reads the config file, then hands over to the daemon.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::CliError;
use super::args::{Cli, Command};
use crate::config::{AgentOptions, Config, ConfigErrors, FileOptions, Origins};
use crate::datapath::kernel::Layout;

/// Runs the agent until a signal ends it.
pub(super) fn run(
    first: &AgentOptions,
    arguments: &[OsString],
    layout: Layout,
) -> Result<(), CliError> {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let config = configure(first, arguments, &hostname)?;
    crate::daemon::run_with(&config, layout).map_err(|error| CliError::Failed(format!("{error:#}")))
}

/// The whole configuration. The values of the config file become defaults of
/// the flags, so that flag and environment win over them.
pub(super) fn configure(
    first: &AgentOptions,
    arguments: &[OsString],
    hostname: &str,
) -> Result<Config, CliError> {
    let file = match first.config.as_deref().filter(|file| !file.is_empty()) {
        Some(file) => load(file)?,
        None => FileOptions::default(),
    };
    let command = Cli::command().mut_subcommand("agent", |agent| with_defaults(agent, &file));
    let mut matches = command
        .try_get_matches_from(arguments)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let origins = matches
        .subcommand_matches("agent")
        .map(|agent| origins(agent, &file, first.config.as_deref()))
        .unwrap_or_default();
    let cli = Cli::from_arg_matches_mut(&mut matches)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let Command::Agent(options) = cli.command else {
        return Err(CliError::Usage("not the agent's command line".to_owned()));
    };
    Config::resolve(&options, &origins, hostname).map_err(|errors| usage(&errors))
}

fn usage(errors: &ConfigErrors) -> CliError {
    CliError::Usage(format!("the configuration is not valid:\n{errors}"))
}

fn load(file: &str) -> Result<FileOptions, CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::Usage(format!(
            "--config: {file}: {error}; name a readable YAML file"
        ))
    })?;
    let mut command = Cli::command();
    command.build();
    let known: Vec<String> = command
        .find_subcommand("agent")
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .map(|arg| arg.get_id().to_string())
        .filter(|id| !matches!(id.as_str(), "help" | "version" | "output"))
        .collect();
    FileOptions::parse(file, &text, &known).map_err(|errors| usage(&ConfigErrors(errors)))
}

fn with_defaults(mut agent: clap::Command, file: &FileOptions) -> clap::Command {
    for (key, values) in &file.values {
        let values = values.clone();
        agent = agent.mut_arg(key, |arg| arg.default_values(values));
    }
    agent
}

/// Where each value came from, in words.
fn origins(agent: &ArgMatches, file: &FileOptions, name: Option<&str>) -> Origins {
    let mut origins = BTreeMap::new();
    for id in agent.ids() {
        let key = id.as_str();
        let variable = format!("PALISADE_{}", key.to_uppercase().replace('-', "_"));
        let place = match agent.value_source(key) {
            Some(ValueSource::EnvVariable) => format!("environment variable {variable}"),
            Some(ValueSource::DefaultValue) if file.values.contains_key(key) => {
                format!("{}: {key}", name.unwrap_or_default())
            }
            _ => format!("--{key}"),
        };
        origins.insert(key.to_owned(), place);
    }
    Origins(origins)
}
