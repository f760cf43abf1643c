//! `palisade monitor`: follows events, one line or one object for each.

use super::CliError;
use super::args::MonitorOptions;
use super::output::{Output, timestamp};
use crate::api::client::Client;
use crate::identity::Reserved;
use crate::model::{Decision, EventKind, MonitorEvent, Peer, RuleName};

pub(super) fn run(client: &Client, out: Output, options: &MonitorOptions) -> Result<(), CliError> {
    let mut query = Vec::new();
    let mut kinds = Vec::new();
    for kind in options.kinds.iter().map(|kind| kind.trim()) {
        let known = EventKind::ALL.iter().find(|known| known.as_str() == kind);
        match known {
            Some(known) => kinds.push(known.as_str()),
            None => {
                return Err(CliError::Usage(format!(
                    "`{kind}` is not a kind of event; known: drop, policy-verdict, trace, agent"
                )));
            }
        }
    }
    if !kinds.is_empty() {
        query.push(format!("kinds={}", kinds.join(",")));
    }
    for (name, id) in [
        ("from", options.from),
        ("to", options.to),
        ("related_to", options.related_to),
    ] {
        query.extend(id.map(|id| format!("{name}={id}")));
    }
    if kinds.contains(&EventKind::Trace.as_str()) {
        eprintln!(
            "note: this release sends no trace events; packets show as drop or policy-verdict"
        );
    }
    if out.is_table() {
        eprintln!("Listening for events, press Ctrl-C to quit");
    }
    let mut failure = None;
    client.follow(&format!("/monitor?{}", query.join("&")), |line| {
        let printed = serde_json::from_str::<MonitorEvent>(line)
            .map_err(|error| CliError::Failed(format!("the event is not understood: {error}")))
            .and_then(|event| out.event(&event, event_line));
        match printed {
            Ok(read) => read,
            Err(error) => {
                failure = Some(error);
                false
            }
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// Cilium's line, with the addresses, identities and the deciding policy.
pub(super) fn event_line(event: &MonitorEvent) -> String {
    match event {
        MonitorEvent::Drop(decision) => format!(
            "xx drop ({}) flow to endpoint {}, {}, {}, identity {}->{}: {}{}",
            decision.reason,
            decision.endpoint,
            decision.direction,
            decision.device,
            identity(&decision.source),
            identity(&decision.destination),
            summary(decision),
            policies(decision),
        ),
        MonitorEvent::PolicyVerdict(decision) => format!(
            "Policy verdict log: flow local EP ID {}, remote ID {}, proto {}, {}, action {}, \
             identity {}->{}: {}{}",
            decision.endpoint,
            remote(decision).identity,
            decision.protocol,
            decision.direction,
            action(decision),
            identity(&decision.source),
            identity(&decision.destination),
            summary(decision),
            policies(decision),
        ),
        MonitorEvent::Agent(note) => format!(
            ">> {} {}: {} (revision {}): {}",
            timestamp(note.time_ms),
            note.event,
            note.subject,
            note.revision,
            note.message
        ),
        MonitorEvent::Lost { count, cause } => format!("!! {count} events lost: {cause}"),
    }
}

fn action(decision: &Decision) -> &'static str {
    match decision.verdict.as_str() {
        "allowed" => "allow",
        "audited" => "audit",
        _ => "deny",
    }
}

fn remote(decision: &Decision) -> &Peer {
    if decision.direction == "egress" {
        &decision.destination
    } else {
        &decision.source
    }
}

/// A reserved identity reads as its name, another one as its number.
fn identity(peer: &Peer) -> String {
    let mut reserved = Reserved::ALL.iter();
    reserved
        .find(|reserved| reserved.number().0 == peer.identity)
        .map_or_else(
            || peer.identity.to_string(),
            |reserved| reserved.name().to_owned(),
        )
}

fn summary(decision: &Decision) -> String {
    let mut text = format!(
        "{} -> {} {}",
        side(&decision.source),
        side(&decision.destination),
        decision.protocol
    );
    if !decision.detail.is_empty() {
        text.push(' ');
        text.push_str(&decision.detail);
    }
    text
}

fn side(peer: &Peer) -> String {
    match (peer.ip, peer.port) {
        (Some(std::net::IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        (Some(ip), None) => ip.to_string(),
        (None, _) => "[unknown]".to_owned(),
    }
}

/// The rule that decided, or the policies that made the direction default-deny.
fn policies(decision: &Decision) -> String {
    match &decision.rule {
        Some(rule) => format!(", rule {}{}", rule_words(rule), log_words(decision)),
        None if decision.policies.is_empty() => String::new(),
        None => format!(", no rule of {} allows it", decision.policies.join(", ")),
    }
}

/// What the author of the rule wants to read with it; escaped, so that it is
/// one line and cannot pass for another part of it.
fn log_words(decision: &Decision) -> String {
    let log = decision.log.as_ref();
    log.map(|log| format!(", log {log:?}")).unwrap_or_default()
}

/// `Kind/name ingress[0]`.
pub(super) fn rule_words(rule: &RuleName) -> String {
    format!("{} {}[{}]", rule.resource, rule.section, rule.index)
}
