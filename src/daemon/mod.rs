//! The wiring of the agent, read top-down: config, store, datapath, pipeline,
//! sources, API, metrics, signals. No logic.

use std::path::Path;

use anyhow::{Result, bail};

use crate::config::Config;

/// Runs the agent until SIGTERM or SIGINT; enforcement outlives it.
///
/// # Errors
/// When the agent cannot start, or a worker of it died.
pub fn run(config: Config) -> Result<()> {
    bail!("node {}: no datapath to run", config.node_name)
}

/// Removes every link, pin, map and program of Palisade; tells what it removed.
///
/// # Errors
/// When an agent still runs, or something could not be removed.
pub fn detach(bpffs: &Path, state_dir: &Path) -> Result<Vec<String>> {
    bail!(
        "nothing to detach in {} ({})",
        bpffs.display(),
        state_dir.display()
    )
}
