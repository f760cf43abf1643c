//! `palisade replay`: an old revision, from the records of an agent that does not
//! run. The same replay as the agent's own; nothing is written.

use std::fmt::Write as _;

use palisade_state::{Store, StoreError};
use serde::Serialize;

use super::CliError;
use super::args::ReplayOptions;
use super::identity::identity_table;
use super::output::Output;
use super::policy::dump_text;
use crate::events::{EndpointId, Revision};
use crate::model::{Identity, PolicyDump};
use crate::policy::PolicyOptions;
use crate::queues::rebuild;

#[derive(Serialize, Debug)]
struct Replayed {
    #[serde(flatten)]
    policies: PolicyDump,
    identities: Vec<Identity>,
    /// Of the agent.
    policy_audit_mode: bool,
    endpoints: Vec<ReplayedEndpoint>,
}

/// An endpoint as it was at the revision.
#[derive(Serialize, Debug)]
struct ReplayedEndpoint {
    id: u16,
    identity: u32,
    labels: Vec<String>,
    policy_audit_mode: bool,
}

pub(super) fn run(out: Output, options: &ReplayOptions) -> Result<(), CliError> {
    let store = Store::open_existing(&options.state_dir)
        .map_err(|error| CliError::Failed(refusal(&error, options.to)))?;
    let state = rebuild(&store, Revision(options.to), &PolicyOptions::default())
        .map_err(|error| CliError::Failed(error.to_string()))?;
    let snapshot = state.repository.snapshot();
    let audit = &state.circumstances.audit;
    let endpoints = state.circumstances.endpoints.values();
    let replayed = Replayed {
        policies: PolicyDump::with_checksums(&snapshot),
        identities: Identity::all(&snapshot),
        policy_audit_mode: audit.agent(),
        endpoints: endpoints
            .map(|endpoint| ReplayedEndpoint {
                id: endpoint.id,
                identity: endpoint.identity,
                labels: endpoint.labels.clone(),
                policy_audit_mode: audit.effective(EndpointId(endpoint.id)),
            })
            .collect(),
    };
    out.print(&replayed, |replayed| {
        let identities = identity_table(&replayed.identities);
        let mut endpoints = String::new();
        for endpoint in &replayed.endpoints {
            let word = if endpoint.policy_audit_mode {
                "Enabled"
            } else {
                "Disabled"
            };
            let _ = writeln!(
                endpoints,
                "endpoint {} (identity {}): PolicyAuditMode={word}, {}",
                endpoint.id,
                endpoint.identity,
                endpoint.labels.join(" ")
            );
        }
        let policies = dump_text(&replayed.policies);
        format!("{identities}\n{endpoints}\n{policies}")
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
