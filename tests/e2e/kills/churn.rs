//! Changes of manifests, ten a second, that leave the verdicts of the streams as
//! they are, and give their addresses now this identity, now that one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use palisade::lab::scenario::NODES;
use serde_json::{Value, json};

use crate::flips::Random;
use crate::harness::World;

const PAUSE: Duration = Duration::from_millis(100);
const FILES: u32 = 8;
/// No stream uses one of these.
const PORT_FIRST: u32 = 7_000;
const PORTS: u32 = 900;

/// The changes, going on.
#[derive(Debug)]
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Churn {
    pub(crate) fn start(world: &World, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let manifests = world.sandbox.path("manifests");
        let beside = world.sandbox.path("churn.tmp");
        let thread = spawn(move || {
            let mut random = Random::new(seed);
            let mut changes = 0;
            while !stopped.load(Ordering::SeqCst) {
                change(&mut random, changes, &manifests, &beside);
                changes += 1;
                sleep(PAUSE);
            }
            changes
        });
        Self { stop, thread }
    }

    /// The number of changes.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the churn")
    }
}

/// One change: a policy that is new, other or gone, or another label of the node.
fn change(random: &mut Random, number: u64, manifests: &Path, beside: &Path) {
    let (name, text) = if random.below(8) == 0 {
        let label = format!("node-access: ssh\n    churn: number-{number}");
        let text = NODES.replacen("node-access: ssh", &label, 1);
        ("nodes.yaml".to_owned(), text)
    } else {
        let file = random.below(FILES);
        let text = policy(random, file, number).to_string();
        (format!("churn-{file}.yaml"), text)
    };
    let place = manifests.join(&name);
    if name.starts_with("churn") && random.below(4) == 0 {
        // Perhaps it was never there.
        drop(std::fs::remove_file(place));
        return;
    }
    std::fs::write(beside, text).expect("a file");
    std::fs::rename(beside, place).expect("a manifest");
}

fn policy(random: &mut Random, file: u32, number: u64) -> Value {
    let mut section = |cidrs: &str| -> Vec<Value> {
        let count = 1 + random.below(4);
        (0..count).map(|_| rule(random, cidrs)).collect()
    };
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("churn-{file}")},
        "spec": {
            "description": format!("change {number}"),
            "nodeSelector": {},
            "ingress": section("fromCIDR"),
            "ingressDeny": section("fromCIDR"),
            "egress": section("toCIDR"),
            "egressDeny": section("toCIDR"),
        },
    })
}

/// A prefix around the places of the sandbox, or one that nobody has.
fn rule(random: &mut Random, cidrs: &str) -> Value {
    let bits = 24 + random.below(9);
    let third = random.below(2) * (1 + random.below(200));
    let net4: ipnet::Ipv4Net = format!("10.88.{third}.3/{bits}").parse().expect("a prefix");
    let bits = 96 + bits;
    let net6: ipnet::Ipv6Net = format!("fd88::{third:x}:3/{bits}")
        .parse()
        .expect("a prefix");
    let port = PORT_FIRST + random.below(PORTS);
    json!({
        cidrs: [net4.trunc().to_string(), net6.trunc().to_string()],
        "toPorts": [{"ports": [{"port": port.to_string(), "protocol": "ANY"}]}],
    })
}
