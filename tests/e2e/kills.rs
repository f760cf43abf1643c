//! The agent is killed, stopped and starved at random moments, under changes of
//! policy and numbered traffic: no packet is judged wrongly, and what a start
//! finds in the journal is what lived before.
//!
//! A few times in the test command; `cargo xtask kills` for hundreds.

#[path = "kills/churn.rs"]
mod churn;
#[path = "kills/life.rs"]
mod life;
#[path = "kills/starved.rs"]
mod starved;

use std::os::unix::process::ExitStatusExt as _;
use std::str::FromStr;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use self::churn::Churn;
use self::life::Live;
use self::starved::{Cgroup, limit_data};
use super::detach::left_by_detach;
use super::flips::Random;
use super::harness::{World, privileged, until};
use super::streams::{self, Report, Streams};

/// In the test command; `PALISADE_KILLS` asks for another number.
const KILLS: u32 = 5;
/// Longest part of a life before and after its state is looked at.
const LIFE_PART_MS: u32 = 700;
/// About the time that a start takes.
const START_MS: u32 = 400;
/// In the test command; `PALISADE_STOP_SECONDS` asks for another number.
const STOP_SECONDS: u64 = 2;

/// A number that the environment gives, or `default`.
pub(crate) fn asked<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// Every run has moments of its own, and can be had again.
pub(crate) fn seed() -> u64 {
    asked("PALISADE_SEED", u64::from(std::process::id()))
}

/// What was counted besides the traffic.
#[derive(Debug, Default)]
struct Counts {
    kills: u32,
    /// Kills of an agent that did not answer yet.
    while_starting: u32,
    compared: u32,
    faults: Vec<String>,
}

fn pause(random: &mut Random, below_ms: u32) {
    sleep(Duration::from_millis(random.below(below_ms).into()));
}

/// One life of the agent from its start to its end.
fn live_and_die(world: &mut World, random: &mut Random, counts: &mut Counts) {
    let mut seen = Vec::new();
    if random.below(4) == 0 {
        pause(random, START_MS);
        counts.while_starting += 1;
    } else {
        seen.push(Live::of(world));
        if counts.kills > 0 {
            adopted(world, counts);
        }
        pause(random, LIFE_PART_MS);
        seen.push(Live::of(world));
        pause(random, LIFE_PART_MS);
    }
    world.agent().end(Signal::KILL).expect("the agent ends");
    let store = world.sandbox.path("copy");
    life::copy_store(world, &store);
    world.launch_agent();
    counts.kills += 1;
    for live in seen {
        match live.replayed(&store) {
            Ok(()) => counts.compared += 1,
            Err(error) => counts
                .faults
                .push(format!("kill {}: {error}", counts.kills)),
        }
    }
}

/// The kernel was enforcing, and the start took it over.
fn adopted(world: &mut World, counts: &mut Counts) {
    let status = world.agent().json(&["status"]).expect("status");
    if status["kernel"]["adopted"] != true {
        let fault = format!("start {} did not adopt: {status}", counts.kills);
        counts.faults.push(fault);
    }
}

/// The newest revision is in force, nothing waits, and the kernel holds it.
fn settled(world: &mut World) -> Vec<String> {
    let ready = until("the agent is settled", || {
        let status = world.agent().json(&["status"]).ok()?;
        let realized = &status["realized"];
        let is_newest = realized["revision"] == realized["newest_revision"];
        (status["ready"] == true && is_newest).then_some(status)
    });
    let verified = world.agent().json(&["status", "--verify"]);
    let verified = verified.expect("status");
    let checks = verified["checks"].as_array().expect("checks").iter();
    let failed = checks.filter(|check| check["ok"] != true);
    let mut faults: Vec<String> = failed.map(ToString::to_string).collect();
    let problems = ready["problems"].as_array().expect("problems").iter();
    faults.extend(problems.map(ToString::to_string));
    faults
}

fn start(world: &mut World) -> (Streams, Churn, u64) {
    streams::prepare(world);
    let seed = seed();
    let streams = Streams::start(world);
    (streams, Churn::start(world, seed), seed)
}

fn judge(report: &Report, more: Vec<String>) {
    let mut faults = report.faults();
    faults.extend(more);
    println!("faults: {}", faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn sigkill_at_random_moments_loses_nothing() {
    if !privileged() {
        return;
    }
    let kills = asked("PALISADE_KILLS", KILLS);
    let mut world = World::new();
    let (streams, churn, seed) = start(&mut world);
    println!("seed {seed}");
    let mut random = Random::new(seed ^ 1);
    let mut counts = Counts::default();
    while counts.kills < kills {
        live_and_die(&mut world, &mut random, &mut counts);
    }
    let changes = churn.finish();
    Live::of(&mut world);
    adopted(&mut world, &mut counts);
    counts.faults.extend(settled(&mut world));
    let report = streams.finish(&mut world);
    println!("{report}");
    println!(
        "{} kills, {} of them while the agent was starting, {changes} changes of manifests; \
         replay was compared with {} live states",
        counts.kills, counts.while_starting, counts.compared
    );
    world.agent().end(Signal::TERM).expect("the agent ends");
    counts.faults.extend(left_by_detach(&world));
    judge(&report, counts.faults);
}

/// Names of the policies that lie in the manifests directory.
fn wanted(world: &World) -> Vec<String> {
    let files = std::fs::read_dir(world.sandbox.path("manifests")).expect("manifests");
    let texts = files.map(|file| {
        let path = file.expect("a file").path();
        std::fs::read_to_string(path).expect("a manifest")
    });
    let mut names: Vec<String> = texts
        .filter_map(|text| {
            let manifest: Value = serde_yaml_ng::from_str(&text).ok()?;
            let is_policy = manifest["kind"] == "CiliumClusterwideNetworkPolicy";
            is_policy.then(|| manifest["spec"].to_string())
        })
        .collect();
    names.sort();
    names
}

fn in_force(world: &mut World) -> Vec<String> {
    let dump = world.agent().json(&["policy", "get"]).expect("policies");
    let policies = dump["policies"].as_array().expect("a list").iter();
    let mut specs: Vec<String> = policies
        .map(|policy| policy["body"]["spec"].to_string())
        .collect();
    specs.sort();
    specs
}

#[test]
fn a_stopped_agent_loses_nothing_and_catches_up() {
    if !privileged() {
        return;
    }
    let seconds = asked("PALISADE_STOP_SECONDS", STOP_SECONDS);
    let mut world = World::new();
    let (streams, churn, seed) = start(&mut world);
    let before = Live::of(&mut world);
    world.agent().signal(Signal::STOP).expect("it stops");
    sleep(Duration::from_secs(seconds));
    world.agent().signal(Signal::CONT).expect("it goes on");
    let changes = churn.finish();
    let wanted = wanted(&world);
    until("all manifests are in force", || {
        (in_force(&mut world) == wanted).then_some(())
    });
    let mut faults = settled(&mut world);
    if Live::of(&mut world) == before {
        faults.push("nothing has changed meanwhile".to_owned());
    }
    let report = streams.finish(&mut world);
    println!("{report}");
    println!("seed {seed}: stopped for {seconds} s, {changes} changes of manifests");
    judge(&report, faults);
}

/// A policy that takes more memory than the agent has left.
fn large() -> String {
    let cidrs: Vec<String> = (0..20_000_u32)
        .map(|number| {
            format!(
                "172.{}.{}.{}/32",
                16 + (number >> 16),
                number >> 8 & 255,
                number & 255
            )
        })
        .collect();
    serde_json::json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "large"},
        "spec": {"nodeSelector": {}, "ingress": [{
            "fromCIDR": cidrs,
            "toPorts": [{"ports": [{"port": "7000", "protocol": "TCP"}]}],
        }]},
    })
    .to_string()
}

/// The agent ends as `expected` once its memory was taken; nothing else changes.
fn starve(take_memory: impl FnOnce(&mut World), expected: Signal) {
    let mut world = World::new();
    streams::prepare(&mut world);
    let streams = Streams::start(&mut world);
    let generation = world.generation();
    take_memory(&mut world);
    world.manifest("large.yaml", &large());
    let status = until("the agent has no memory left", || {
        world.agent().exited().expect("a child")
    });
    assert_eq!(status.signal(), Some(expected.as_raw()), "{status}");
    sleep(Duration::from_millis(500));
    world.remove_manifest("large.yaml");
    world.start_agent();
    let mut counts = Counts::default();
    adopted(&mut world, &mut counts);
    counts.faults.extend(settled(&mut world));
    let report = streams.finish(&mut world);
    println!("{report}");
    judge(&report, counts.faults);
    // A policy that was journaled before the end is in force at the start, until the
    // manifests have spoken: one generation there and one back.
    let flips = world.generation() - generation;
    assert!(flips <= 2, "{flips} generations");
    let large = |spec: &String| spec.contains("172.16.0.1/32");
    assert!(!in_force(&mut world).iter().any(large), "it is gone");
}

#[test]
fn an_agent_killed_for_its_memory_leaves_the_kernel_enforcing() {
    if !privileged() {
        return;
    }
    let name = format!("palisade-e2e-{}-memory", std::process::id());
    let Some(cgroup) = Cgroup::create(&name) else {
        eprintln!("SKIPPED: no memory cgroup can be made here");
        return;
    };
    let take_memory = |world: &mut World| cgroup.take(world.agent().pid().expect("a process"));
    starve(take_memory, Signal::KILL);
}

#[test]
fn an_agent_at_its_limit_of_memory_aborts_and_leaves_the_kernel_enforcing() {
    if privileged() {
        let take_memory = |world: &mut World| limit_data(world.agent().pid().expect("a process"));
        starve(take_memory, Signal::ABORT);
    }
}
