//! The figures, for people and as JSON.

use serde_json::{Value, json};

use crate::floors::FloorKey;
use crate::frames::Family;
use crate::measure::Figure;
use crate::rounds::{Line, Outcome};
use crate::targets::{self, floor_ns};

/// The key's figure: raw for `empty`, above it for all else.
fn floor(outcome: &Outcome, (key, family): FloorKey) -> Option<Figure> {
    if key == "empty" {
        return Some(outcome.floors.empty());
    }
    outcome.floors.above(key, family)
}

pub(crate) fn print(outcome: &Outcome) {
    println!(
        "{} runs of {} packets, interleaved; {:.0} s; ns per packet\n",
        outcome.options.runs,
        outcome.options.repeat,
        outcome.took.as_secs_f64()
    );
    for world in &outcome.worlds {
        println!("{world}");
    }
    print_floors(outcome);
    println!(
        "\n{:<20} {:>7} {:>8} {:>7} {:>2} {:>7} {:>7} {:>7} {:>7} {:>6}",
        "case", "rules", "prefixes", "flows", "", "min", "median", "max", "floor", "ratio"
    );
    for line in &outcome.lines {
        print_line(outcome, line);
    }
    println!(
        "\n{:<18} {:>9} {:>9} {:>9} {:>9}",
        "program", "verified", "insns", "bytes", "load ms"
    );
    for program in &outcome.programs {
        println!(
            "{:<18} {:>9} {:>9} {:>9} {:>9.1}",
            program.name,
            program.verified_insns,
            program.instructions,
            program.jited_bytes,
            program.load_ms
        );
    }
    println!(
        "all programs: {:.1} ms as the agent loads them (side by side), {:.1} ms one by one",
        outcome.load_all_ms, outcome.load_sum_ms
    );
    let total: u64 = outcome.maps.iter().map(|(_, bytes)| bytes).sum();
    println!("\nmaps: {:.1} MiB", mib(total));
    for (name, bytes) in &outcome.maps {
        println!("  {name:<16} {:>9.2} MiB", mib(*bytes));
    }
    println!(
        "\n{:<34} {:>8} {:>8}            how",
        "target", "at most", "measured"
    );
    for target in targets::all(outcome) {
        let measured = target
            .measured
            .map_or("-".to_owned(), |it| format!("{it:.2}"));
        println!(
            "{:<34} {:>8} {measured:>8}  {:<8}  {}",
            target.what,
            target.at_most,
            target.verdict(),
            target.how
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn print_floors(outcome: &Outcome) {
    println!(
        "\n{:<20} {:>7} {:>7}   (above empty)",
        "floor", "min", "median"
    );
    let keys = all_floors(outcome);
    for (key, family) in keys.into_iter().chain(outcome.floors.operations()) {
        let Some(figure) = floor(outcome, (key, family)) else {
            continue;
        };
        let six = if family == Family::V6 && !key.ends_with('6') {
            " (IPv6)"
        } else {
            ""
        };
        println!(
            "{:<20} {:>7.0} {:>7.0}{six}",
            key, figure.min, figure.median
        );
    }
}

fn all_floors(outcome: &Outcome) -> Vec<FloorKey> {
    let of = |family| {
        let keys = outcome.floors.keys(family);
        keys.into_iter().map(move |key| (key, family))
    };
    of(Family::V4).chain(of(Family::V6)).collect()
}

fn print_line(outcome: &Outcome, line: &Line) {
    let case = &line.case;
    print!(
        "{:<20} {:>7} {:>8} {:>7} v{} ",
        case.name.as_str(),
        case.size.rules,
        case.size.prefixes,
        case.flows,
        case.family.number()
    );
    match &line.figure {
        Err(_) => println!("refused, see above"),
        Ok(Figure { min, median, max }) => {
            print!("{min:>7.0} {median:>7.0} {max:>7.0} ");
            match floor_ns(&outcome.floors, line) {
                Some(floor) => println!("{floor:>7.0} {:>6.2}", min / floor),
                None => println!("{:>7} {:>6}", "-", "-"),
            }
        }
    }
}

fn rounded(ns: f64) -> f64 {
    (ns * 100.0).round() / 100.0
}

pub(crate) fn as_json(outcome: &Outcome) -> Value {
    let figure = |key: FloorKey| {
        floor(outcome, key).map(|it| json!({"min": rounded(it.min), "median": rounded(it.median)}))
    };
    let floors_of = |family| -> serde_json::Map<String, Value> {
        let keys = outcome.floors.keys(family).into_iter();
        let figures = keys.filter_map(|key| Some((key.to_owned(), figure((key, family))?)));
        figures.collect()
    };
    let operations: serde_json::Map<String, Value> = outcome
        .floors
        .operations()
        .into_iter()
        .filter_map(|key| Some((key.0.to_owned(), figure(key)?)))
        .collect();
    let cases: Vec<Value> = outcome
        .lines
        .iter()
        .map(|line| case(outcome, line))
        .collect();
    let programs: Vec<Value> = outcome
        .programs
        .iter()
        .map(|program| {
            json!({
                "name": program.name,
                "verified_insns": program.verified_insns,
                "insns": program.instructions,
                "jited_bytes": program.jited_bytes,
                "load_ms": rounded(program.load_ms),
            })
        })
        .collect();
    let maps: serde_json::Map<String, Value> = outcome
        .maps
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), json!(bytes)))
        .collect();
    let targets: Vec<Value> = targets::all(outcome)
        .iter()
        .map(|target| {
            json!({
                "what": target.what,
                "how": target.how,
                "at_most": target.at_most,
                "measured": target.measured.map(rounded),
                "verdict": target.verdict(),
            })
        })
        .collect();
    json!({
        "runs": outcome.options.runs,
        "repeat": outcome.options.repeat,
        "floors": floors_of(Family::V4),
        "floors6": floors_of(Family::V6),
        "operations": operations,
        "cases": cases,
        "programs": programs,
        "load_all_ms": rounded(outcome.load_all_ms),
        "load_sum_ms": rounded(outcome.load_sum_ms),
        "maps": maps,
        "targets": targets,
    })
}

fn case(outcome: &Outcome, line: &Line) -> Value {
    let case = &line.case;
    let mut value = json!({
        "name": case.name.as_str(),
        "rules": case.size.rules,
        "prefixes": case.size.prefixes,
        "flows": case.flows,
        "family": case.family.number(),
    });
    match &line.figure {
        Err(refusal) => value["refused"] = json!(refusal),
        Ok(figure) => {
            value["min"] = json!(rounded(figure.min));
            value["median"] = json!(rounded(figure.median));
            value["max"] = json!(rounded(figure.max));
            if let Some(floor) = floor_ns(&outcome.floors, line) {
                value["floor_ns"] = json!(rounded(floor));
                value["ratio"] = json!(rounded(figure.min / floor));
            }
        }
    }
    value
}
