//! `/endpoints`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::reply::{Refusal, Reply, blocking};
use crate::api::Agent;
use crate::api::model::{
    Endpoint, EndpointConfig, EndpointDetail, Enforcing, FailsafeFlow, LogLine,
};
use crate::config::format_failsafe;
use crate::endpoint::{AuditSetting, EndpointStatus};
use crate::events::EndpointId;
use crate::metrics::current_names;
use crate::policy::Direction;

pub(super) async fn list(State(agent): State<Arc<Agent>>) -> Json<Vec<Endpoint>> {
    let mut endpoints = agent.pipeline.endpoints();
    endpoints.sort_by_key(|endpoint| endpoint.id);
    Json(endpoints.iter().map(Endpoint::from).collect())
}

pub(super) async fn get(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<u16>,
) -> Reply<EndpointDetail> {
    let status = find(&agent, id)?;
    let names = current_names(&agent.pipeline);
    let mut enforcing = Enforcing::new();
    for direction in Direction::BOTH {
        let policies = names.as_ref().map(|names| {
            let policies = names.enforcing[direction as usize].iter();
            policies.map(ToString::to_string).collect()
        });
        enforcing.insert(direction.as_str().to_owned(), policies.unwrap_or_default());
    }
    let failsafe = agent.failsafe.iter().map(|entry| FailsafeFlow {
        flow: format_failsafe(entry),
        packets: 0,
        bytes: 0,
    });
    Ok(Json(EndpointDetail {
        endpoint: Endpoint::from(&status),
        options: config_of(&status),
        enforcing,
        failsafe: failsafe.collect(),
        error: status.error.clone(),
    }))
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
