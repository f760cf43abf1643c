//! Rows against plain lists of what they say.

use std::collections::BTreeMap;

use palisade_abi::table::{LEVELS, RUNS_MAX};
use proptest::prelude::*;

use super::*;

/// The keys that begin another verdict, with it.
type Starts = BTreeMap<u32, Cell>;

fn cell(rule: u32) -> Cell {
    Cell::new(1, false, rule)
}

/// Few keys and many, near one another and in all classes.
fn starts() -> impl Strategy<Value = Starts> {
    let keys = prop_oneof![
        3 => 1..120u32,
        2 => (0..4u32, 0..40u32).prop_map(|(class, port)| (class << 16) + 90 * port + 1),
        1 => 1..KEYS,
    ];
    let rules = (0..3u32).prop_map(cell);
    proptest::collection::btree_map(keys, rules, 0..60).prop_map(|mut starts| {
        starts.insert(0, cell(0));
        starts
    })
}

fn is(starts: &Starts, key: u32) -> Cell {
    let last = starts.range(..=key).next_back();
    *last.expect("from 0 on").1
}

/// The same, neighbours joined.
fn joined(starts: &Starts) -> Runs<Cell> {
    let mut runs: Runs<Cell> = starts.iter().map(|(start, is)| (*start, *is)).collect();
    runs.dedup_by_key(|(_, is)| *is);
    runs
}

/// How many blocks lead to a verdict at most, where each is one that may be.
fn levels(row: &Row, keys: Range<u32>) -> Result<u32, TestCaseError> {
    let Row::Block(runs) = row else {
        return Ok(0);
    };
    prop_assert!((2..=RUNS_MAX).contains(&runs.len()));
    prop_assert_eq!(runs[0].0, keys.start);
    let ends = runs.iter().skip(1).map(|(start, _)| *start);
    let mut most = 0;
    for ((start, row), end) in runs.iter().zip(ends.chain([keys.end])) {
        prop_assert!(*start < end);
        most = most.max(levels(row, *start..end)?);
    }
    Ok(most + 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_row_says_what_its_runs_say(starts in starts()) {
        let runs = joined(&starts);
        let row = Shelf::default().row(&runs);
        prop_assert!(levels(&row, 0..KEYS)? <= LEVELS);
        let ends = runs.iter().skip(1).map(|(start, _)| *start).chain([KEYS]);
        let told: Vec<_> = runs.iter().zip(ends).map(|((start, is), end)| (*start..end, *is)).collect();
        prop_assert_eq!(&Row::of(&told), &row);
        prop_assert_eq!(row.runs(), told);
        for key in starts.keys().flat_map(|key| [*key, key.saturating_sub(1), key ^ 256]) {
            prop_assert_eq!(row.get(key), is(&starts, key));
        }
    }

    #[test]
    fn equal_rows_have_one_memory(one in starts(), key in 0..KEYS, rule in 0..3u32) {
        let mut shelf = Shelf::default();
        let row = shelf.row(&joined(&one));
        let blocks = shelf.len();
        prop_assert_eq!(block_count(std::iter::once(&row)), blocks);
        let mut other = one.clone();
        other.insert(key, cell(rule));
        let second = shelf.row(&joined(&other));
        let same = joined(&one) == joined(&other);
        prop_assert_eq!(same, row == second);
        prop_assert_eq!(same, row.identity() == second.identity());
        drop(second);
        shelf.sweep();
        prop_assert_eq!(shelf.len(), blocks);
    }

    #[test]
    fn two_lists_of_runs_are_zipped_key_by_key(one in starts(), other in starts()) {
        let lesser = |one: Cell, other: Cell| Cell(one.0.min(other.0));
        let keys = one.keys().chain(other.keys());
        let least: Starts = keys.map(|key| (*key, lesser(is(&one, *key), is(&other, *key)))).collect();
        prop_assert_eq!(zipped(&joined(&one), &joined(&other), lesser), joined(&least));
    }
}

fn blocks(runs: &[(u32, Cell)]) -> (usize, u32) {
    let mut shelf = Shelf::default();
    let row = shelf.row(runs);
    let levels = levels(&row, 0..KEYS).expect("a row");
    (shelf.len(), levels)
}

/// Verdict 1 for each of these keys, and what fragments have.
fn single(keys: impl IntoIterator<Item = u32>) -> Runs<Cell> {
    let mut starts = Starts::from([(0, cell(0)), ((3 << 16) + 768, cell(2))]);
    for key in keys {
        starts.insert(key, cell(1));
        starts.entry(key + 1).or_insert(cell(0));
    }
    joined(&starts)
}

#[test]
fn a_row_costs_what_it_tells_apart() {
    assert_eq!(blocks(&[(0, cell(1))]), (0, 0));
    assert_eq!(blocks(&single([443])), (1, 1));
    assert_eq!(blocks(&single([22, 80, 443])), (1, 1));
    // One port of each protocol.
    assert_eq!(
        blocks(&single([53, (1 << 16) + 53, (2 << 16) + 53])),
        (1, 1)
    );
    assert_eq!(blocks(&single([22, 25, 53, 80, 110, 443])), (3, 2));
    // Ten ports in no order.
    assert_eq!(
        blocks(&single((1..11).map(|port| port * 40_503 % 65_521))),
        (5, 2)
    );
    // Every port says something else.
    let all: Vec<_> = (0..65_536).map(|port| (port, cell(port))).collect();
    let (blocks, levels) = blocks(&all);
    assert!(blocks < 13_000, "{blocks}");
    assert_eq!(levels, LEVELS);
}
