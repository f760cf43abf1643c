//! What the lab shows: the demo policy on the host, probes before and after.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;

use anyhow::{Error, Result, anyhow};
use serde_json::Value;

use super::agent::{Agent, AgentSpec, write_manifest};
use super::echo;
use super::network::{self, Family, Place};
use super::probe::{self, Kind, Seen};
use super::sandbox::{Process, Sandbox};
use super::table::{self, Row};
use crate::datapath::netns;
use crate::limits::{LAB_POLL_INTERVAL, LAB_PROBE_TIMEOUT};

/// The policy of the documentation.
pub const DEMO_POLICY: &str = include_str!("demo-policy.yaml");
/// The host and the peer as nodes of the cluster; the outsider is none.
pub const NODES: &str = include_str!("nodes.yaml");

/// A port that the demo policy opens, one that it does not, one for datagrams.
const SSH: u16 = 22;
const HTTP: u16 = 80;
const ECHO: u16 = 9_000;

/// The running parts of the scenario.
#[derive(Debug)]
pub struct Scenario {
    pub agent: Agent,
    servers: Vec<Process>,
    monitor: Option<Process>,
    connections: Vec<(Family, TcpStream)>,
}

/// Builds the network, starts servers and agent, and waits until it is ready.
pub fn start(sandbox: &Sandbox, exe: &Path) -> Result<Scenario> {
    network::build(sandbox)?;
    let mut servers = Vec::new();
    for place in Place::ALL {
        servers.push(echo::start(
            sandbox,
            exe,
            place.name(),
            &[SSH, HTTP],
            &[ECHO],
        )?);
    }
    write_manifest(sandbox, "nodes.yaml", NODES)?;
    let spec = AgentSpec {
        exe: exe.to_owned(),
        place: Place::Host.name().into(),
        arguments: ["--node-name", "host", "--device", network::DEVICE]
            .map(String::from)
            .into(),
    };
    let mut agent = Agent::start(sandbox, &spec)?;
    agent
        .wait_ready()
        .map_err(|error| with_log(&error, sandbox))?;
    let monitor = agent.monitor(sandbox, &sandbox.path("events.jsonl"))?;
    Ok(Scenario {
        agent,
        servers,
        monitor: Some(monitor),
        connections: Vec::new(),
    })
}

fn with_log(error: &Error, sandbox: &Sandbox) -> Error {
    anyhow!("{error:#}\n{}", log_tail(sandbox))
}

/// The end of the agent's log, for errors.
#[must_use]
pub fn log_tail(sandbox: &Sandbox) -> String {
    const LINES_MAX: usize = 20;
    let text = fs::read_to_string(sandbox.path("agent.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LINES_MAX);
    format!("the agent's log ends with:\n{}", lines[start..].join("\n"))
}

impl Scenario {
    /// Leaves agent and servers running when this value goes.
    pub fn let_go(&mut self) {
        self.agent.let_go();
        self.servers.iter_mut().for_each(Process::let_go);
    }

    /// Runs both halves and prints them. True if every expectation held.
    pub fn show(&mut self, sandbox: &Sandbox) -> Result<bool> {
        let before = run_rows(sandbox, plan(false));
        table::print("Without a policy", &before);
        for family in Family::BOTH {
            let to = SocketAddr::new(Place::Host.address(family), SSH);
            let from = sandbox.namespace(Place::Outsider.name());
            let stream =
                netns::run_in(&from, || TcpStream::connect_timeout(&to, LAB_PROBE_TIMEOUT))??;
            self.connections.push((family, stream));
        }
        write_manifest(sandbox, "policy.yaml", DEMO_POLICY)?;
        self.agent
            .wait_enforcement("ingress", "enabled")
            .map_err(|error| with_log(&error, sandbox))?;
        let mut after = run_rows(sandbox, plan(true));
        self.try_connections(&mut after);
        find_policies(sandbox, &mut after);
        // Nobody reads it any more.
        self.monitor = None;
        table::print("With demo-host-policy", &after);
        let failed = before
            .iter()
            .chain(&after)
            .filter(|row| !row.holds())
            .count();
        println!(
            "\n{} of {} probes as expected",
            before.len() + after.len() - failed,
            before.len() + after.len()
        );
        Ok(failed == 0)
    }

    fn try_connections(&mut self, rows: &mut Vec<Row>) {
        for (family, stream) in &mut self.connections {
            let seen = match probe::echo(stream, LAB_PROBE_TIMEOUT) {
                Ok(()) => Seen::Passed,
                Err(error) => Seen::Failed(error.to_string()),
            };
            rows.push(Row {
                from: Place::Outsider,
                to: Place::Host,
                family: *family,
                kind: Kind::Tcp(SSH),
                old_connection: true,
                with_policy: true,
                expected: Seen::Passed,
                seen,
                policy: None,
            });
        }
    }
}

/// The rows with their expectations, not yet run.
fn plan(with_policy: bool) -> Vec<Row> {
    let kinds = [Kind::Tcp(SSH), Kind::Tcp(HTTP), Kind::Udp(ECHO), Kind::Ping];
    let ways = [
        (Place::Outsider, Place::Host),
        (Place::Peer, Place::Host),
        (Place::Host, Place::Outsider),
    ];
    let mut rows = Vec::new();
    for family in Family::BOTH {
        for (from, to) in ways {
            for kind in kinds {
                let closed = from == Place::Outsider && kind != Kind::Tcp(SSH);
                rows.push(Row {
                    from,
                    to,
                    family,
                    kind,
                    old_connection: false,
                    with_policy,
                    expected: if with_policy && closed {
                        Seen::Dropped
                    } else {
                        Seen::Passed
                    },
                    seen: Seen::Dropped,
                    policy: None,
                });
            }
        }
    }
    rows
}

/// Sends all probes at the same time, each from its own namespace.
fn run_rows(sandbox: &Sandbox, mut rows: Vec<Row>) -> Vec<Row> {
    let names: Vec<String> = rows
        .iter()
        .map(|row| sandbox.namespace(row.from.name()))
        .collect();
    let actions = names.iter().zip(&rows).map(|(name, row)| {
        let (kind, to) = (row.kind, row.to.address(row.family));
        (name.as_str(), move || probe::send(kind, to))
    });
    let results = netns::run_all(actions);
    for (row, result) in rows.iter_mut().zip(results) {
        row.seen = result.unwrap_or_else(|error| Seen::Failed(error.to_string()));
    }
    rows
}

/// Names who decided each probe to the host, from the monitor's events: once,
/// for a probe is one new flow.
fn find_policies(sandbox: &Sandbox, rows: &mut [Row]) {
    const LOOKS_MAX: usize = 40;
    for _ in 0..LOOKS_MAX {
        let text = fs::read_to_string(sandbox.path("events.jsonl")).unwrap_or_default();
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        for row in rows.iter_mut().filter(|row| row.is_decided()) {
            row.policy = events.iter().find_map(|event| deciding_policy(event, row));
        }
        if rows
            .iter()
            .all(|row| !row.is_decided() || row.policy.is_some())
        {
            return;
        }
        sleep(LAB_POLL_INTERVAL);
    }
}

/// The policy that an event names, and its rule where one matched, if the event
/// is about the row's probe.
fn deciding_policy(event: &Value, row: &Row) -> Option<String> {
    let to = row.to.address(row.family);
    let port = event["destination"]["port"].as_u64();
    let verdict = if row.seen == Seen::Dropped {
        "denied"
    } else {
        "allowed"
    };
    let same = event["verdict"] == verdict
        && event["source"]["ip"] == row.from.address(row.family).to_string()
        && event["destination"]["ip"] == to.to_string()
        && event["protocol"] == row.kind.protocol(to).to_lowercase()
        && row
            .kind
            .port()
            .is_none_or(|wanted| port == Some(wanted.into()));
    let policies = event["policies"].as_array().filter(|_| same)?;
    let names: Vec<&str> = policies
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.rsplit('/').next().unwrap_or(name))
        .collect();
    let rule = &event["rule"];
    let place = match (rule["section"].as_str(), rule["index"].as_u64()) {
        (Some(section), Some(index)) => format!(" {section}[{index}]"),
        _ => " (default deny)".to_owned(),
    };
    (!names.is_empty()).then(|| names.join(", ") + &place)
}
