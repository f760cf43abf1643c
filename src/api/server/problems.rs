//! Everything an operator should look at, from every room.

use crate::api::Agent;
use crate::api::noted::Noted;
use crate::endpoint::EndpointStatus;
use crate::model::{Problem, Severity};
use crate::policy::Refusal;
use crate::policy::language::FieldError;
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
    problems.extend(of_policies(agent));
    for text in &agent.start.warnings {
        problems.push(warning("datapath", agent.node.clone(), text.clone()));
    }
    if pipeline.options_wait {
        let message = "options that this agent was started with and the last one was not \
                       (`--policy-enforcement`, `--failsafe`, ...) count when every source is in sync";
        problems.push(warning("options", agent.node.clone(), message.to_owned()));
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

/// What policies in force are warned about, and which ports they name that this
/// host does not have.
fn of_policies(agent: &Agent) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut noted = agent.noted.lock();
    noted.look_at(&agent.pipeline.repository());
    for Noted { stored, nameless } in noted.policies() {
        let (key, origin) = (&stored.resource.key, &stored.resource.origin);
        let mut warnings = stored.warnings.clone();
        agent.board.locate(key, &mut warnings);
        for mut field in warnings {
            let place = place_of((&origin.file, origin.line), &mut field, &key.to_string());
            problems.push(warning("policy", place, field.to_string()));
        }
        for (path, name) in nameless {
            let line = origin.item_lines.get(path);
            let place = match line.filter(|_| !origin.file.is_empty()) {
                Some(line) => format!("{}:{line}: {key}", origin.file),
                None => key.to_string(),
            };
            let text = format!(
                "{path}: {name:?}: this host has no port of this name: it matches nothing; name \
                 it with --named-ports, or write the number"
            );
            problems.push(warning("policy", place, text));
        }
    }
    problems
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
