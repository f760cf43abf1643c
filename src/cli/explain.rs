//! `palisade policy explain`: offline from manifests, or asked of the agent.

use std::path::Path;

use super::args::ExplainOptions;
use super::monitor::rule_words;
use super::output::{Output, Table};
use super::{CliError, validate};
use crate::api::client::Client;
use crate::api::question::question;
use crate::events::EndpointId;
use crate::model::{DecidingRule, Explanation};
use crate::policy::{Query, Repository, Subject, explain, why_not};

pub(super) fn run(socket: &Path, out: Output, options: &ExplainOptions) -> Result<(), CliError> {
    let query = question(
        &options.direction,
        options.peer,
        &options.proto,
        options.port,
        options.icmp_type,
    )
    .map_err(CliError::Usage)?;
    let explanation = if options.manifests.is_empty() {
        if let Some(flag) = options.node.first_given() {
            let reason = "needs --manifests DIR; the agent answers for its own node";
            return Err(CliError::Usage(format!("{flag}: {reason}")));
        }
        Client::new(socket)?.get(&path(options))?
    } else {
        offline(options, &query)?
    };
    out.print(&explanation, explanation_table)
}

fn path(options: &ExplainOptions) -> String {
    let mut path = format!(
        "/policy/explain?direction={}&peer={}&proto={}&why_not={}",
        options.direction, options.peer, options.proto, options.why_not
    );
    if let Some(port) = options.port {
        path.push_str(&format!("&port={port}"));
    }
    if let Some(icmp_type) = options.icmp_type {
        path.push_str(&format!("&icmp_type={icmp_type}"));
    }
    path
}

/// What an agent of this node would do with these manifests. What is broken in
/// them is told and left out, as the agent does.
fn offline(options: &ExplainOptions, query: &Query) -> Result<Explanation, CliError> {
    let mut repository = Repository::new(options.node.policy_options()?);
    let report = validate::check(&options.manifests, &mut repository)?;
    for finding in &report.errors {
        eprintln!("palisade: left out: {finding}");
    }
    let host = Subject::Host(EndpointId(1));
    let snapshot = repository.snapshot();
    let explanation = explain(&snapshot, host, false, query);
    let why_not = if options.why_not {
        why_not(&snapshot, host, query)
    } else {
        Vec::new()
    };
    Ok(Explanation::new(explanation, why_not))
}

pub(super) fn explanation_table(explanation: &Explanation) -> String {
    let mut table = Table::default();
    table.row(["Verdict:", &explanation.verdict]);
    table.row(["Reason:", &explanation.reason]);
    let rule = explanation.rule.as_ref();
    let name = rule.map(|rule| rule_words(&rule.name));
    table.row(["Rule:", &name.unwrap_or_else(|| "none".to_owned())]);
    if let Some(place) = rule.and_then(place) {
        table.row(["Written at:", &place]);
    }
    if let Some(log) = &explanation.log {
        table.row(["Log:", log]);
    }
    let identity = &explanation.identity;
    let labels = identity.labels.join(",");
    table.row(["Peer identity:", &format!("{} {labels}", identity.id)]);
    table.row(["Enforced:", if explanation.enforced { "yes" } else { "no" }]);
    table.row(["Revision:", &explanation.revision.to_string()]);
    for (position, miss) in explanation.why_not.iter().enumerate() {
        let line = format!("{}: {}: {}", rule_words(&miss.name), miss.term, miss.reason);
        table.row([if position == 0 { "Why not:" } else { "" }, &line]);
    }
    table.render()
}

/// `file:line`
fn place(rule: &DecidingRule) -> Option<String> {
    let file = rule.file.as_ref()?;
    Some(match rule.line {
        Some(line) => format!("{file}:{line}"),
        None => file.clone(),
    })
}
