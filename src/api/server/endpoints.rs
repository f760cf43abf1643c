//! `/endpoints`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use imbl::OrdSet;

use super::reply::{Refusal, Reply, blocking};
use crate::api::Agent;
use crate::config::format_failsafe;
use crate::endpoint::{AuditSetting, EndpointStatus};
use crate::events::{EndpointId, ResourceKey};
use crate::limits::ENDPOINT_CONFIG_WAIT;
use crate::metrics::{current_names, rule_hits};
use crate::model::{Endpoint, EndpointConfig, EndpointDetail, Enforcing, FailsafeFlow, LogLine};
use crate::policy::{Direction, Section};
use crate::queues::GenerationNames;

pub(super) async fn list(State(agent): State<Arc<Agent>>) -> Json<Vec<Endpoint>> {
    let mut endpoints = agent.pipeline.endpoints();
    endpoints.sort_by_key(|endpoint| endpoint.id);
    Json(endpoints.iter().map(Endpoint::from).collect())
}

pub(super) async fn get(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
) -> Reply<EndpointDetail> {
    blocking(move || detail(&agent, id)).await
}

fn detail(agent: &Agent, id: u16) -> Reply<EndpointDetail> {
    let status = find(agent, id)?;
    let names = current_names(&agent.pipeline);
    let by_direction = |of: fn(&GenerationNames) -> &[OrdSet<ResourceKey>; 2]| -> Enforcing {
        let words = Direction::BOTH.map(|direction| {
            let policies = names.as_ref().map(|names| {
                let policies = of(names)[direction as usize].iter();
                policies.map(ToString::to_string).collect()
            });
            (direction.as_str().to_owned(), policies.unwrap_or_default())
        });
        words.into()
    };
    Ok(Json(EndpointDetail {
        endpoint: Endpoint::from(&status),
        options: config_of(&status),
        enforcing: by_direction(|names| &names.enforcing),
        auditing: by_direction(|names| &names.auditing),
        failsafe: failsafe(agent)?,
        control: agent.control_status()?.endpoints,
        error: status.error.clone(),
    }))
}

/// Each entry of `--failsafe` with its hits.
fn failsafe(agent: &Agent) -> Result<Vec<FailsafeFlow>, Refusal> {
    let hits = rule_hits(&agent.inspector, &agent.pipeline)?;
    let entries = agent.failsafe.iter().enumerate();
    let flows = entries.map(|(position, entry)| {
        let own = hits.iter().filter(|(_, entry)| {
            entry.rule.section == Section::Failsafe && entry.rule.index == position
        });
        let (packets, bytes) = own.fold((0, 0), |(packets, bytes), (hit, _)| {
            (packets + hit.packets, bytes + hit.bytes)
        });
        FailsafeFlow {
            flow: format_failsafe(entry),
            packets,
            bytes,
        }
    });
    Ok(flows.collect())
}

pub(super) async fn log(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
) -> Reply<Vec<LogLine>> {
    let log = agent.pipeline.endpoint_log(EndpointId(id));
    let log = log.ok_or_else(|| Refusal::no_endpoint(id))?;
    let lines = log.into_iter().map(|entry| LogLine {
        time_ms: entry.time_ms,
        status: if entry.failed { "Failure" } else { "OK" }.to_owned(),
        state: entry.state,
        message: entry.message,
    });
    Ok(Json(lines.collect()))
}

pub(super) async fn config(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
) -> Reply<EndpointConfig> {
    Ok(Json(config_of(&find(&agent, id)?)))
}

pub(super) async fn set_config(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
    Json(wanted): Json<EndpointConfig>,
) -> Reply<EndpointConfig> {
    let setting = match wanted.policy_audit_mode.as_str() {
        "Enabled" => AuditSetting::Enabled,
        "Disabled" => AuditSetting::Disabled,
        other => {
            return Err(Refusal::bad(format!(
                "PolicyAuditMode=`{other}`: expected Enabled or Disabled"
            )));
        }
    };
    blocking(move || {
        if !agent.pipeline.set_audit(EndpointId(id), setting)? {
            return Err(Refusal::no_endpoint(id));
        }
        if !agent
            .pipeline
            .wait_audit(EndpointId(id), ENDPOINT_CONFIG_WAIT)
        {
            return Err(Refusal::timeout(format!(
                "PolicyAuditMode={} is stored but not enforced yet; \
                 `palisade endpoint log {id}` says why",
                wanted.policy_audit_mode
            )));
        }
        if !agent.pipeline.has_history() {
            let problem = agent.pipeline.status().store_problem.unwrap_or_default();
            return Err(Refusal::not_lasting(format!(
                "PolicyAuditMode={} is in force, but not on the disk, so it would be lost with \
                 the agent: {problem}",
                wanted.policy_audit_mode
            )));
        }
        Ok(Json(wanted))
    })
    .await
}

pub(super) async fn regenerate(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
) -> Reply<serde_json::Value> {
    blocking(move || {
        if agent.pipeline.regenerate(EndpointId(id))? {
            Ok(Json(serde_json::json!({ "id": id })))
        } else {
            Err(Refusal::no_endpoint(id))
        }
    })
    .await
}

fn find(agent: &Agent, id: u16) -> Result<EndpointStatus, Refusal> {
    let endpoint = agent.pipeline.endpoint(EndpointId(id));
    endpoint.ok_or_else(|| Refusal::no_endpoint(id))
}

fn config_of(status: &EndpointStatus) -> EndpointConfig {
    let word = if status.audit_effective {
        "Enabled"
    } else {
        "Disabled"
    };
    EndpointConfig {
        policy_audit_mode: word.to_owned(),
    }
}
