//! `palisade endpoint`.

use hyper::Method;

use super::CliError;
use super::args::EndpointCommand;
use super::output::{Output, Table, timestamp};
use crate::api::client::Client;
use crate::endpoint::Enforcement;
use crate::model::{Endpoint, EndpointConfig, EndpointDetail, LogLine};

pub(super) fn run(client: &Client, out: Output, command: &EndpointCommand) -> Result<(), CliError> {
    match command {
        EndpointCommand::List { no_headers } => {
            let endpoints: Vec<Endpoint> = client.get("/endpoints")?;
            out.print(&endpoints, |list| list_table(list, !no_headers))
        }
        EndpointCommand::Get { id } => {
            let endpoint: EndpointDetail = client.get(&format!("/endpoints/{id}"))?;
            out.print(&endpoint, detail_table)
        }
        EndpointCommand::Log { id } => {
            let log: Vec<LogLine> = client.get(&format!("/endpoints/{id}/log"))?;
            out.print(&log, |log| log_table(log))
        }
        EndpointCommand::Regenerate { id } => {
            let reply: serde_json::Value =
                client.send(Method::POST, &format!("/endpoints/{id}/regenerate"), &())?;
            out.print(&reply, |_| {
                format!("Endpoint {id} successfully regenerated")
            })
        }
        EndpointCommand::Config { id, options } => config(client, out, *id, options),
    }
}

fn config(client: &Client, out: Output, id: u16, options: &[String]) -> Result<(), CliError> {
    let path = format!("/endpoints/{id}/config");
    if options.is_empty() {
        let config: EndpointConfig = client.get(&path)?;
        return out.print(&config, |config| {
            let mut table = Table::default();
            table.row(["PolicyAuditMode", &config.policy_audit_mode]);
            table.render()
        });
    }
    let mut wanted = None;
    for option in options {
        wanted = Some(audit_option(option)?);
    }
    let Some(policy_audit_mode) = wanted else {
        return Ok(());
    };
    let config: EndpointConfig =
        client.send(Method::PATCH, &path, &EndpointConfig { policy_audit_mode })?;
    out.print(&config, |_| {
        format!("Endpoint {id} configuration updated successfully")
    })
}

/// `PolicyAuditMode=<value>` with Cilium's spellings of a switch.
fn audit_option(option: &str) -> Result<String, CliError> {
    let usage = |reason: &str| {
        CliError::Usage(format!(
            "`{option}`: {reason}; write PolicyAuditMode=Enabled or PolicyAuditMode=Disabled"
        ))
    };
    let (name, value) = option
        .split_once('=')
        .ok_or_else(|| usage("a value is missing"))?;
    if name != "PolicyAuditMode" {
        return Err(usage("unknown option"));
    }
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "enable" | "enabled" | "1" => Ok("Enabled".to_owned()),
        "false" | "off" | "disable" | "disabled" | "0" => Ok("Disabled".to_owned()),
        _ => Err(usage("not a switch")),
    }
}

fn enforcement_word(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Enabled => "Enabled",
        Enforcement::Disabled => "Disabled",
        Enforcement::Audit => "Disabled (Audit)",
    }
}

fn state_word(endpoint: &Endpoint) -> String {
    word_of(&endpoint.state)
}

fn word_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

/// Cilium's columns, one line for each label.
pub(super) fn list_table(endpoints: &[Endpoint], headers: bool) -> String {
    let header: &[&[&str]] = &[
        &[
            "ENDPOINT",
            "POLICY (ingress)",
            "POLICY (egress)",
            "IDENTITY",
            "LABELS (source:key[=value])",
            "IPv6",
            "IPv4",
            "STATUS",
        ],
        &["", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", ""],
    ];
    let mut table = Table::new(if headers { header } else { &[] });
    for endpoint in endpoints {
        let mut labels = endpoint.labels.iter();
        let first = labels.next().map_or("no labels", String::as_str);
        table.row([
            endpoint.id.to_string(),
            enforcement_word(endpoint.policy.ingress).to_owned(),
            enforcement_word(endpoint.policy.egress).to_owned(),
            endpoint.identity.to_string(),
            first.to_owned(),
            endpoint.ipv6.map(|ip| ip.to_string()).unwrap_or_default(),
            endpoint.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
            state_word(endpoint),
        ]);
        for label in labels {
            table.row(["", "", "", "", label, "", "", ""]);
        }
    }
    table.render()
}

fn detail_table(detail: &EndpointDetail) -> String {
    let endpoint = &detail.endpoint;
    let mut table = Table::default();
    table.row(["Endpoint", &endpoint.id.to_string()]);
    table.row(["Kind", &word_of(&endpoint.kind)]);
    table.row(["State", &state_word(endpoint)]);
    table.row(["Identity", &endpoint.identity.to_string()]);
    for (position, label) in endpoint.labels.iter().enumerate() {
        table.row([if position == 0 { "Labels" } else { "" }, label]);
    }
    for (name, direction, enforcement) in [
        ("Policy (ingress)", "ingress", endpoint.policy.ingress),
        ("Policy (egress)", "egress", endpoint.policy.egress),
    ] {
        let by = detail.enforcing.get(direction).filter(|by| !by.is_empty());
        let by = by.map(|by| format!(" by {}", by.join(", ")));
        let audit = detail.auditing.get(direction).filter(|by| !by.is_empty());
        let audit = audit.map(|by| format!(", in audit: {}", by.join(", ")));
        let word = enforcement_word(enforcement);
        let (by, audit) = (by.unwrap_or_default(), audit.unwrap_or_default());
        table.row([name, &format!("{word}{by}{audit}")]);
    }
    table.row(["PolicyAuditMode", &detail.options.policy_audit_mode]);
    for (name, ip) in [
        ("IPv4", endpoint.ipv4.map(|ip| ip.to_string())),
        ("IPv6", endpoint.ipv6.map(|ip| ip.to_string())),
    ] {
        table.row([name, &ip.unwrap_or_else(|| "No address".to_owned())]);
    }
    table.row(["Devices", &endpoint.devices.join(", ")]);
    let revision = endpoint.revision;
    let revisions = format!(
        "desired {}, realized {}",
        revision.desired, revision.realized
    );
    table.row(["Revision", &revisions]);
    for flow in &detail.failsafe {
        let hits = format!("{} ({} packets)", flow.flow, flow.packets);
        table.row(["Failsafe", &hits]);
    }
    for line in &detail.control {
        let flows = format!("{} ({} flows)", line.endpoint, line.flows);
        table.row(["Agent's own", &flows]);
    }
    if let Some(error) = &detail.error {
        table.row(["Error", error]);
    }
    table.render()
}

fn log_table(log: &[LogLine]) -> String {
    let mut table = Table::new(&[&["Timestamp", "Status", "State", "Message"]]);
    for line in log {
        table.row([
            timestamp(line.time_ms),
            line.status.clone(),
            word_of(&line.state),
            line.message.clone(),
        ]);
    }
    table.render()
}
