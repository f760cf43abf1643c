//! Cases from seeds: options, objects and changes that reach every construct.
//!
//! What is written is valid: whatever is refused is a failure of the test.

mod item;
pub(crate) mod names;
mod objects;
mod policy;
mod prefixes;

use std::collections::BTreeMap;

use palisade::policy::{EnforcementMode, FailsafeEntry, PolicyOptions};
use serde_json::Value;

use crate::case::{Case, Change, NODE, Objects, apply};
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
    for _ in 0..random.below(3) {
        let step = changes(&objects, random);
        apply(&mut objects, &step);
        steps.push(step);
    }
    Case {
        seed,
        options: options(random),
        audit: random.chance(10),
        local: objects::local(random),
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
    let kind = object["kind"].as_str().unwrap_or_default();
    let mut new = if kind.ends_with("Policy") {
        policy::policy(0, 2, random).object
    } else {
        objects::of_kind(kind, random)
    };
    new["metadata"]["name"] = object["metadata"]["name"].clone();
    if let Some(namespace) = object["metadata"].get("namespace") {
        new["metadata"]["namespace"] = namespace.clone();
    }
    new
}

fn options(random: &mut Random) -> PolicyOptions {
    let enforcement = match random.below(20) {
        0 => EnforcementMode::Never,
        1 | 2 => EnforcementMode::Always,
        _ => EnforcementMode::Default,
    };
    let failsafe = if random.chance(25) {
        (0..=random.below(3)).map(|_| failsafe(random)).collect()
    } else {
        Vec::new()
    };
    PolicyOptions {
        node_name: NODE.to_owned(),
        node_labels: labels(random),
        enforcement,
        audit: random.chance(10),
        failsafe,
        ..PolicyOptions::default()
    }
}

fn failsafe(random: &mut Random) -> FailsafeEntry {
    let proto = *random.pick(&[6_u8, 6, 17, 132, 1, 58, 47, 2]);
    let port = match proto {
        6 | 17 | 132 => *random.pick(&[0, 22, 53, 443, 65_535]),
        1 => *random.pick(&[0, 8]),
        58 => *random.pick(&[0, 128]),
        _ => 0,
    };
    FailsafeEntry {
        direction: u32::from(random.chance(40)),
        proto,
        port,
        peer: random.chance(50).then(|| prefixes::prefix(random)),
    }
}

/// Labels as Kubernetes objects have them.
fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, values) in names::LABELS {
        if random.chance(60) {
            labels.insert(key.to_owned(), (*random.pick(&values)).to_owned());
        }
    }
    labels
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for index in (1..list.len()).rev() {
        list.swap(index, random.below(index + 1));
    }
}
