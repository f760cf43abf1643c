//! Prints what was measured.

use std::time::Duration;

use palisade::policy::Work;

use crate::grid::{Point, Task};
use crate::measure::{Cost, Line, Report};

pub(crate) fn world(report: &Report, json: bool) {
    if json {
        println!("{}", world_json(report));
    } else {
        print_world(report);
    }
}

pub(crate) fn grid(points: &[Point], tasks: &[Task], json: bool) {
    if json {
        println!("{}", grid_json(points, tasks));
        return;
    }
    for point in points {
        print_point(point);
    }
    if tasks.is_empty() {
        return;
    }
    println!(
        "\n{:<42} {:>10} {:>10} {:>10}",
        "", "palisade", "nft", "nft is"
    );
    for task in tasks {
        let nft = task.nft.map_or("not there".to_owned(), shown);
        let ratio = ratio(task).map_or(String::new(), |ratio| format!("{ratio:.2} x"));
        println!(
            "{:<42} {:>10} {nft:>10} {ratio:>10}",
            task.name,
            shown(task.palisade)
        );
    }
}

/// What nft takes, in what Palisade takes.
fn ratio(task: &Task) -> Option<f64> {
    Some(task.nft?.as_secs_f64() / task.palisade.as_secs_f64())
}

fn print_point(point: &Point) {
    println!(
        "\n{} rules, {} identities; {} rows in {} blocks",
        point.rules, point.identities, point.rows, point.blocks
    );
    println!(
        "{:<34} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}   work",
        "", "read", "apply", "tables", "stage", "flip", "all"
    );
    for Line { name, cost, work } in &point.lines {
        println!(
            "{name:<34} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}   {}",
            shown(cost.read),
            shown(cost.apply + cost.snapshot),
            shown(cost.resolve),
            shown(cost.stage),
            shown(cost.commit),
            shown(cost.whole()),
            worked(*work),
        );
    }
}

fn grid_json(points: &[Point], tasks: &[Task]) -> serde_json::Value {
    let points: Vec<_> = points
        .iter()
        .map(|point| {
            serde_json::json!({
                "rules": point.rules,
                "identities": point.identities,
                "rows": point.rows,
                "blocks": point.blocks,
                "lines": point.lines.iter().map(line_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    let tasks: Vec<_> = tasks
        .iter()
        .map(|task| {
            serde_json::json!({
                "name": task.name,
                "palisade_us": task.palisade.as_micros(),
                "nft_us": task.nft.map(|span| span.as_micros()),
                "ratio": ratio(task),
            })
        })
        .collect();
    serde_json::json!({"points": points, "tasks": tasks})
}

fn line_json(line: &Line) -> serde_json::Value {
    let Line { name, cost, work } = line;
    serde_json::json!({
        "name": name,
        "read_us": cost.read.as_micros(),
        "apply_us": cost.apply.as_micros(),
        "snapshot_us": cost.snapshot.as_micros(),
        "tables_us": cost.resolve.as_micros(),
        "stage_us": cost.stage.as_micros(),
        "flip_us": cost.commit.as_micros(),
        "enforced_us": cost.whole().as_micros(),
        "identities": work.identities,
        "rows": work.rows,
        "given": work.given,
        "directions": work.directions,
    })
}

fn shown(span: Duration) -> String {
    if span < Duration::from_millis(10) {
        return format!("{} us", span.as_micros());
    }
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

fn print_world(report: &Report) {
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
        println!("{direction}: {} rows in {} blocks", table[0], table[1],);
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
        "{} identities, {} rows, {} given, {} directions anew",
        work.identities, work.rows, work.given, work.directions
    )
}

fn world_json(report: &Report) -> serde_json::Value {
    let lines: Vec<_> = report
        .lines
        .iter()
        .map(|line| {
            let mut object = line_json(line);
            object["all_us"] = serde_json::json!(line.cost.all().as_micros());
            let part = line.cost.all().as_secs_f64() / report.whole().as_secs_f64();
            object["part_of_nothing"] = serde_json::json!(part);
            object
        })
        .collect();
    serde_json::json!({
        "pods": report.size.pods,
        "policies": report.size.policies,
        "nodes": report.size.nodes,
        "pairs": report.size.pairs,
        "tables": report.tables.map(|[rows, blocks]| {
            serde_json::json!({"rows": rows, "blocks": blocks})
        }),
        "identities": report.identities,
        "lines": lines,
    })
}
