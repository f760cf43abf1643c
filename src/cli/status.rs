//! `palisade status`, `palisade history`, `palisade metrics list`.

use super::CliError;
use super::args::{HistoryOptions, MetricsCommand, StatusOptions};
use super::output::{Output, Table, timestamp};
use crate::api::client::Client;
use crate::endpoint::Enforcement;
use crate::model::{
    ControlStatus, DriftStatus, FeatureLine, HistoryLine, KernelStatus, KindLine, ProtectionStatus,
    Severity, Status,
};

pub(super) fn status(
    client: &Client,
    out: Output,
    options: &StatusOptions,
) -> Result<(), CliError> {
    let path = if options.verify {
        "/status?verify=true"
    } else {
        "/status"
    };
    let status: Status = client.get(path)?;
    out.print(&status, status_table)?;
    let is_ready = status.ready || !options.ready;
    if is_ready && status.checks.iter().all(|check| check.ok) {
        Ok(())
    } else {
        Err(CliError::Said)
    }
}

fn enforcement_word(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Enabled => "enforced",
        Enforcement::Disabled => "not enforced",
        Enforcement::Audit => "audited (not enforced)",
    }
}

pub(super) fn status_table(status: &Status) -> String {
    let mut table = Table::default();
    table.row(["Palisade:", &status.version]);
    table.row(["Node:", &status.node]);
    table.row(["Ready:", if status.ready { "yes" } else { "no" }]);
    let protected: Vec<&str> = status
        .devices
        .iter()
        .filter(|device| device.protected)
        .map(|device| device.name.as_str())
        .collect();
    let firewall = if protected.is_empty() {
        "Disabled".to_owned()
    } else {
        format!("Enabled [{}]", protected.join(", "))
    };
    table.row(["Host firewall:", &firewall]);
    let enforcing = &status.enforcing;
    table.row(["Ingress:", enforcement_word(enforcing.ingress)]);
    table.row(["Egress:", enforcement_word(enforcing.egress)]);
    table.row(["", &enforcing.reason]);
    let realized = status.realized.map_or_else(
        || "nothing committed yet".to_owned(),
        |line| {
            format!(
                "{}, revision {} of {}",
                line.generation, line.revision, line.newest_revision
            )
        },
    );
    table.row(["Generation:", &realized]);
    let mut text = table.render();
    text.push_str(&sections(status));
    text
}

/// What of the agent itself passes whatever policy says.
fn control(status: &ControlStatus) -> String {
    if status.endpoints.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    for line in &status.endpoints {
        let flows = format!("{} flows", line.flows);
        table.row([&format!("  {}", line.endpoint), &flows]);
    }
    let mark = &status.mark;
    format!("\nAgent's own traffic, mark {mark}:\n{}", table.render())
}

fn sections(status: &Status) -> String {
    let mut text = String::from("\nDevices:\n");
    let mut table = Table::default();
    for device in &status.devices {
        let word = if device.protected {
            "protected"
        } else {
            "unprotected"
        };
        table.row([
            &format!("  {}", device.name),
            word,
            &device.attachment,
            &device.reason,
        ]);
    }
    text.push_str(&table.render());
    text.push_str(&protection(&status.protection));
    text.push_str(&drift(&status.drift));
    text.push_str(&control(&status.control));
    text.push_str("\nSources:\n");
    let mut table = Table::default();
    for source in &status.sources {
        table.row([
            format!("  {}", source.name),
            if source.in_sync {
                "in sync"
            } else {
                "not in sync"
            }
            .to_owned(),
            format!("{} resources", source.resources),
            source.detail.clone(),
        ]);
        for kind in &source.kinds {
            table.row(kind_row(kind));
        }
    }
    text.push_str(&table.render());
    text.push_str("\nQueues:\n");
    let mut table = Table::default();
    for queue in &status.queues {
        table.row([
            format!("  {}", queue.name),
            format!("{}/{}", queue.depth, queue.capacity),
            format!("{} handled", queue.handled),
            format!(
                "last wait {} ms, handling {} ms",
                queue.wait_last_ms, queue.handling_last_ms
            ),
        ]);
    }
    text.push_str(&table.render());
    text.push_str(&findings(status));
    text
}

fn kind_row(kind: &KindLine) -> [String; 4] {
    let state = if kind.in_sync {
        "in sync"
    } else {
        "not in sync"
    };
    [
        format!("    {}", kind.kind),
        state.to_owned(),
        format!("{} resources", kind.resources),
        kind.detail.clone(),
    ]
}

/// The kernel's side, problems and checks.
fn findings(status: &Status) -> String {
    let mut text = String::new();
    let kernel = &status.kernel;
    text.push_str(&format!(
        "\nKernel: {}, {} programs of object {:.12}{}\n",
        kernel.release,
        kernel.programs.len(),
        kernel.object,
        if kernel.adopted { ", adopted" } else { "" }
    ));
    text.push_str(&features(&kernel.features));
    for map in &kernel.conntrack {
        text.push_str(&format!(
            "  {} {}/{}\n",
            map.name, map.entries, map.capacity
        ));
    }
    text.push_str(&memory(kernel));
    for problem in &status.problems {
        let word = match problem.severity {
            Severity::Error => "Problem",
            Severity::Warning => "Warning",
        };
        text.push_str(&format!(
            "\n{word} ({}): {}: {}\n",
            problem.from, problem.subject, problem.message
        ));
    }
    for check in &status.checks {
        let word = if check.ok { "ok" } else { "FAILED" };
        text.push_str(&format!(
            "\nVerify {}: {word} {}\n",
            check.name, check.detail
        ));
    }
    text
}

/// How fast devices were protected.
fn protection(status: &ProtectionStatus) -> String {
    if status.measured == 0 {
        return String::new();
    }
    let ms = |us: u64| format!("{}.{:03} ms", us / 1_000, us % 1_000);
    format!(
        "  from a device's appearance to its protection: last {} ({}), longest {} ({}) of {}\n",
        ms(status.last_us),
        status.last_device,
        ms(status.longest_us),
        status.longest_device,
        status.measured
    )
}

/// What audits found and mended.
fn drift(status: &DriftStatus) -> String {
    let last = match status.last_pass_ms {
        0 => "no audit has ended yet".to_owned(),
        time_ms => format!("audited until {}", timestamp(time_ms)),
    };
    let mut text = format!(
        "\nDrift: {} found, {} repaired; {last}\n",
        status.found, status.repaired
    );
    for line in &status.last {
        text.push_str(&format!(
            "  {} {}: {}\n",
            timestamp(line.time_ms),
            line.kind,
            line.message
        ));
    }
    text
}

/// The maps by the memory that they take, largest first.
fn memory(kernel: &KernelStatus) -> String {
    let mut maps: Vec<_> = kernel.maps.iter().collect();
    maps.sort_by_key(|map| std::cmp::Reverse(map.bytes));
    let mut table = Table::default();
    for map in maps {
        table.row([
            format!("  {}", map.name),
            format!("{:>9}", kib(map.bytes)),
            format!("{} elements", map.capacity),
        ]);
    }
    let total = kib(kernel.maps_bytes);
    format!("\nMemory of maps: {total} KiB\n{}", table.render())
}

/// Whole KiB, rounded up.
fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 10)
}

/// How much of what Palisade uses is there, and what takes the place of the rest.
fn features(all: &[FeatureLine]) -> String {
    let present = all.iter().filter(|feature| feature.present).count();
    let mut text = format!("  features: {present} of {}\n", all.len());
    for feature in all.iter().filter(|feature| !feature.present) {
        let FeatureLine {
            name,
            since,
            detail,
            ..
        } = feature;
        text.push_str(&format!("  without {name} (Linux {since}): {detail}\n"));
    }
    text
}

pub(super) fn history(
    client: &Client,
    out: Output,
    options: &HistoryOptions,
) -> Result<(), CliError> {
    let path = match options.last {
        Some(last) => format!("/history?last={last}"),
        None => "/history".to_owned(),
    };
    let lines: Vec<HistoryLine> = client.get(&path)?;
    out.print(&lines, |lines| {
        let mut table = Table::new(&[&[
            "TIME",
            "SEQUENCE",
            "REVISION",
            "EVENT",
            "OUTCOME",
            "GENERATION",
            "SUBJECT",
            "MESSAGE",
        ]]);
        for line in lines {
            table.row([
                timestamp(line.time_ms),
                line.sequence.map(|n| n.to_string()).unwrap_or_default(),
                line.revision.to_string(),
                line.event.clone(),
                line.outcome.clone().unwrap_or_default(),
                line.generation.map(|n| n.to_string()).unwrap_or_default(),
                line.subject.clone(),
                line.message.clone(),
            ]);
        }
        table.render()
    })
}

pub(super) fn metrics(
    client: &Client,
    out: Output,
    command: &MetricsCommand,
) -> Result<(), CliError> {
    let MetricsCommand::List { pattern } = command;
    let text = client.text("/metrics")?;
    let mut samples: Vec<Sample> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| {
            pattern
                .as_ref()
                .is_none_or(|part| line.contains(part.as_str()))
        })
        .filter_map(Sample::parse)
        .collect();
    samples.sort_by(|a, b| (&a.metric, &a.labels).cmp(&(&b.metric, &b.labels)));
    out.print(&samples, |samples| {
        let mut table = Table::new(&[&["Metric", "Labels", "Value"]]);
        for sample in samples {
            table.row([&sample.metric, &sample.labels, &sample.value]);
        }
        table.render()
    })
}

/// One sample of the text format.
#[derive(serde::Serialize, Debug)]
struct Sample {
    metric: String,
    labels: String,
    value: String,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.rsplit_once(' ')?;
        let (metric, labels) = match name.split_once('{') {
            Some((metric, labels)) => (metric, labels.trim_end_matches('}')),
            None => (name, ""),
        };
        Some(Self {
            metric: metric.to_owned(),
            labels: labels.replace("\",", "\" "),
            value: value.to_owned(),
        })
    }
}
