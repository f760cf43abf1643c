//! An import that was acknowledged is there after SIGKILL, whenever it comes;
//! one that was not is there whole or not at all.
//!
//! A few times in the test command; `cargo xtask imports` for a thousand.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::flips::Random;
use super::harness::{World, privileged, until};
use super::kills::{asked, seed};

/// In the test command; `PALISADE_IMPORTS` asks for another number.
const IMPORTS: u32 = 10;
/// Policies that are imported again and again.
const NAMES: u32 = 7;
const RULES: u32 = 12;

/// The policy of one try: another one each time.
fn policy(name: u32, number: u32) -> Value {
    let rule = |rule: u32| {
        let port = 1_024 + (number * RULES + rule) % 60_000;
        json!({"toPorts": [{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]})
    };
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("imported-{name}")},
        "spec": {
            "description": format!("try {number}"),
            "nodeSelector": {},
            "ingress": (0..RULES).map(rule).collect::<Vec<_>>(),
        },
    })
}

/// The imported policies that the agent holds, by name, once it answers.
fn held(world: &mut World) -> Vec<Option<Value>> {
    let dump = until("the agent answers", || {
        world.agent().json(&["policy", "get"]).ok()
    });
    let policies = dump["policies"].as_array().expect("a list");
    let of = |name: u32| {
        let key = format!("CiliumClusterwideNetworkPolicy/imported-{name}");
        let found = policies.iter().find(|policy| policy["key"] == key.as_str());
        found.map(|policy| policy["body"].clone())
    };
    (0..NAMES).map(of).collect()
}

/// Imports a policy, with a kill at the moment `kill_after` unless that is None;
/// whether the import was acknowledged.
fn import(world: &mut World, policy: &Value, kill_after: Option<Duration>) -> bool {
    let file = world.sandbox.path("import.json");
    std::fs::write(&file, policy.to_string()).expect("a file");
    let file = file.to_string_lossy().into_owned();
    let mut client = world.agent().client(&["policy", "import", &file]);
    client.stdout(std::process::Stdio::null());
    client.stderr(std::process::Stdio::null());
    let mut client = client.spawn().expect("the client starts");
    if let Some(moment) = kill_after {
        sleep(moment);
        world.agent().end(Signal::KILL).expect("the agent ends");
    }
    client.wait().expect("the client").success()
}

/// How long an import takes now, from the start of the client to its end.
fn usual_time(world: &mut World) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|number| {
            let started = Instant::now();
            assert!(import(world, &policy(0, number), None), "not acknowledged");
            started.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

#[derive(Default, Debug)]
struct Counts {
    acknowledged: u32,
    whole: u32,
    absent: u32,
    faults: Vec<String>,
}

#[test]
fn an_acknowledged_import_outlives_sigkill_at_any_instant() {
    if !privileged() {
        return;
    }
    let tries = asked("PALISADE_IMPORTS", IMPORTS);
    let seed = seed();
    println!("seed {seed}");
    let mut world = World::new();
    let mut random = Random::new(seed);
    let mut usual = usual_time(&mut world);
    let mut expected = held(&mut world);
    let mut counts = Counts::default();
    for number in 0..tries {
        let name = random.below(NAMES);
        let new = policy(name, 100 + number);
        let place = name as usize;
        // From the start of the client to well behind the acknowledgement; the
        // machine may be busier now than it was.
        let moment = usual * random.below(2_000) / 1_000;
        let acknowledged = import(&mut world, &new, Some(moment));
        usual = usual * if acknowledged { 19 } else { 21 } / 20;
        world.launch_agent();
        let found = held(&mut world);
        if acknowledged {
            counts.acknowledged += 1;
            expected[place] = Some(new);
        } else if found[place].as_ref() == Some(&new) {
            counts.whole += 1;
            expected[place] = Some(new);
        } else {
            counts.absent += 1;
        }
        if found != expected {
            let fault = format!("try {number}, acknowledged: {acknowledged}: {found:?}");
            counts.faults.push(fault);
            expected = found;
        }
    }
    println!(
        "{tries} kills, half of them within {usual:.0?} of an import's start: {} were acknowledged, and are there; \
         of the others {} are there whole, {} are not there; faults: {}",
        counts.acknowledged,
        counts.whole,
        counts.absent,
        counts.faults.len()
    );
    assert!(counts.faults.is_empty(), "{}", counts.faults.join("\n"));
}
