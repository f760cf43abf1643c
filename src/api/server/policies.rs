//! `/policy`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::reply::{Refusal, Reply, blocking};
use crate::api::Agent;
use crate::api::question::question;
use crate::endpoint::HOST_ENDPOINT;
use crate::events::{RepositoryChange, ResourceKey, ResourceKind, Revision, SourceName};
use crate::limits::API_WAIT_MAX;
use crate::model::{ChangeReply, Explanation, PolicyDump, Selector, WaitReply};
use crate::policy::diff::PolicyDiff;
use crate::policy::{self, Subject, documents};
use crate::queues::ChangeOutcome;

#[derive(Deserialize)]
pub(super) struct Dump {
    revision: Option<u64>,
}

/// The newest revision as it lives in memory; an older one is rebuilt from the
/// journal.
pub(super) async fn dump(
    State(agent): State<Arc<Agent>>,
    Query(asked): Query<Dump>,
) -> Reply<PolicyDump> {
    blocking(move || {
        let snapshot = match asked.revision {
            Some(revision) => agent.pipeline.snapshot_at(Revision(revision))?,
            None => agent.pipeline.repository(),
        };
        Ok(Json(PolicyDump::with_checksums(&snapshot)))
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Question {
    direction: String,
    peer: IpAddr,
    proto: String,
    port: Option<u16>,
    icmp_type: Option<u8>,
    #[serde(default)]
    why_not: bool,
}

pub(super) async fn explain(
    State(agent): State<Arc<Agent>>,
    Query(asked): Query<Question>,
) -> Reply<Explanation> {
    let query = question(
        &asked.direction,
        asked.peer,
        &asked.proto,
        asked.port,
        asked.icmp_type,
    )
    .map_err(Refusal::bad)?;
    let endpoint = agent.pipeline.endpoint(HOST_ENDPOINT);
    let audit = endpoint.is_some_and(|endpoint| endpoint.audit_effective);
    let snapshot = agent.pipeline.repository();
    let subject = Subject::Host(HOST_ENDPOINT);
    let explanation = policy::explain(&snapshot, subject, audit, &query);
    let why_not = if asked.why_not {
        policy::why_not(&snapshot, subject, &query)
    } else {
        Vec::new()
    };
    Ok(Json(Explanation::new(explanation, why_not)))
}

#[derive(Deserialize)]
pub(super) struct Compared {
    before: u64,
    after: u64,
}

pub(super) async fn diff(
    State(agent): State<Arc<Agent>>,
    Query(asked): Query<Compared>,
) -> Reply<PolicyDiff> {
    blocking(move || {
        let before = agent.pipeline.snapshot_at(Revision(asked.before))?;
        let after = agent.pipeline.snapshot_at(Revision(asked.after))?;
        let subject = Subject::Host(HOST_ENDPOINT);
        Ok(Json(policy::diff::diff(&before, &after, subject)))
    })
    .await
}

pub(super) async fn selectors(State(agent): State<Arc<Agent>>) -> Json<Vec<Selector>> {
    let selectors = agent.pipeline.repository().selectors();
    let selectors = selectors.into_iter().map(|entry| Selector {
        selector: entry.selector,
        users: entry.users.iter().map(ToString::to_string).collect(),
        identities: entry.identities.iter().map(|number| number.0).collect(),
    });
    Json(selectors.collect())
}

#[derive(Deserialize)]
pub(super) struct Wait {
    revision: u64,
    timeout_s: u64,
}

pub(super) async fn wait(
    State(agent): State<Arc<Agent>>,
    Query(wait): Query<Wait>,
) -> Reply<WaitReply> {
    let timeout = Duration::from_secs(wait.timeout_s).min(API_WAIT_MAX);
    blocking(move || {
        let enforced = agent
            .pipeline
            .wait_enforced(Revision(wait.revision), timeout);
        let revision = enforced.map_err(|error| {
            let newest = agent.pipeline.status().revision;
            Refusal::timeout(format!(
                "revision {} is not enforced: {error}; the repository is at revision {newest}, \
                 `palisade endpoint list` shows what is realized",
                wait.revision
            ))
        })?;
        Ok(Json(WaitReply {
            revision: revision.0,
        }))
    })
    .await
}

/// Each file with its name: all resources of all files, one revision each.
pub(super) async fn import(
    State(agent): State<Arc<Agent>>,
    Json(files): Json<Vec<(String, String)>>,
) -> Reply<ChangeReply> {
    blocking(move || {
        let mut changes = Vec::new();
        let mut errors = Vec::new();
        for (name, text) in &files {
            let reading = documents::read(name, text.as_bytes(), SourceName::Api);
            errors.extend(reading.errors.iter().map(ToString::to_string));
            let found = reading.documents.into_iter();
            changes.extend(found.map(|document| RepositoryChange::Upsert(document.resource)));
        }
        if !errors.is_empty() {
            return Err(Refusal::bad(format!(
                "nothing was imported:\n{}",
                errors.join("\n")
            )));
        }
        apply(&agent, changes).map(Json)
    })
    .await
}

pub(super) async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(text): Path<String>,
) -> Reply<ChangeReply> {
    let key = parse_key(&text).ok_or_else(|| {
        Refusal::bad(format!(
            "`{text}`: expected Kind/name or the name of a policy"
        ))
    })?;
    blocking(move || {
        let source = SourceName::Api;
        apply(&agent, vec![RepositoryChange::Delete { key, source }]).map(Json)
    })
    .await
}

fn parse_key(text: &str) -> Option<ResourceKey> {
    let (kind, name) = text
        .split_once('/')
        .unwrap_or(("CiliumClusterwideNetworkPolicy", text));
    let kinds = [
        ResourceKind::CiliumClusterwideNetworkPolicy,
        ResourceKind::Node,
        ResourceKind::CiliumNode,
    ];
    let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
    let plain = !name.is_empty() && !name.contains('/');
    plain.then(|| ResourceKey {
        kind,
        namespace: None,
        name: name.to_owned(),
    })
}

/// Submits all, then waits for each.
fn apply(agent: &Agent, changes: Vec<RepositoryChange>) -> Result<ChangeReply, Refusal> {
    let mut submitted = Vec::new();
    for change in changes {
        let subject = change.subject();
        let submission = agent.pipeline.submit(change)?;
        submitted.push((subject, submission.sequence, submission));
    }
    let mut reply = ChangeReply {
        revision: agent.pipeline.repository().revision.0,
        changes: Vec::new(),
        errors: Vec::new(),
    };
    for (subject, sequence, submission) in submitted {
        let (revision, word) = match submission.wait(API_WAIT_MAX)? {
            ChangeOutcome::Applied { revision, .. } => (revision, "applied"),
            ChangeOutcome::Unchanged { revision } => (revision, "unchanged"),
            ChangeOutcome::Deferred { revision } => {
                (revision, "deferred until every source is in sync")
            }
            ChangeOutcome::Refused { revision, refusal } => {
                let errors = refusal.errors.iter();
                reply
                    .errors
                    .extend(errors.map(|error| format!("{subject}: {error}")));
                (revision, "refused")
            }
        };
        if sequence.is_some_and(|sequence| !agent.pipeline.lasts(sequence)) {
            let problem = agent.pipeline.status().store_problem.unwrap_or_default();
            reply.errors.push(format!(
                "{subject}: {word}, but not yet on the disk, so it would be lost with the agent: \
                 {problem}"
            ));
        }
        reply.revision = reply.revision.max(revision.0);
        reply.changes.push(format!("{subject} {word}"));
    }
    Ok(reply)
}
