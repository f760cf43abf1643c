//! What a change costs the control plane, beside computing all from nothing:
//! `cargo xtask bench control [--json] [--kernel]`.
//!
//! From nothing: every object applied to an empty repository, then a snapshot
//! and the tables. A change: one object applied, a snapshot, the tables again.
//! Reading text is in neither. With `--kernel` (root) each is staged and committed
//! too, in namespaces of its own.

mod kernel;
mod measure;
#[path = "../shared/private.rs"]
mod private;
mod world;

use std::time::Duration;

use measure::{Cost, Line, Report};
use palisade::policy::Work;
use world::Size;

const SIZE: Size = Size {
    pods: 10_000,
    policies: 1_000,
    nodes: 100,
    pairs: 0,
};

fn main() {
    let (mut json, mut kernel) = (false, false);
    let mut size = SIZE;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word.as_str() {
            "--json" => json = true,
            "--kernel" => kernel = true,
            "--pods" => size.pods = number().unwrap_or(size.pods),
            "--policies" => size.policies = number().unwrap_or(size.policies),
            "--pairs" => size.pairs = number().unwrap_or(size.pairs),
            // From `cargo bench` itself.
            "--bench" => {}
            other => {
                eprintln!(
                    "unknown option {other}: [--json] [--kernel] [--pods N] [--policies N] [--pairs N]"
                );
                std::process::exit(2);
            }
        }
    }
    let report = if kernel {
        kernel::with_datapath(|datapath| measure::run(size, Some(datapath)))
    } else {
        measure::run(size, None)
    };
    if json {
        println!("{}", as_json(&report));
    } else {
        print(&report);
    }
}

fn shown(span: Duration) -> String {
    if span < Duration::from_millis(10) {
        return format!("{} us", span.as_micros());
    }
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

fn print(report: &Report) {
    let Report {
        size,
        lines,
        tables,
        ..
    } = report;
    println!(
        "{} pods, {} policies, {} nodes, {} pairs; {} identities",
        size.pods, size.policies, size.nodes, size.pairs, report.identities
    );
    for (direction, table) in ["ingress", "egress"].iter().zip(tables) {
        println!(
            "{direction}: {} rows x {} columns = {} cells, in {} blocks",
            table[0],
            table[1],
            table[0] * table[1],
            table[2],
        );
    }
    println!(
        "\n{:<34} {:>10} {:>10} {:>10} {:>10} {:>12}   work",
        "", "apply", "snapshot", "tables", "all", "of nothing"
    );
    for line in lines {
        let Line { name, cost, work } = line;
        println!(
            "{name:<34} {:>10} {:>10} {:>10} {:>10} {:>12}   {}",
            shown(cost.apply),
            shown(cost.snapshot),
            shown(cost.resolve),
            shown(cost.all()),
            part(report, *cost),
            worked(*work),
        );
    }
    if lines.iter().all(|line| line.cost.commit.is_zero()) {
        return;
    }
    println!("\n{:<34} {:>10} {:>10}", "", "stage", "flip");
    for Line { name, cost, .. } in lines {
        println!(
            "{name:<34} {:>10} {:>10}",
            shown(cost.stage),
            shown(cost.commit)
        );
    }
}

fn part(report: &Report, cost: Cost) -> String {
    let whole = report.whole().as_secs_f64();
    let part = cost.all().as_secs_f64();
    if part >= whole {
        return "1".to_owned();
    }
    format!("1/{:.0}", whole / part)
}

fn worked(work: Work) -> String {
    format!(
        "{} identities, {} rows, {} directions anew",
        work.identities, work.rows, work.directions
    )
}

fn as_json(report: &Report) -> serde_json::Value {
    let lines: Vec<_> = report
        .lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "name": line.name,
                "apply_us": line.cost.apply.as_micros(),
                "snapshot_us": line.cost.snapshot.as_micros(),
                "tables_us": line.cost.resolve.as_micros(),
                "stage_us": line.cost.stage.as_micros(),
                "flip_us": line.cost.commit.as_micros(),
                "all_us": line.cost.all().as_micros(),
                "part_of_nothing": line.cost.all().as_secs_f64() / report.whole().as_secs_f64(),
                "identities": line.work.identities,
                "rows": line.work.rows,
                "directions": line.work.directions,
            })
        })
        .collect();
    serde_json::json!({
        "pods": report.size.pods,
        "policies": report.size.policies,
        "nodes": report.size.nodes,
        "pairs": report.size.pairs,
        "tables": report.tables.map(|[rows, columns, blocks]| {
            serde_json::json!({"rows": rows, "columns": columns, "blocks": blocks})
        }),
        "identities": report.identities,
        "lines": lines,
    })
}
