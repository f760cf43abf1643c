//! `palisade policy diff`: what changes for packets between two sets of
//! manifests, or two revisions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::node::NodeOptions;
use super::output::Output;
use super::{CliError, validate};
use crate::api::client::Client;
use crate::events::EndpointId;
use crate::policy::diff::{PolicyDiff, diff};
use crate::policy::{PolicySnapshot, Repository, Subject};

/// Compares two directories or files offline, or two revisions of the agent.
pub(super) fn run(
    socket: &Path,
    out: Output,
    (before, after): (&Path, &Path),
    node: &NodeOptions,
) -> Result<(), CliError> {
    let told = match (revision(before), revision(after)) {
        (Some(before), Some(after)) => {
            if let Some(flag) = node.first_given() {
                let reason = "needs two directories or files; the agent knows its own node";
                return Err(CliError::Usage(format!("{flag}: {reason}")));
            }
            let path = format!("/policy/diff?before={before}&after={after}");
            Client::new(socket)?.get(&path)?
        }
        (Some(number), None) | (None, Some(number)) => {
            return Err(CliError::Usage(format!(
                "{number} is a revision and the other is not: compare two revisions, or two \
                 directories or files (one that is named {number} is ./{number})"
            )));
        }
        (None, None) => {
            let before = snapshot(before, node)?;
            let after = snapshot(after, node)?;
            diff(&before, &after, Subject::Host(EndpointId(1)))
        }
    };
    out.print(&told, diff_text)
}

/// A bare number is a revision, whatever lies in the working directory.
fn revision(path: &Path) -> Option<u64> {
    let text = path.to_str()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// What an agent of the node would know. What is broken is told and left out,
/// as the agent does.
fn snapshot(path: &Path, node: &NodeOptions) -> Result<Arc<PolicySnapshot>, CliError> {
    let mut repository = Repository::new(node.policy_options()?);
    let report = validate::check(&[PathBuf::from(path)], &mut repository)?;
    for finding in &report.errors {
        eprintln!("palisade: left out: {finding}");
    }
    Ok(repository.snapshot())
}

pub(super) fn diff_text(diff: &PolicyDiff) -> String {
    let mut text = String::new();
    for change in &diff.enforcement {
        text.push_str(&format!("{change}\n"));
    }
    for change in &diff.changes {
        text.push_str(&format!("{change}\n"));
    }
    if diff.changes.is_empty() && diff.cut.is_none() {
        text.push_str("no packet's verdict changes\n");
    }
    if let Some(cut) = &diff.cut {
        text.push_str(&format!("{cut}\n"));
    }
    text
}
