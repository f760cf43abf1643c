//! `status --verify`: a whole audit, now, and what the commit word says against
//! what the agent believes.

use crate::api::Agent;
use crate::datapath::kernel::{AuditReport, Mending, Part};
use crate::model::Check;
use crate::policy::Direction;
use crate::queues::drift_line;

/// Compares everything with the kernel, and mends it.
pub(super) fn run(agent: &Agent) -> Vec<Check> {
    let report = agent.drift.verify();
    let mut checks: Vec<Check> = Part::ALL.map(|part| check(part, &report)).into();
    let state = agent.inspector.commit_state();
    let believed = agent.pipeline.realized();
    let generation = believed.map_or(0, |realized| realized.generation.0);
    checks.push(Check {
        name: "generation".to_owned(),
        ok: state.generation.0 == generation,
        detail: format!(
            "the commit word says {}, the agent {generation}",
            state.generation.0,
        ),
        compared: 1,
        differed: u64::from(state.generation.0 != generation),
        repaired: 0,
    });
    let held = (state.enforced, state.watched);
    let believed = believed.map_or_else(Default::default, |it| (it.enforced, it.watched));
    checks.push(Check {
        name: "enforcement".to_owned(),
        ok: held == believed,
        detail: format!(
            "the commit word says {}, the agent {}",
            directions(held),
            directions(believed)
        ),
        compared: 1,
        differed: u64::from(held != believed),
        repaired: 0,
    });
    checks
}

/// `ingress enforced, egress in audit` of what is (enforced, watched).
fn directions((enforced, watched): ([bool; 2], [bool; 2])) -> String {
    let words = Direction::BOTH.map(|direction| {
        let place = direction as usize;
        let word = match (enforced[place], watched[place]) {
            (true, _) => "enforced",
            (false, true) => "in audit",
            (false, false) => "not enforced",
        };
        format!("{} {word}", direction.as_str())
    });
    words.join(", ")
}

fn check(part: Part, report: &AuditReport) -> Check {
    let found: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.part == part)
        .collect();
    let is_done = |mending: &Mending| *mending == Mending::Done;
    let compared = report.compared.get(&part).copied();
    let lines: Vec<String> = found.iter().map(|finding| drift_line(finding)).collect();
    let detail = match compared {
        None if lines.is_empty() => "nothing to compare yet".to_owned(),
        _ if lines.is_empty() => format!("{} compared, as written", compared.unwrap_or(0)),
        _ => format!("{} compared; {}", compared.unwrap_or(0), lines.join("; ")),
    };
    Check {
        name: part.as_str().to_owned(),
        ok: found.iter().all(|finding| is_done(&finding.mending)),
        detail,
        compared: compared.unwrap_or(0),
        differed: found.iter().map(|finding| finding.count).sum(),
        repaired: found
            .iter()
            .filter(|finding| is_done(&finding.mending))
            .map(|finding| finding.count)
            .sum(),
    }
}
