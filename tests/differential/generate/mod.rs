//! Cases from seeds: options, objects and changes that reach every construct.
//!
//! What is written is valid: whatever is refused is a failure of the test.

mod item;
pub(crate) mod names;
mod network;
mod nodes;
mod objects;
mod options;
mod policy;
mod prefixes;
mod selectors;
mod workloads;

use serde_json::Value;

use crate::case::{Case, Change, Objects, apply};
use crate::random::Random;

/// Rules in the largest case.
const RULES_MAX: usize = 200;

/// The case of a seed.
pub(crate) fn case(seed: u64) -> Case {
    let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95));
    let random = &mut random;
    let rules = rules(random);
    let mut first = objects::all(random);
    let mut left = rules;
    let mut number = 0;
    while left > 0 {
        let policy = policy::policy(number, left, random);
        left -= policy.rules.min(left);
        first.push(policy.object);
        number += 1;
    }
    shuffle(&mut first, random);
    let mut objects = Objects::new();
    let mut steps = vec![first.into_iter().map(Change::Put).collect::<Vec<_>>()];
    apply(&mut objects, &steps[0]);
    for _ in 0..random.below(4) {
        let step = changes(&objects, random);
        apply(&mut objects, &step);
        steps.push(step);
    }
    Case {
        seed,
        options: options::options(random),
        audit: random.chance(10),
        flows: random.chance(25),
        local: nodes::local(random),
        steps,
    }
}

/// How many rules: mostly few, sometimes none, sometimes very many.
fn rules(random: &mut Random) -> usize {
    match random.below(100) {
        0..=2 => 0,
        3..=34 => 1 + random.below(3),
        35..=74 => 4 + random.below(17),
        75..=95 => 21 + random.below(60),
        _ => 81 + random.below(RULES_MAX - 80),
    }
}

/// A few objects replaced, a few gone, a few new.
fn changes(objects: &Objects, random: &mut Random) -> Vec<Change> {
    let known: Vec<&Value> = objects.values().collect();
    let mut step = Vec::new();
    for _ in 0..=random.below(4) {
        let change = match random.below(4) {
            0 if !known.is_empty() => Change::Delete((*random.pick(&known)).clone()),
            1 => Change::Put(policy::policy(1_000 + random.below(10), 3, random).object),
            _ if known.is_empty() => continue,
            _ => Change::Put(another(random.pick::<&Value>(&known), random)),
        };
        step.push(change);
    }
    step
}

/// Another version of an object.
fn another(object: &Value, random: &mut Random) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    if !kind.ends_with("Policy") {
        return objects::of_kind(&kind, &name, random);
    }
    // Of the same number, so of the same name; of its namespace if it is held.
    let number = name.trim_start_matches('p').parse().unwrap_or(0);
    policy::policy(number, 2, random).object
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for index in (1..list.len()).rev() {
        list.swap(index, random.below(index + 1));
    }
}
