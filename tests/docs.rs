//! The documents say what the code says.

mod questions;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use palisade::catalogue::{ALL, Kind};

/// Set to write the documents instead of comparing them.
const UPDATE: &str = "PALISADE_UPDATE_DOCS";

fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics

Served on `--metrics-addr` and printed by `palisade metrics list`. Every name gets the prefix `palisade_`, or the one
of `--metrics-prefix` (`cilium_`, so that dashboards made for Cilium work).

This page is checked against the catalogue in `src/catalogue.rs`; `PALISADE_UPDATE_DOCS=1 cargo test --test docs`
writes it anew.

| name | kind | unit | labels | what |
|---|---|---|---|---|
",
    );
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let unit = metric.unit.as_str();
        let labels = labels.join(", ");
        let help = metric.help;
        writeln!(
            page,
            "| `{}` | {kind} | {unit} | {labels} | {help} |",
            metric.name
        )
        .expect("writing to a string");
    }
    page
}

#[test]
fn the_metrics_page_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let wanted = metrics_page();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &wanted).expect("the page can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/metrics.md is stale: set {UPDATE}=1 and run this test"
    );
}

#[test]
fn the_examples_of_the_policy_page_are_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md");
    assert!(questions::ask_all(&path) > 40);
}
