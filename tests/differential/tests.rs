//! The runs: short with the other tests, long on demand; and the proof that a
//! wrong entry is found.

use std::time::Duration;

use crate::compare::Plant;
use crate::generate;
use crate::run::{Plan, run};

/// Length of the run among the other tests.
const SHORT: Duration = Duration::from_secs(20);
/// Where the seeds of the short run begin.
const FIRST: u64 = 1;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn oracle_tables_and_programs_agree() {
    let report = run(Plan {
        first: number("PALISADE_FUZZ_SEED").unwrap_or(FIRST),
        time: number("PALISADE_FUZZ_SECONDS").map_or(SHORT, Duration::from_secs),
        cases: number("PALISADE_FUZZ_CASES"),
        plant: Plant::Nothing,
    });
    println!("{report}");
    assert!(
        report.failures.is_empty(),
        "{}\n{report}",
        report.failures.join("\n")
    );
    assert!(report.count.pairs > 0, "nothing was compared");
}

#[test]
fn a_planted_wrong_entry_is_found() {
    for plant in [Plant::Table, Plant::Kernel] {
        if plant == Plant::Kernel && !crate::sandbox::is_privileged() {
            continue;
        }
        let report = run(Plan {
            first: FIRST,
            time: SHORT,
            cases: Some(200),
            plant,
        });
        let failure = report.failures.first();
        let failure = failure.unwrap_or_else(|| panic!("{plant:?} was not found: {report}"));
        let expected = match plant {
            Plant::Table => "oracle and table",
            Plant::Kernel | Plant::Nothing => "oracle and programs",
        };
        assert!(failure.starts_with(expected), "{failure}");
        assert!(failure.contains("--seed"), "{failure}");
        // Shrunk: what is left fits on a screen.
        assert!(failure.lines().count() < 60, "{failure}");
    }
}

#[test]
fn a_seed_makes_one_case() {
    for seed in 0..20 {
        let (one, other) = (generate::case(seed), generate::case(seed));
        assert_eq!(one.to_yaml(), other.to_yaml());
    }
}

#[test]
fn cases_have_up_to_two_hundred_rules() {
    let sizes: Vec<usize> = (0..400).map(first_rules).collect();
    assert!(sizes.contains(&0));
    let largest = sizes.iter().max().expect("400 sizes");
    assert!((150..=200).contains(largest), "{largest}");
}

fn first_rules(seed: u64) -> usize {
    let mut case = generate::case(seed);
    case.steps.truncate(1);
    case.rules()
}
