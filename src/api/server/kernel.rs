//! `/bpf`: what the kernel holds, with names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use palisade_abi::conntrack::{flags, kind};
use palisade_abi::table::{Cell, Word, action, class};

use super::identities::labels;
use super::reply::{Refusal, Reply, blocking};
use crate::api::Agent;
use crate::datapath::DatapathError;
use crate::datapath::kernel::{CtFlow, TableCopy};
use crate::identity::IdentityNumber;
use crate::limits::API_FLOWS_MAX;
use crate::metrics::{current_names, rule_hits, rule_name};
use crate::model::{BpfCounter, BpfCtEntry, BpfIpcacheEntry, BpfPolicyEntry, BpfRule, RuleOfCell};
use crate::policy::{Direction, RuleEntry, RuleNumber, protocol_name};
use crate::queues::GenerationNames;

impl From<DatapathError> for Refusal {
    fn from(error: DatapathError) -> Self {
        Self::failed(error.to_string())
    }
}

pub(super) async fn counters(State(agent): State<Arc<Agent>>) -> Reply<Vec<BpfCounter>> {
    blocking(move || {
        let counters = agent.inspector.counters()?.into_iter();
        let lines = counters.map(|counter| BpfCounter {
            reason: counter.label.to_owned(),
            reason_code: counter.reason,
            direction: counter.direction.as_str().to_uppercase(),
            packets: counter.packets,
            bytes: counter.bytes,
        });
        Ok(Json(lines.collect()))
    })
    .await
}

pub(super) async fn rules(State(agent): State<Arc<Agent>>) -> Reply<Vec<BpfRule>> {
    blocking(move || {
        let hits = rule_hits(&agent.inspector, &agent.pipeline)?.into_iter();
        let lines = hits.map(|(hit, entry)| BpfRule {
            number: hit.rule.0,
            name: rule_name(&entry.rule),
            packets: hit.packets,
            bytes: hit.bytes,
            log: entry.log.clone(),
            origin: origin(&entry),
        });
        Ok(Json(lines.collect()))
    })
    .await
}

/// `file:line`, or the file alone where it has no lines.
fn origin(entry: &RuleEntry) -> Option<String> {
    let file = Some(&entry.file).filter(|file| !file.is_empty())?;
    let line = entry.line.map(|line| format!(":{line}"));
    Some(format!("{file}{}", line.unwrap_or_default()))
}

pub(super) async fn ipcache(State(agent): State<Arc<Agent>>) -> Reply<Vec<BpfIpcacheEntry>> {
    blocking(move || {
        let snapshot = agent.pipeline.repository();
        let prefixes = agent.inspector.ipcache()?.into_iter();
        let lines = prefixes.map(|held| BpfIpcacheEntry {
            prefix: held.prefix.to_string(),
            identity: held.identity.0,
            labels: labels(&snapshot, held.identity),
        });
        Ok(Json(lines.collect()))
    })
    .await
}

pub(super) async fn flows(State(agent): State<Arc<Agent>>) -> Reply<Vec<BpfCtEntry>> {
    blocking(move || {
        let names = current_names(&agent.pipeline);
        let mut lines = Vec::new();
        agent.inspector.for_each_flow(|flow| {
            lines.push(flow_line(&flow, names.as_deref()));
            lines.len() < API_FLOWS_MAX
        })?;
        Ok(Json(lines))
    })
    .await
}

fn flow_line(flow: &CtFlow, names: Option<&GenerationNames>) -> BpfCtEntry {
    let egress = flow.flags & flags::OPENED_EGRESS != 0;
    let local = side(flow.local, flow.local_port, flow.kind);
    let remote = side(flow.remote, flow.remote_port, flow.kind);
    let (source, destination) = if egress {
        (local, remote)
    } else {
        (remote, local)
    };
    BpfCtEntry {
        protocol: protocol_name(flow.proto),
        direction: if egress { "OUT" } else { "IN" }.to_owned(),
        source,
        destination,
        expires_s: flow.expires_s,
        packets: flow.packets,
        bytes: flow.bytes,
        flags: flag_words(flow),
        verdict: verdict_word(flow).to_owned(),
        rule: rule_of(flow.cell, names),
        identity: flow.identity,
        epoch: flow.epoch,
    }
}

fn side(ip: std::net::IpAddr, port: u16, kind: u8) -> String {
    match kind {
        kind::ECHO_LOCAL | kind::ECHO_REMOTE if port != 0 => format!("{ip} id {port}"),
        kind::ECHO_LOCAL | kind::ECHO_REMOTE => ip.to_string(),
        _ if port == 0 => ip.to_string(),
        _ => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

fn flag_words(flow: &CtFlow) -> Vec<String> {
    let mut words: Vec<String> = [
        (flags::UNJUDGED, "unjudged"),
        (flags::GUESSED, "guessed"),
        (flags::ADOPTED, "adopted"),
        (flags::CLOSING_FORWARD, "closing-forward"),
        (flags::CLOSING_REPLY, "closing-reply"),
        (flags::SEEN_NON_SYN, "seen-non-syn"),
        (flags::SEEN_REPLY, "seen-reply"),
        (flags::OWN, "own"),
    ]
    .into_iter()
    .filter(|(bit, _)| flow.flags & bit != 0)
    .map(|(_, word)| word.to_owned())
    .collect();
    if flow.half {
        words.push("half".to_owned());
    }
    words
}

fn verdict_word(flow: &CtFlow) -> &'static str {
    if flow.flags & flags::UNJUDGED != 0 {
        "unjudged"
    } else if flow.cell.action() == action::ALLOW {
        "allow"
    } else if flow.cell.audit() {
        "audit"
    } else {
        "deny"
    }
}

fn rule_of(cell: Cell, names: Option<&GenerationNames>) -> Option<RuleOfCell> {
    let number = cell.rule();
    let rule = names?.rules.get(&RuleNumber(number))?;
    Some(RuleOfCell {
        number,
        name: rule_name(&rule.rule),
    })
}

pub(super) async fn policy(State(agent): State<Arc<Agent>>) -> Reply<Vec<BpfPolicyEntry>> {
    blocking(move || {
        let state = agent.inspector.commit_state();
        let mut lines = own_traffic(&agent)?;
        for direction in Direction::BOTH {
            let place = direction as usize;
            if state.enforced[place] || state.watched[place] {
                lines.extend(verdicts(&agent, direction)?);
            }
        }
        Ok(Json(lines))
    })
    .await
}

/// What no verdict of a table is asked about.
fn own_traffic(agent: &Agent) -> Result<Vec<BpfPolicyEntry>, DatapathError> {
    let mark = format!("mark={}", agent.control_mark);
    let listed = agent.control.list()?.into_iter();
    let lines = listed.map(|listed| BpfPolicyEntry {
        policy: "Allow".to_owned(),
        direction: capital(Direction::Egress).to_owned(),
        identity: 0,
        labels: vec![
            format!("address={}", listed.endpoint.address.ip()),
            mark.clone(),
        ],
        port: format!(
            "{}/{}",
            listed.endpoint.address.port(),
            listed.endpoint.protocol().to_uppercase()
        ),
        rule: None,
    });
    Ok(lines.collect())
}

/// Keys of one class of ports that share a cell.
struct Span {
    words: String,
    cell: Cell,
}

/// Identities with the same row have the same verdicts, so each row is read once.
fn verdicts(agent: &Agent, direction: Direction) -> Result<Vec<BpfPolicyEntry>, DatapathError> {
    let table = agent.inspector.table(direction)?;
    let names = current_names(&agent.pipeline);
    let snapshot = agent.pipeline.repository();
    let mut rows: HashMap<Word, Vec<Span>> = HashMap::new();
    let mut lines = Vec::new();
    for identity in snapshot.identities.iter() {
        let index = identity.index.0;
        let row = table.rows.get(index as usize).copied().unwrap_or_default();
        let spans = rows.entry(row).or_insert_with(|| spans(&table, row));
        for span in spans.iter() {
            lines.push(BpfPolicyEntry {
                policy: policy_word(span.cell).to_owned(),
                direction: capital(direction).to_owned(),
                identity: identity.number.0,
                labels: labels(&snapshot, IdentityNumber(identity.number.0)),
                port: span.words.clone(),
                rule: rule_of(span.cell, names.as_deref()),
            });
        }
    }
    Ok(lines)
}

fn capital(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

fn policy_word(cell: Cell) -> &'static str {
    match cell.action() {
        action::ALLOW => "Allow",
        _ if cell.audit() => "Audit",
        _ => "Deny",
    }
}

/// The runs of keys of a row within one class each. Fragments are judged by the
/// rules without ports and have no key of their own here.
fn class_runs(table: &TableCopy, row: Word) -> Vec<(u32, u16, u16, Cell)> {
    let mut found = Vec::new();
    for (run, cell) in table.decided(row) {
        for class in 0..class::CLASSES {
            let last = match class {
                class::OTHER => class::OTHER_FRAGMENT - 1,
                _ => u32::from(u16::MAX),
            };
            let keys = [0, last].map(|value| (class << 16) + value);
            let (first, last) = (run.start.max(keys[0]), (run.end - 1).min(keys[1]));
            if first <= last {
                let value = |key: u32| u16::try_from(key % (1 << 16)).unwrap_or(u16::MAX);
                found.push((class, value(first), value(last), cell));
            }
        }
    }
    found
}

/// The verdicts of one row: `ANY` for what most keys share, then the others.
fn spans(table: &TableCopy, row: Word) -> Vec<Span> {
    let runs = class_runs(table, row);
    let mut weight: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, first, last, cell) in &runs {
        *weight.entry(cell.0).or_default() += u32::from(last - first) + 1;
    }
    let most = weight.into_iter().max_by_key(|(_, keys)| *keys);
    let common = most.map_or(Cell::default(), |(cell, _)| Cell(cell));
    let mut spans = vec![Span {
        words: "ANY".to_owned(),
        cell: common,
    }];
    let others = runs.into_iter().filter(|run| run.3 != common);
    spans.extend(others.map(|(class, first, last, cell)| Span {
        words: key_words(class, first, last),
        cell,
    }));
    spans
}

/// `22/TCP`, `8000-8080/UDP`, `8/ICMP`, `VRRP`...
fn key_words(class: u32, first: u16, last: u16) -> String {
    let range = |from: u32, to: u32| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    let (low, high) = (u32::from(first), u32::from(last));
    let all = first == 0 && last == u16::MAX;
    match class {
        class::TCP if all => "TCP".to_owned(),
        class::UDP if all => "UDP".to_owned(),
        class::SCTP if all => "SCTP".to_owned(),
        class::TCP => format!("{}/TCP", range(low, high)),
        class::UDP => format!("{}/UDP", range(low, high)),
        class::SCTP => format!("{}/SCTP", range(low, high)),
        _ if low >= class::OTHER_ICMPV6 => {
            let types = range(low - class::OTHER_ICMPV6, high - class::OTHER_ICMPV6);
            format!("{types}/ICMPv6")
        }
        _ if low >= class::OTHER_ICMP && high < class::OTHER_ICMPV6 => {
            let types = range(low - class::OTHER_ICMP, high - class::OTHER_ICMP);
            format!("{types}/ICMP")
        }
        _ => format!("protocol {}", range(low, high)),
    }
}
