//! What the figures must be, and whether they are.

use crate::cases::{BASE, MANY, Name, PREFIXES, RULES, SOURCES};
use crate::floors::Floors;
use crate::frames::Family;
use crate::rounds::{Line, Outcome};
use crate::world::Size;

/// The sum of floors that a case is held against, best of best; None where one
/// of them was not measured.
pub(crate) fn floor_ns(floors: &Floors, line: &Line) -> Option<f64> {
    let case = &line.case;
    let (one, family) = (case.flows == 1, case.family);
    let above = |key| Some(floors.above(key, family)?.min);
    let hit = if one {
        "lru_hit_same"
    } else {
        "lru_hit_random"
    };
    let trie = match (one, case.size.prefixes > BASE.prefixes) {
        (true, false) => "lpm_10k_same",
        (false, false) => "lpm_10k_random",
        (true, true) if family == Family::V6 => "lpm_500k_same_6",
        (true, true) => "lpm_500k_same",
        (false, true) => "lpm_500k_random",
    };
    let route = match family {
        Family::V4 => "route_forwarded_4",
        Family::V6 => "route_forwarded_6",
    };
    let operations = match case.name {
        Name::NewDenied | Name::NewDeniedReader => above(trie)?,
        Name::NewAllowed => above(trie)? + above("lru_miss")? + above("lru_insert")?,
        Name::NotOurs => above(route)?,
        _ => above(hit)?,
    };
    Some(floors.empty().min + operations)
}

/// One figure of the goals.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) how: &'static str,
    pub(crate) at_most: f64,
    /// None where a part of it was refused.
    pub(crate) measured: Option<f64>,
}

impl Target {
    pub(crate) fn verdict(&self) -> &'static str {
        match self.measured {
            Some(measured) if measured <= self.at_most => "met",
            Some(_) => "MISSED",
            None => "not measured",
        }
    }
}

pub(crate) fn all(outcome: &Outcome) -> Vec<Target> {
    let find_of = |family: Family, name: Name, size: Size, flows: u32| {
        outcome.lines.iter().find(move |line| {
            let case = &line.case;
            (case.name, case.size, case.flows, case.family) == (name, size, flows, family)
        })
    };
    let find = |name, size, flows| find_of(Family::V4, name, size, flows);
    let best_of = |family, name, size, flows| -> Option<f64> {
        let line = find_of(family, name, size, flows)?;
        Some(line.figure.as_ref().ok()?.min)
    };
    let best = |name, size, flows| best_of(Family::V4, name, size, flows);
    let ratio = |name, flows| {
        let line = find(name, BASE, flows)?;
        let floor = floor_ns(&outcome.floors, line)?;
        Some(best(name, BASE, flows)? / floor)
    };
    let of_rules = |rules| Size { rules, ..BASE };
    let of_prefixes = |prefixes| Size { prefixes, ..BASE };
    let growth = |name| {
        let cost = |rules| best(name, of_rules(rules), 1);
        Some(cost(RULES[2])? / cost(RULES[0])?)
    };
    let identity = |family| {
        let cost = |prefixes| best_of(family, Name::NewDenied, of_prefixes(prefixes), SOURCES);
        let plain = outcome.floors.above("lpm_500k_random", family)?.min;
        Some((cost(PREFIXES[2])? - cost(PREFIXES[0])?) / plain)
    };
    let reader = || {
        let cost = |name| best(name, BASE, 1);
        Some(cost(Name::NewDeniedReader)? / cost(Name::NewDenied)?)
    };
    let target = |what, how, at_most, measured| Target {
        what,
        how,
        at_most,
        measured,
    };
    vec![
        target(
            "established",
            "/ (empty + LRU hit, same key)",
            1.5,
            ratio(Name::Established, 1),
        ),
        target(
            "established, 65,536 flows",
            "/ (empty + LRU hit, random)",
            1.5,
            ratio(Name::Established, MANY),
        ),
        target(
            "established, flat",
            "100,000 rules / 10 rules",
            1.1,
            growth(Name::Established),
        ),
        target(
            "reply",
            "/ (empty + LRU hit, same key)",
            1.5,
            ratio(Name::Reply, 1),
        ),
        target(
            "reply, flat",
            "100,000 rules / 10 rules",
            1.1,
            growth(Name::Reply),
        ),
        target(
            "new_denied",
            "/ (empty + LPM 10k, same key)",
            1.8,
            ratio(Name::NewDenied, 1),
        ),
        target(
            "new_denied, random sources",
            "/ (empty + LPM 10k, random)",
            1.8,
            ratio(Name::NewDenied, MANY),
        ),
        target("new_denied_reader", "/ new_denied", 1.4, reader()),
        target(
            "new_allowed",
            "/ (empty + LPM same + LRU miss + LRU insert)",
            1.4,
            ratio(Name::NewAllowed, 1),
        ),
        target(
            "new_allowed, random sources",
            "/ (empty + LPM random + LRU miss + LRU insert)",
            1.4,
            ratio(Name::NewAllowed, MANY),
        ),
        target(
            "verdict stage growth",
            "new_denied: 100,000 rules / 10 rules",
            1.1,
            growth(Name::NewDenied),
        ),
        target(
            "500,000 random prefixes",
            "(new_denied at 500,000 - at 10 prefixes, the same random sources) / plain trie's lookup",
            0.5,
            identity(Family::V4),
        ),
        target(
            "500,000 random prefixes, IPv6",
            "the same of IPv6",
            0.5,
            identity(Family::V6),
        ),
        target(
            "all programs loaded and verified",
            "ms",
            100.0,
            Some(outcome.load_all_ms),
        ),
    ]
}
