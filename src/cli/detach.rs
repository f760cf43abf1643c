//! `palisade detach`: the only way out.

use super::CliError;
use super::args::DetachOptions;
use super::output::Output;

pub(super) fn run(options: &DetachOptions, out: Output) -> Result<(), CliError> {
    let report = crate::daemon::detach(&options.bpffs, &options.state_dir)
        .map_err(|error| CliError::Failed(format!("{error:#}")))?;
    out.print(&report, |report| report.join("\n"))
}
