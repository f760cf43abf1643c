//! `palisade bpf`: what the kernel holds, as the agent reads it.

use super::CliError;
use super::args::BpfCommand;
use super::output::{Output, Table};
use crate::api::client::Client;
use crate::model::{BpfCounter, BpfCtEntry, BpfIpcacheEntry, BpfPolicyEntry, BpfRule, RuleOfCell};

pub(super) fn run(client: &Client, out: Output, command: &BpfCommand) -> Result<(), CliError> {
    match command {
        BpfCommand::Policy(_) => {
            let list: Vec<BpfPolicyEntry> = client.get("/bpf/policy")?;
            out.print(&list, |list| policy_table(list))
        }
        BpfCommand::Ct(_) => {
            let list: Vec<BpfCtEntry> = client.get("/bpf/ct")?;
            out.print(&list, |list| list.iter().map(ct_line).collect())
        }
        BpfCommand::Ipcache(_) => {
            let list: Vec<BpfIpcacheEntry> = client.get("/bpf/ipcache")?;
            out.print(&list, |list| ipcache_table(list))
        }
        BpfCommand::Metrics(_) => {
            let list: Vec<BpfCounter> = client.get("/bpf/metrics")?;
            out.print(&list, |list| metrics_table(list))
        }
        BpfCommand::Rules(_) => {
            let list: Vec<BpfRule> = client.get("/bpf/rules")?;
            out.print(&list, |list| rules_table(list))
        }
    }
}

fn rule_name(rule: Option<&RuleOfCell>) -> String {
    rule.map_or_else(
        || "no rule".to_owned(),
        |rule| format!("{} {}", rule.number, rule.name),
    )
}

fn policy_table(entries: &[BpfPolicyEntry]) -> String {
    if entries.is_empty() {
        return "Policy is not enforced in any direction, so there is no verdict to list.".into();
    }
    let mut table = Table::new(&[&[
        "POLICY",
        "DIRECTION",
        "IDENTITY",
        "LABELS",
        "PORT/PROTO",
        "RULE",
    ]]);
    for entry in entries {
        table.row([
            entry.policy.clone(),
            entry.direction.clone(),
            entry.identity.to_string(),
            entry.labels.join(","),
            entry.port.clone(),
            rule_name(entry.rule.as_ref()),
        ]);
    }
    table.render()
}

fn ct_line(entry: &BpfCtEntry) -> String {
    format!(
        "{} {} {} -> {} expires={}s Packets={}/{} Bytes={}/{} Verdict={} Rule=[{}] \
         Identity={} Epoch={} Flags=[{}]\n",
        entry.protocol,
        entry.direction,
        entry.source,
        entry.destination,
        entry.expires_s,
        entry.packets[0],
        entry.packets[1],
        entry.bytes[0],
        entry.bytes[1],
        entry.verdict,
        rule_name(entry.rule.as_ref()),
        entry.identity,
        entry.epoch,
        entry.flags.join(" ")
    )
}

fn ipcache_table(entries: &[BpfIpcacheEntry]) -> String {
    let mut table = Table::new(&[&["IP PREFIX/ADDRESS", "IDENTITY", "LABELS"]]);
    for entry in entries {
        table.row([
            entry.prefix.clone(),
            entry.identity.to_string(),
            entry.labels.join(","),
        ]);
    }
    table.render()
}

fn metrics_table(counters: &[BpfCounter]) -> String {
    let mut table = Table::new(&[&["REASON", "DIRECTION", "PACKETS", "BYTES"]]);
    for counter in counters {
        table.row([
            counter.reason.clone(),
            counter.direction.clone(),
            counter.packets.to_string(),
            counter.bytes.to_string(),
        ]);
    }
    table.render()
}

pub(super) fn rules_table(rules: &[BpfRule]) -> String {
    let mut table = Table::new(&[&["RULE", "NAME", "PACKETS", "BYTES", "LOG", "FILE"]]);
    for rule in rules {
        let log = rule.log.as_ref().map(|log| format!("{log:?}"));
        table.row([
            rule.number.to_string(),
            rule.name.clone(),
            rule.packets.to_string(),
            rule.bytes.to_string(),
            log.unwrap_or_default(),
            rule.origin.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
