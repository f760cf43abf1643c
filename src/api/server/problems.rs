//! Everything an operator should look at, from every room.

use crate::api::Agent;
use crate::api::model::{Problem, Severity};
use crate::endpoint::EndpointStatus;
use crate::policy::language::{FieldError, Item, L4Match, NamedPort, Ports};
use crate::policy::{Direction, Refusal};
use crate::queues::{PipelineStatus, drift_line};

pub(super) fn gather(
    agent: &Agent,
    pipeline: &PipelineStatus,
    endpoint: Option<&EndpointStatus>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (source, report) in agent.board.reports() {
        for problem in report.problems {
            let message = problem.message;
            problems.push(error(source.as_str(), problem.subject, message));
        }
        for note in report.notes {
            problems.push(warning(source.as_str(), note.subject, note.message));
        }
    }
    for problem in agent.devices.report().problems {
        problems.push(error("devices", problem.subject, problem.message));
    }
    problems.extend(unprotected(agent));
    for finding in agent.drift.report().open {
        let kind = finding.part.as_str().to_owned();
        problems.push(error("drift", kind, drift_line(&finding)));
    }
    for refusal in agent.pipeline.refused().iter() {
        problems.extend(refused(agent, refusal));
    }
    problems.extend(warnings(agent));
    problems.extend(nameless_ports(agent));
    for text in &agent.start.warnings {
        problems.push(warning("datapath", agent.node.clone(), text.clone()));
    }
    for (from, message) in [
        ("store", pipeline.store_problem.clone()),
        ("datapath", pipeline.datapath_problem.clone()),
        (
            "endpoint",
            endpoint.and_then(|endpoint| endpoint.error.clone()),
        ),
    ] {
        problems.extend(message.map(|message| error(from, agent.node.clone(), message)));
    }
    problems
}

/// Devices that policy should hold for, and does not.
fn unprotected(agent: &Agent) -> Vec<Problem> {
    let overdue = agent.devices.report().overdue(agent.clock.now());
    let realized = agent.pipeline.realized();
    let enforces = realized.is_some_and(|realized| realized.enforced.contains(&true));
    let tell = |(device, span): (String, std::time::Duration)| {
        let seconds = span.as_secs();
        let message = format!(
            "unprotected for {seconds} s; it is tried again every second, see the other problems \
             of this device"
        );
        if enforces {
            error("devices", device, message)
        } else {
            warning("devices", device, message)
        }
    };
    overdue.into_iter().map(tell).collect()
}

fn problem(severity: Severity, from: &str, subject: String, message: String) -> Problem {
    Problem {
        severity,
        from: from.to_owned(),
        subject,
        message,
    }
}

fn error(from: &str, subject: String, message: String) -> Problem {
    problem(Severity::Error, from, subject, message)
}

fn warning(from: &str, subject: String, message: String) -> Problem {
    problem(Severity::Warning, from, subject, message)
}

/// Every error of a refused version, with its line.
fn refused(agent: &Agent, refusal: &Refusal) -> Vec<Problem> {
    let mut errors = refusal.errors.clone();
    agent.board.locate(&refusal.key, &mut errors);
    let kept = if refusal.in_force {
        "; the last valid version stays in force"
    } else {
        ""
    };
    let origin = (&refusal.origin.file, refusal.origin.line);
    errors
        .into_iter()
        .map(|mut field| {
            let place = place_of(origin, &mut field, &refusal.key.to_string());
            error("policy", place, format!("{field}{kept}"))
        })
        .collect()
}

/// What policies in force are warned about.
fn warnings(agent: &Agent) -> Vec<Problem> {
    let mut problems = Vec::new();
    for stored in agent.pipeline.repository().policies.values() {
        let mut warnings = stored.warnings.clone();
        agent.board.locate(&stored.resource.key, &mut warnings);
        let origin = (&stored.resource.origin.file, stored.resource.origin.line);
        for mut field in warnings {
            let place = place_of(origin, &mut field, &stored.resource.key.to_string());
            problems.push(warning("policy", place, field.to_string()));
        }
    }
    problems
}

/// Rules of policies in force that name a port which this host does not have:
/// they match nothing.
fn nameless_ports(agent: &Agent) -> Vec<Problem> {
    let snapshot = agent.pipeline.repository();
    let mut problems = Vec::new();
    for stored in snapshot.policies.values().filter(|it| it.selects_host) {
        let (key, origin) = (&stored.resource.key, &stored.resource.origin);
        for item in stored.policy.rules.iter().flat_map(|rule| &rule.items) {
            for name in unknown_names(item, &snapshot.options.named_ports) {
                let line = origin.item_lines.get(&item.path);
                let place = match line.filter(|_| !origin.file.is_empty()) {
                    Some(line) => format!("{}:{line}: {key}", origin.file),
                    None => key.to_string(),
                };
                let text = format!(
                    "{}: {name:?}: this host has no port of this name: it matches nothing; name \
                     it with --named-ports, or write the number",
                    item.path
                );
                problems.push(warning("policy", place, text));
            }
        }
    }
    problems
}

/// The named ports of an item for ingress that `known` does not hold, each once.
fn unknown_names<'a>(item: &'a Item, known: &[NamedPort]) -> Vec<&'a str> {
    let mut unknown = Vec::new();
    let Ports::Some(matches) = &item.ports else {
        return unknown;
    };
    if item.section.direction() != Some(Direction::Ingress) {
        return unknown;
    }
    // With no protocol written a name stands for each; one of them is enough.
    let is_known = |wanted: &str| {
        matches.iter().any(|entry| {
            let L4Match::Named { protocol, name } = entry else {
                return false;
            };
            let same = |port: &NamedPort| port.name == *name && port.protocol == *protocol;
            name == wanted && known.iter().any(same)
        })
    };
    for entry in matches {
        if let L4Match::Named { name, .. } = entry
            && !is_known(name)
            && !unknown.contains(&name.as_str())
        {
            unknown.push(name.as_str());
        }
    }
    unknown
}

/// `file:line: resource`; the line leaves the message.
fn place_of(origin: (&String, usize), field: &mut FieldError, resource: &str) -> String {
    let (file, line) = origin;
    let line = field.line.take().unwrap_or(line);
    if file.is_empty() {
        resource.to_owned()
    } else {
        format!("{file}:{line}: {resource}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Section;
    use crate::policy::language::{Peers, PortProtocol};

    #[test]
    fn a_named_port_that_the_host_does_not_have_is_told_once() {
        let port = |name: &str, protocol| L4Match::Named {
            protocol,
            name: name.to_owned(),
        };
        let item = |section| Item {
            section,
            index: 0,
            path: "spec.ingress[0]".to_owned(),
            peers: Peers::Any,
            ports: Ports::Some(vec![
                port("ssh", PortProtocol::Tcp),
                port("web", PortProtocol::Tcp),
                port("web", PortProtocol::Udp),
                L4Match::Protocol(47),
            ]),
        };
        let known = [NamedPort {
            name: "ssh".to_owned(),
            protocol: PortProtocol::Tcp,
            port: 22,
        }];
        assert_eq!(unknown_names(&item(Section::Ingress), &known), ["web"]);
        assert_eq!(
            unknown_names(&item(Section::IngressDeny), &[]),
            ["ssh", "web"]
        );
        assert_eq!(
            unknown_names(&item(Section::Egress), &[]),
            [""; 0],
            "the peers'"
        );
    }
}
