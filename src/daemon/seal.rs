//! `--policy-enforcement always` on a node without rules would seal it.

use anyhow::{Result, bail};

use crate::config::Config;
use crate::datapath::Realized;
use crate::endpoint::HOST_ENDPOINT;
use crate::events::{RepositoryChange, SourceName};
use crate::limits::MANIFEST_FILE_BYTES_MAX;
use crate::policy::{
    Direction, EnforcementMode, PolicyOptions, Repository, Subject, documents, resolve,
};
use crate::sources::manifests::{read_capped, scan};

/// Refuses to start where the first commit would seal the node and nobody said
/// that this is meant. A node that is enforced in both directions already, and
/// whose manifests cannot be listed now, goes on as it was.
pub(super) fn check(config: &Config, adopted: Option<Realized>) -> Result<()> {
    let asked_for = config.policy.enforcement != EnforcementMode::Always
        || config.seal_confirmed
        || !config.policy.failsafe.is_empty();
    let goes_on = adopted.is_some_and(|realized| realized.enforced == [true, true])
        && config
            .manifests
            .iter()
            .any(|directory| scan(directory).is_err());
    if asked_for || goes_on || has_rules(config) {
        return Ok(());
    }
    bail!(
        "--policy-enforcement always: no policy in the manifests selects this node, which would \
         seal it; add a policy, keep a way in with --failsafe tcp/22@CIDR, or confirm with \
         --yes-seal-this-node"
    )
}

/// Whether a policy that lies there now selects this node.
fn has_rules(config: &Config) -> bool {
    let mut repository = Repository::new(PolicyOptions {
        enforcement: EnforcementMode::Default,
        ..config.policy.clone()
    });
    let files = config
        .manifests
        .iter()
        .filter_map(|directory| scan(directory).ok());
    for file in files.flatten() {
        let Ok(bytes) = read_capped(&file, MANIFEST_FILE_BYTES_MAX) else {
            continue;
        };
        let name = file.display().to_string();
        let reading = documents::read(&name, &bytes, SourceName::Manifests);
        for document in reading.documents {
            repository.apply(&RepositoryChange::Upsert(document.resource));
        }
    }
    let policy = resolve(&repository.snapshot(), Subject::Host(HOST_ENDPOINT), false);
    policy.is_ok_and(|policy| {
        let mut directions = Direction::BOTH.into_iter();
        directions.any(|direction| policy.direction(direction).enforced)
    })
}
