//! `/status` and `/history`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use imbl::OrdSet;
use serde::Deserialize;

use super::reply::{Refusal, Reply, blocking};
use super::{checks, problems};
use crate::api::Agent;
use crate::datapath::kernel::{Feature, FeatureState, Mechanism, Mending};
use crate::endpoint::HOST_ENDPOINT;
use crate::endpoint::{EndpointStatus, Enforcement};
use crate::events::ResourceKey;
use crate::metrics::current_names;
use crate::model::{
    ControlStatus, DeviceStatus, DriftLine, DriftStatus, EnforcementStatus, FeatureLine,
    HistoryLine, KernelStatus, KindLine, MapMemory, MapUse, ProgramLine, ProtectionStatus,
    QueueLine, RealizedLine, SourceLine, Status,
};
use crate::policy::Direction;
use crate::queues::drift_line;
use crate::sources::KindReport;

#[derive(Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    verify: bool,
}

pub(super) async fn status(
    State(agent): State<Arc<Agent>>,
    Query(options): Query<Options>,
) -> Reply<Status> {
    blocking(move || Ok(Json(build(&agent, options.verify)))).await
}

fn build(agent: &Agent, verify: bool) -> Status {
    // First, so that the rest tells how it is after the repairs.
    let checks = if verify {
        checks::run(agent)
    } else {
        Vec::new()
    };
    let pipeline = agent.pipeline.status();
    let endpoint = agent.pipeline.endpoint(HOST_ENDPOINT);
    let realized = agent.pipeline.realized().map(|realized| RealizedLine {
        generation: realized.generation.0,
        revision: realized.revision.0,
        newest_revision: pipeline.revision.0,
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: agent.node.clone(),
        ready: agent.collector.is_ready(),
        enforcing: enforcing(agent, endpoint.as_ref()),
        realized,
        devices: devices(agent),
        protection: protection(agent),
        drift: drift(agent),
        control: agent.control_status().unwrap_or_else(|error| {
            tracing::warn!("the list of the agent's own traffic: {error}");
            ControlStatus::default()
        }),
        sources: sources(agent),
        queues: queues(agent),
        kernel: kernel(agent),
        problems: problems::gather(agent, &pipeline, endpoint.as_ref()),
        checks,
    }
}

/// Policies that a reason names; the others are counted.
const REASON_NAMES_MAX: usize = 10;

fn enforcing(agent: &Agent, endpoint: Option<&EndpointStatus>) -> EnforcementStatus {
    let policy = endpoint.map(|endpoint| endpoint.policy).unwrap_or_default();
    let names = current_names(&agent.pipeline);
    let mut reasons = Vec::new();
    for (direction, enforcement) in [
        (Direction::Ingress, policy.ingress),
        (Direction::Egress, policy.egress),
    ] {
        let place = direction as usize;
        let of = |policies: &OrdSet<ResourceKey>| {
            let named = policies.iter().take(REASON_NAMES_MAX);
            let names: Vec<_> = named.map(|key| key.name.as_str()).collect();
            let more = match policies.len() - names.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            names.join(", ") + &more
        };
        let names = names.as_deref();
        let by = names.map(|names| of(&names.enforcing[place]));
        let audit = names.map(|names| of(&names.auditing[place]));
        let (by, audit) = (by.unwrap_or_default(), audit.unwrap_or_default());
        let word = direction.as_str();
        reasons.push(enforcement_reason(
            word,
            enforcement,
            policy.audit_mode,
            &by,
            &audit,
        ));
    }
    let reason = if names.is_none() {
        "nothing is committed yet".to_owned()
    } else {
        reasons.join("; ")
    };
    EnforcementStatus {
        ingress: policy.ingress,
        egress: policy.egress,
        reason,
    }
}

/// Why a direction is enforced or not: `by` whom, and who would in `audit`.
fn enforcement_reason(
    direction: &str,
    enforcement: Enforcement,
    audit_mode: bool,
    by: &str,
    audit: &str,
) -> String {
    let who = match enforcement {
        Enforcement::Disabled => {
            return format!("{direction}: no policy with {direction} rules selects this node");
        }
        Enforcement::Enabled if by.is_empty() => "by configuration".to_owned(),
        Enforcement::Enabled => format!("by {by}"),
        Enforcement::Audit if !audit_mode => "no policy enforces it".to_owned(),
        Enforcement::Audit if by.is_empty() => "audit mode".to_owned(),
        Enforcement::Audit => format!("audit mode, would be enforced by {by}"),
    };
    if audit.is_empty() {
        format!("{direction}: {who}")
    } else {
        format!("{direction}: {who}, in audit: {audit}")
    }
}

/// Every device with its place in protection.
fn devices(agent: &Agent) -> Vec<DeviceStatus> {
    let attached = agent.inspector.attached();
    let (report, now) = (agent.devices.report(), agent.clock.now());
    let unprotected = report.unprotected;
    let lines = report.selections.into_iter().map(|seen| {
        let hook = attached
            .iter()
            .find(|hook| hook.ifindex == seen.device.ifindex);
        let attachment = match hook.map(|hook| hook.mechanism) {
            Some(Mechanism::Tcx) => "tcx",
            Some(Mechanism::Clsact) => "clsact",
            None => "",
        };
        let kept = hook.is_some() && !seen.protected;
        DeviceStatus {
            name: seen.device.name,
            protected: hook.is_some(),
            reason: if kept {
                format!("stays protected; now {}", seen.reason)
            } else {
                seen.reason
            },
            attachment: attachment.to_owned(),
            unprotected_ms: unprotected
                .get(&seen.device.ifindex)
                .map(|since| milliseconds(now.since(*since))),
        }
    });
    lines.collect()
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn protection(agent: &Agent) -> ProtectionStatus {
    let gaps = agent.devices.report().gaps;
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    ProtectionStatus {
        measured: gaps.count,
        last_us: us(gaps.last),
        last_device: gaps.last_device,
        longest_us: us(gaps.longest),
        longest_device: gaps.longest_device,
    }
}

fn drift(agent: &Agent) -> DriftStatus {
    let report = agent.drift.report();
    let lines = report.last.iter().map(|found| DriftLine {
        time_ms: found.time_ms,
        kind: found.finding.part.as_str().to_owned(),
        message: drift_line(&found.finding),
        repaired: found.finding.mending == Mending::Done,
    });
    DriftStatus {
        passes: report.passes,
        last_pass_ms: report.last_pass_ms,
        found: report.found,
        repaired: report.repaired,
        last: lines.collect(),
    }
}

fn sources(agent: &Agent) -> Vec<SourceLine> {
    let reports = agent.board.reports();
    let lines = reports.into_iter().map(|(source, report)| SourceLine {
        name: source.as_str().to_owned(),
        in_sync: report.in_sync,
        resources: report.resources,
        detail: report.detail,
        kinds: report.kinds.into_iter().map(kind_line).collect(),
    });
    lines.collect()
}

fn kind_line(report: KindReport) -> KindLine {
    KindLine {
        kind: report.kind.as_str().to_owned(),
        in_sync: report.in_sync,
        resources: report.resources,
        detail: report.detail,
    }
}

fn queues(agent: &Agent) -> Vec<QueueLine> {
    let stats = agent.pipeline.queue_stats();
    let lines = stats.into_iter().map(|queue| QueueLine {
        name: queue.name,
        depth: queue.depth,
        capacity: queue.capacity,
        handled: queue.handled,
        wait_last_ms: milliseconds(queue.queue_wait.last),
        handling_last_ms: milliseconds(queue.handling.last),
    });
    lines.collect()
}

fn kernel(agent: &Agent) -> KernelStatus {
    let programs = agent.inspector.programs().into_iter();
    let maps = agent.occupancy.read().clone().into_iter();
    let memory = agent.inspector.memory().unwrap_or_else(|error| {
        tracing::warn!("memory of the maps: {error}");
        Vec::new()
    });
    KernelStatus {
        release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        object: agent.inspector.object_hash().to_owned(),
        adopted: agent.start.adopted.is_some(),
        features: agent.start.features.0.iter().map(feature_line).collect(),
        programs: programs
            .map(|program| ProgramLine {
                name: program.name.to_owned(),
                id: program.id,
                verified_insns: program.verified_insns,
            })
            .collect(),
        conntrack: maps
            .map(|map| MapUse {
                name: map.map.to_owned(),
                entries: map.entries,
                capacity: map.max,
            })
            .collect(),
        maps_bytes: memory.iter().map(|map| map.bytes).sum(),
        maps: memory
            .into_iter()
            .map(|map| MapMemory {
                name: map.name.to_owned(),
                capacity: map.max_entries,
                bytes: map.bytes,
            })
            .collect(),
    }
}

fn feature_line(feature: &Feature) -> FeatureLine {
    let detail = match &feature.state {
        FeatureState::Present => String::new(),
        FeatureState::Instead(other) => (*other).to_owned(),
        FeatureState::Missing(error) | FeatureState::Unknown(error) => error.clone(),
        FeatureState::Forbidden => "the kernel refuses to say".to_owned(),
    };
    let (major, minor) = feature.since;
    FeatureLine {
        name: feature.name.to_owned(),
        since: format!("{major}.{minor}"),
        present: feature.state == FeatureState::Present,
        detail,
    }
}

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    last: Option<usize>,
}

/// Reads the store, off the event loop.
pub(super) async fn history(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<HistoryQuery>,
) -> Reply<Vec<HistoryLine>> {
    blocking(move || {
        let history = agent.pipeline.whole_history();
        let entries = history.map_err(|error| Refusal::failed(error.to_string()))?;
        let skipped = entries
            .len()
            .saturating_sub(query.last.unwrap_or(usize::MAX));
        let lines = entries.into_iter().skip(skipped).map(|entry| HistoryLine {
            time_ms: entry.time_ms,
            sequence: entry.sequence.map(|sequence| sequence.0),
            revision: entry.revision.0,
            event: entry.event,
            subject: entry.subject,
            message: entry.message,
            cause: entry.cause.map(|source| source.as_str().to_owned()),
            outcome: entry.outcome.map(|outcome| outcome.as_str().to_owned()),
            generation: entry.generation,
        });
        Ok(Json(lines.collect()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_tells_who_enforces_and_who_would() {
        use Enforcement::{Audit, Disabled, Enabled};
        for (enforcement, audit_mode, by, audit, expected) in [
            (
                Disabled,
                false,
                "",
                "",
                "no policy with egress rules selects this node",
            ),
            (Enabled, false, "", "", "by configuration"),
            (Enabled, false, "a, b", "", "by a, b"),
            (Enabled, false, "a", "c", "by a, in audit: c"),
            (Audit, true, "a", "", "audit mode, would be enforced by a"),
            (Audit, true, "", "", "audit mode"),
            (Audit, false, "", "c", "no policy enforces it, in audit: c"),
        ] {
            let said = enforcement_reason("egress", enforcement, audit_mode, by, audit);
            assert_eq!(said, format!("egress: {expected}"));
        }
    }
}
