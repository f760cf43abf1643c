//! Equivalence classes by one sweep.
//!
//! Given a line of positions and sets of ranges on it, two positions are of one
//! class when exactly the same sets hold them. The cost is that of the borders
//! of the ranges and of the classes, never positions times sets.

use std::collections::HashMap;
use std::ops::Range;

use super::sets::{Set, Sets};

/// The classes of a line.
#[derive(Debug)]
pub(super) struct Classes {
    /// Runs of positions of one class, in order, without gaps.
    pub(super) runs: Vec<Run>,
    /// For each class the set of the sets (by place in the list given) that
    /// hold it.
    pub(super) members: Vec<Set>,
    pub(super) sets: Sets,
}

/// Positions that follow one another and are of one class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) positions: Range<usize>,
    pub(super) class: usize,
}

/// Sorts ranges and joins those that touch or overlap.
pub(super) fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

/// The classes of the positions `0..length` under `sets` (each joined). Classes
/// are numbered by their first position.
pub(super) fn classes(length: usize, sets: &[Vec<Range<usize>>]) -> Classes {
    // Joined ranges neither touch nor overlap: at each border its set toggles.
    let mut borders: Vec<(usize, u32)> = Vec::new();
    for (set, ranges) in (0..).zip(sets) {
        for range in ranges {
            borders.push((range.start, set));
            borders.push((range.end, set));
        }
    }
    borders.sort_unstable();
    let mut result = Classes {
        runs: Vec::new(),
        members: Vec::new(),
        sets: Sets::new(sets.len()),
    };
    let mut known: HashMap<Set, usize> = HashMap::new();
    let mut active = Set::EMPTY;
    let mut position = 0;
    let mut next = 0;
    while position < length {
        while next < borders.len() && borders[next].0 <= position {
            active = result.sets.toggled(active, borders[next].1);
            next += 1;
        }
        let end = borders.get(next).map_or(length, |(at, _)| *at).min(length);
        let class = *known.entry(active).or_insert(result.members.len());
        if class == result.members.len() {
            result.members.push(active);
        }
        match result.runs.last_mut() {
            Some(last) if last.class == class => last.positions.end = end,
            Some(_) | None => result.runs.push(Run {
                positions: position..end,
                class,
            }),
        }
        position = end;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::super::sets::{Set, Sets};
    use super::{classes, joined};

    fn ranges() -> impl Strategy<Value = Vec<Range<usize>>> {
        proptest::collection::vec((0..40usize, 0..12usize), 0..5).prop_map(|list| {
            list.into_iter()
                .map(|(at, len)| at..(at + len).min(40))
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn positions_share_a_class_when_the_same_sets_hold_them(
            sets in proptest::collection::vec(ranges(), 0..6)
        ) {
            let sets: Vec<_> = sets.into_iter().map(joined).collect();
            let found = classes(40, &sets);
            let mut position = 0;
            for run in &found.runs {
                prop_assert_eq!(run.positions.start, position);
                for at in run.positions.clone() {
                    let mut model = Sets::new(sets.len());
                    let mut holding = Set::EMPTY;
                    for (number, set) in (0..).zip(&sets) {
                        if set.iter().any(|range| range.contains(&at)) {
                            holding = model.toggled(holding, number);
                        }
                    }
                    let (own, expected) = (found.members[run.class], model.node(holding));
                    prop_assert_eq!(found.sets.node(own), expected);
                }
                position = run.positions.end;
            }
            prop_assert_eq!(position, 40);
            let mut distinct = found.members.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), found.members.len());
        }
    }
}
