//! Everything an operator should look at, from every room.

use crate::api::Agent;
use crate::api::model::{Problem, Severity};
use crate::endpoint::EndpointStatus;
use crate::policy::Refusal;
use crate::policy::language::FieldError;
use crate::queues::PipelineStatus;

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
    for refusal in agent.pipeline.refused().iter() {
        problems.extend(refused(agent, refusal));
    }
    problems.extend(warnings(agent));
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
