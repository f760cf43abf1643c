//! `palisade replay`: an old revision, from the records of an agent that does not
//! run. The same replay as the agent's own; nothing is written.

use palisade_state::{Store, StoreError};
use serde::Serialize;

use super::CliError;
use super::args::ReplayOptions;
use super::identity::identity_table;
use super::output::Output;
use super::policy::dump_text;
use crate::api::model::{Identity, PolicyDump};
use crate::events::Revision;
use crate::policy::PolicyOptions;
use crate::queues::rebuild;

#[derive(Serialize, Debug)]
struct Replayed {
    #[serde(flatten)]
    policies: PolicyDump,
    identities: Vec<Identity>,
}

pub(super) fn run(out: Output, options: &ReplayOptions) -> Result<(), CliError> {
    let store = Store::open_existing(&options.state_dir)
        .map_err(|error| CliError::Failed(refusal(&error, options.to)))?;
    let repository = rebuild(&store, Revision(options.to), &PolicyOptions::default())
        .map_err(|error| CliError::Failed(error.to_string()))?;
    let snapshot = repository.snapshot();
    let replayed = Replayed {
        policies: PolicyDump::with_checksums(&snapshot),
        identities: Identity::all(&snapshot),
    };
    out.print(&replayed, |replayed| {
        let identities = identity_table(&replayed.identities);
        format!("{identities}\n{}", dump_text(&replayed.policies))
    })
}

/// The lock's own words are for one who starts an agent.
fn refusal(error: &StoreError, to: u64) -> String {
    match error {
        StoreError::InUse { path } => format!(
            "an agent holds {}; while it runs, ask it: `palisade policy get --revision {to}`",
            path.display()
        ),
        other => other.to_string(),
    }
}
