//! Hours of churn on a virtual clock: the heap that is in use stays flat.
//!
//! It is a saw, not a line: tables reach as far as the index of the newest
//! identity, and indexes count up for an hour or two before they begin again. So
//! the highest moments are compared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use palisade::clock::ManualClock;
use palisade::datapath::fake::{FakeKernel, KernelFate};
use palisade::endpoint::{AuditSetting, HOST_ENDPOINT};
use palisade::events::{EndpointState, RepositoryChange, ResourceKey, ResourceKind, SourceName};
use palisade_state::{MemoryDisk, Store};
use serde_json::json;

use crate::agent::{Agent, Config};
use crate::heap::live_bytes;
use crate::objects;
use crate::random::Random;
use crate::runs::number;

/// Hours of the test command, in which a step is longer.
const HOURS: u64 = 4;
const LONG_STEP_S: u64 = 20;
const STEP_S: u64 = 1;
/// Changes of one step, which wait together.
const CHANGES: usize = 10;
/// The hour after which nothing may grow.
const SETTLED_HOUR: u64 = 2;
/// What a later hour may have more: 10 % and this.
const SLACK_BYTES: i64 = 1 << 20;
/// How much further the tables reach with each change, in a run too short for
/// indexes to begin again.
const REACH_BYTES: i64 = 512;
/// Moments of an hour at which the heap is looked at.
const LOOKS: u64 = 60;

struct Churn {
    random: Random,
    clock: Arc<ManualClock>,
    kernel: FakeKernel,
    disk: MemoryDisk,
    agent: Agent,
    changes: u64,
}

/// The most of some moments.
#[derive(Clone, Copy, Default)]
struct Bytes {
    /// Without the disk, which is in memory here.
    heap: i64,
    disk: i64,
}

impl Bytes {
    fn max(self, other: Self) -> Self {
        Self {
            heap: self.heap.max(other.heap),
            disk: self.disk.max(other.disk),
        }
    }
}

impl Churn {
    fn new() -> Self {
        let (clock, kernel, disk) = (Arc::default(), FakeKernel::new(), MemoryDisk::new());
        let mut random = Random::new(24);
        let mut faults = Random::new(random.below(1 << 30) as u64);
        kernel.direct(move |_| match faults.below(1_000) {
            0 => KernelFate::Fails,
            1 => KernelFate::FailsHalfway,
            2 => KernelFate::FailsLate,
            _ => KernelFate::Works,
        });
        let config = Config {
            kubernetes: false,
            ..Config::new()
        };
        let store = Store::on(disk.clone()).expect("opens");
        let agent = Agent::start(&config, &kernel, store, &clock);
        let said = agent
            .pipeline
            .source_in_sync(SourceName::Manifests, &BTreeSet::new());
        assert_eq!(said, Ok(()));
        Self {
            random,
            clock,
            kernel,
            disk,
            agent,
            changes: 0,
        }
    }

    fn step(&mut self, seconds: u64) {
        for _ in 0..CHANGES {
            let change = self.change();
            let submission = self.agent.pipeline.submit(change).expect("taken");
            self.changes += u64::from(submission.sequence.is_some());
        }
        if self.random.below(600) == 0 {
            let setting = *self
                .random
                .pick(&[AuditSetting::Inherited, AuditSetting::Enabled]);
            let set = self.agent.pipeline.set_audit(HOST_ENDPOINT, setting);
            assert_eq!(set, Ok(true));
        }
        self.agent.workers.settle(&*self.clock);
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Objects of the simulation, and prefixes that nobody has seen before.
    fn change(&mut self) -> RepositoryChange {
        let random = &mut self.random;
        if random.chance(50) {
            return RepositoryChange::Upsert(prefixes(random));
        }
        let key = random.pick(&objects::keys()).clone();
        if random.chance(30) {
            return RepositoryChange::Delete {
                key,
                source: SourceName::Manifests,
            };
        }
        let body = objects::version(&key, random);
        RepositoryChange::Upsert(objects::resource(&key, &body, SourceName::Manifests))
    }

    fn bytes(&self) -> Bytes {
        let disk = i64::try_from(self.disk.size_bytes()).expect("fits");
        Bytes {
            heap: live_bytes() - disk,
            disk,
        }
    }

    /// One hour, and the most of it.
    fn hour(&mut self, step_s: u64) -> Bytes {
        let mut most = Bytes::default();
        for _ in 0..LOOKS {
            for _ in 0..3_600 / step_s / LOOKS {
                self.step(step_s);
            }
            most = most.max(self.bytes());
        }
        most
    }
}

/// A group whose addresses change with each version, so that identities come
/// and go for ever.
fn prefixes(random: &mut Random) -> palisade::events::Resource {
    let key = ResourceKey {
        kind: ResourceKind::CiliumCIDRGroup,
        namespace: None,
        name: (*random.pick(&["g0", "g1"])).to_owned(),
    };
    let mut prefix = || {
        let [a, b, c] = [256; 3].map(|bound| random.below(bound));
        format!("100.{a}.{b}.{c}/32")
    };
    let cidrs: Vec<String> = (0..8).map(|_| prefix()).collect();
    let body = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": key.name},
        "spec": {"externalCIDRs": cidrs},
    });
    objects::resource(&key, &body, SourceName::Manifests)
}

#[test]
fn hours_of_churn_leave_memory_flat() {
    let asked = number("PALISADE_SIM_HOURS");
    let hours = asked.unwrap_or(HOURS).max(SETTLED_HOUR + 1);
    let step_s = if asked.is_some() { STEP_S } else { LONG_STEP_S };
    let mut churn = Churn::new();
    let (mut early, mut late) = (Bytes::default(), Bytes::default());
    let mut early_changes = 0;
    println!("hour   changes   commits   heap KiB   disk KiB");
    for hour in 1..=hours {
        let most = churn.hour(step_s);
        println!(
            "{hour:4} {:9} {:9} {:10} {:10}",
            churn.changes,
            churn.kernel.commits(),
            most.heap >> 10,
            most.disk >> 10
        );
        let part = if hour <= SETTLED_HOUR {
            early_changes = churn.changes;
            &mut early
        } else {
            &mut late
        };
        *part = part.max(most);
    }
    let may = |bytes: i64| bytes + bytes / 10 + SLACK_BYTES;
    let later_changes = i64::try_from(churn.changes - early_changes).expect("fits");
    let reach = match asked {
        Some(_) => 0,
        None => later_changes * REACH_BYTES,
    };
    assert!(late.heap <= may(early.heap) + reach, "the heap grows");
    if asked.is_some() {
        assert!(late.disk <= may(early.disk), "the disk grows");
    }
    let status = churn
        .agent
        .pipeline
        .endpoint(HOST_ENDPOINT)
        .expect("it exists");
    assert_eq!(status.state, EndpointState::Ready);
}
