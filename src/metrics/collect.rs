//! Reads what the rooms know into gauges and counters, when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{counter, gauge, histogram};
use palisade_abi::reason;
use parking_lot::Mutex;

use crate::catalogue as names;
use crate::clock::Clock;
use crate::endpoint::{EndpointPolicyStatus, EndpointStatus, Enforcement};
use crate::events::EndpointState;
use crate::identity::IdentityKey;
use crate::monitor::Monitor;
use crate::policy::Direction;
use crate::queues::{Pipeline, Timing};
use crate::sources::SourceBoard;
use crate::sources::local::DeviceBoard;

/// How full a map of the kernel is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelMap {
    pub name: String,
    pub entries: u64,
    pub capacity: u64,
    /// Whether it holds flows.
    pub conntrack: bool,
}

/// Exact counters of the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelCounters {
    /// (reason, direction) -> (packets, bytes).
    pub reasons: BTreeMap<(u8, Direction), (u64, u64)>,
    /// Name of a rule -> (packets, bytes).
    pub rules: BTreeMap<String, (u64, u64)>,
    /// Endpoint of the agent's own traffic -> flows.
    pub control: BTreeMap<String, u64>,
    /// Kind of flows -> how many were evicted.
    pub evictions: BTreeMap<String, u64>,
    /// Cause -> lost events.
    pub lost: BTreeMap<String, u64>,
    pub maps: Vec<KernelMap>,
    pub devices: usize,
}

/// Reads the rooms.
pub struct Collector {
    pipeline: Arc<Pipeline>,
    board: Arc<SourceBoard>,
    monitor: Arc<Monitor>,
    devices: Arc<DeviceBoard>,
    clock: Arc<dyn Clock>,
    /// What was told of each queue's timings already.
    told: Mutex<BTreeMap<(String, &'static str), Timing>>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

const INGRESS_EGRESS: [(Direction, &str); 2] = [
    (Direction::Ingress, "INGRESS"),
    (Direction::Egress, "EGRESS"),
];

impl Collector {
    /// A collector of these rooms.
    #[must_use]
    pub fn new(
        pipeline: Arc<Pipeline>,
        board: Arc<SourceBoard>,
        monitor: Arc<Monitor>,
        devices: Arc<DeviceBoard>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            pipeline,
            board,
            monitor,
            devices,
            clock,
            told: Mutex::default(),
        }
    }

    /// Sets everything that is not written as it happens.
    pub fn collect(&self, kernel: &KernelCounters) {
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!(names::READY).set(if self.is_ready() { 1.0 } else { 0.0 });
        let status = self.pipeline.status();
        gauge!(names::JOURNAL_AVAILABLE).set(if status.has_history { 1.0 } else { 0.0 });
        counter!(names::JOURNAL_FAILURES).absolute(status.store_failures);
        self.repository();
        let endpoints = self.pipeline.endpoints();
        gauge!(names::ENDPOINT).set(number(endpoints.len()));
        states(&endpoints);
        enforcement(&endpoints);
        self.queues();
        self.sources();
        packets(kernel);
        maps(kernel);
        gauge!(names::PROTECTED_DEVICES).set(number(kernel.devices));
        let unprotected = self.devices.report().unprotected.len();
        gauge!(names::UNPROTECTED_DEVICES).set(number(unprotected));
        gauge!(names::MONITOR_READERS).set(number(self.monitor.readers()));
        for (endpoint, flows) in &kernel.control {
            counter!(names::CONTROL_FLOWS, "endpoint" => endpoint.clone()).absolute(*flows);
        }
        for (flows, count) in &kernel.evictions {
            counter!(names::CONNTRACK_EVICTIONS, "flows" => flows.clone()).absolute(*count);
        }
        for (cause, count) in &kernel.lost {
            counter!(names::LOST_EVENTS, "cause" => cause.clone()).absolute(*count);
        }
        counter!(names::LOST_EVENTS, "cause" => "slow reader")
            .absolute(self.monitor.lost_by_readers());
    }

    /// Sources in sync, the newest revision enforced, and on every device that
    /// is to be protected.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let realized = self.pipeline.realized();
        let enforces = realized.is_some_and(|realized| realized.enforced.contains(&true));
        if enforces && self.devices.is_overdue(self.clock.now()) {
            return false;
        }
        let endpoints = self.pipeline.endpoints();
        let settled = |endpoint: &EndpointStatus| {
            endpoint.state == EndpointState::Ready
                && endpoint.revision.realized >= endpoint.revision.desired
        };
        self.pipeline.status().waiting_for.is_empty()
            && self.pipeline.realized().is_some()
            && !endpoints.is_empty()
            && endpoints.iter().all(settled)
    }

    fn repository(&self) {
        let snapshot = self.pipeline.repository();
        gauge!(names::POLICY_MAX_REVISION).set(big(snapshot.revision.0));
        gauge!(names::POLICY_REFUSED).set(number(snapshot.refused.len()));
        gauge!(names::IPCACHE_ENTRIES, "family" => "ipv4").set(number(snapshot.ipcache4.len()));
        gauge!(names::IPCACHE_ENTRIES, "family" => "ipv6").set(number(snapshot.ipcache6.len()));
        let mut identities = [("reserved", 0), ("cidr", 0), ("node", 0), ("workload", 0)];
        for identity in snapshot.identities.live() {
            let (_, count) = &mut identities[match identity.key {
                IdentityKey::Reserved(_) => 0,
                // World-ipv4 and world-ipv6 are prefixes, with fixed numbers.
                IdentityKey::Cidr(prefix) => usize::from(prefix.prefix_len() > 0),
                IdentityKey::Node { .. } => 2,
                IdentityKey::Workload { .. } => 3,
            }];
            *count += 1;
        }
        for (kind, count) in identities {
            gauge!(names::IDENTITY, "type" => kind).set(number(count));
        }
        let resources: std::collections::BTreeSet<_> = snapshot
            .rules
            .values()
            .filter_map(|entry| entry.rule.resource.as_ref())
            .collect();
        gauge!(names::POLICY).set(number(resources.len()));
        let realized = self.pipeline.realized();
        gauge!(names::POLICY_REALIZED_REVISION)
            .set(realized.map_or(0.0, |realized| big(realized.revision.0)));
        gauge!(names::GENERATION)
            .set(realized.map_or(0.0, |realized| f64::from(realized.generation.0)));
    }

    fn queues(&self) {
        for queue in self.pipeline.queue_stats() {
            let name = queue.name;
            gauge!(names::QUEUE_DEPTH, "queue" => name.clone()).set(number(queue.depth));
            gauge!(names::QUEUE_CAPACITY, "queue" => name.clone()).set(number(queue.capacity));
            for (outcome, count) in [
                ("enqueued", queue.enqueued),
                ("handled", queue.handled),
                ("cancelled", queue.cancelled),
            ] {
                counter!(names::QUEUE_EVENTS, "queue" => name.clone(), "outcome" => outcome)
                    .absolute(count);
            }
            for (metric, timing) in [
                (names::QUEUE_ENQUEUE_WAIT, queue.enqueue_wait),
                (names::QUEUE_WAIT, queue.queue_wait),
                (names::QUEUE_HANDLING, queue.handling),
            ] {
                self.timing(metric, &name, timing);
            }
        }
    }

    /// The samples since the last time: count and sum are exact; all but the
    /// last one count with their mean.
    fn timing(&self, metric: &'static str, queue: &str, timing: Timing) {
        let mut told = self.told.lock();
        let before = told.entry((queue.to_owned(), metric)).or_default();
        let samples = histogram!(metric, "queue" => queue.to_owned());
        let new = timing.count.saturating_sub(before.count);
        if new > 0 {
            samples.record(timing.last.as_secs_f64());
        }
        if new > 1 {
            let rest = timing.total.saturating_sub(before.total);
            let rest = rest.saturating_sub(timing.last).as_secs_f64();
            let others = usize::try_from(new - 1).unwrap_or(usize::MAX);
            samples.record_many(rest / big(new - 1), others);
        }
        *before = timing;
    }

    fn sources(&self) {
        for (source, report) in self.board.reports() {
            let label = source.as_str();
            let in_sync = if report.in_sync { 1.0 } else { 0.0 };
            gauge!(names::SOURCE_IN_SYNC, "source" => label).set(in_sync);
            gauge!(names::SOURCE_RESOURCES, "source" => label).set(number(report.resources));
            gauge!(names::SOURCE_PROBLEMS, "source" => label).set(number(report.problems.len()));
            for kind in report.kinds {
                let labels = [("source", label), ("kind", kind.kind.as_str())];
                let in_sync = if kind.in_sync { 1.0 } else { 0.0 };
                gauge!(names::SOURCE_KIND_IN_SYNC, &labels).set(in_sync);
                gauge!(names::SOURCE_KIND_RESOURCES, &labels).set(number(kind.resources));
            }
        }
    }
}

fn states(endpoints: &[EndpointStatus]) {
    for (state, label) in [
        (EndpointState::WaitingForIdentity, "waiting-for-identity"),
        (EndpointState::Ready, "ready"),
        (EndpointState::WaitingToRegenerate, "waiting-to-regenerate"),
        (EndpointState::Regenerating, "regenerating"),
        (EndpointState::Restoring, "restoring"),
        (EndpointState::Disconnecting, "disconnecting"),
        (EndpointState::Disconnected, "disconnected"),
        (EndpointState::Invalid, "invalid"),
    ] {
        let count = endpoints.iter().filter(|one| one.state == state).count();
        gauge!(names::ENDPOINT_STATE, "endpoint_state" => label).set(number(count));
    }
}

/// Cilium's words: none, ingress, egress, both, audit-...
fn enforcement(endpoints: &[EndpointStatus]) {
    for label in [
        "none",
        "ingress",
        "egress",
        "both",
        "audit-ingress",
        "audit-egress",
        "audit-both",
    ] {
        let count = endpoints
            .iter()
            .filter(|endpoint| enforcement_label(endpoint.policy) == label)
            .count();
        gauge!(names::POLICY_ENFORCEMENT_STATUS, "enforcement" => label).set(number(count));
    }
}

/// What the enforcement of an endpoint counts as.
pub(super) fn enforcement_label(policy: EndpointPolicyStatus) -> &'static str {
    let directions = [policy.ingress, policy.egress];
    // What is only watched beside an enforced direction is not enforced.
    let audit = !directions.contains(&Enforcement::Enabled);
    let counted = if audit {
        Enforcement::Audit
    } else {
        Enforcement::Enabled
    };
    let [ingress, egress] = directions.map(|enforcement| enforcement == counted);
    match (ingress, egress, audit) {
        (false, false, _) => "none",
        (true, false, false) => "ingress",
        (false, true, false) => "egress",
        (true, true, false) => "both",
        (true, false, true) => "audit-ingress",
        (false, true, true) => "audit-egress",
        (true, true, true) => "audit-both",
    }
}

fn packets(kernel: &KernelCounters) {
    for (direction, label) in INGRESS_EGRESS {
        let mut forwarded = (0, 0);
        for (number, text) in reason::ALL {
            let hits = kernel.reasons.get(&(*number, direction));
            let (packets, bytes) = hits.copied().unwrap_or_default();
            if *number >= reason::DROP_MIN {
                counter!(names::DROP_COUNT, "reason" => *text, "direction" => label)
                    .absolute(packets);
                counter!(names::DROP_BYTES, "reason" => *text, "direction" => label)
                    .absolute(bytes);
            } else {
                forwarded.0 += packets;
                forwarded.1 += bytes;
            }
        }
        counter!(names::FORWARD_COUNT, "direction" => label).absolute(forwarded.0);
        counter!(names::FORWARD_BYTES, "direction" => label).absolute(forwarded.1);
        for (number, outcome) in [
            (reason::MISSED_TAIL_CALL, "dropped"),
            (reason::MISSED_TAIL_CALL_PASSED, "passed"),
        ] {
            let hits = kernel.reasons.get(&(number, direction));
            counter!(names::MISSED_TAIL_CALLS, "direction" => label, "outcome" => outcome)
                .absolute(hits.map_or(0, |hits| hits.0));
        }
    }
    for (rule, (packets, bytes)) in &kernel.rules {
        counter!(names::RULE_COUNT, "rule" => rule.clone()).absolute(*packets);
        counter!(names::RULE_BYTES, "rule" => rule.clone()).absolute(*bytes);
    }
}

fn maps(kernel: &KernelCounters) {
    for map in &kernel.maps {
        let name = &map.name;
        gauge!(names::BPF_MAP_CAPACITY, "map_name" => name.clone()).set(big(map.capacity));
        let pressure = if map.capacity == 0 {
            0.0
        } else {
            big(map.entries) / big(map.capacity)
        };
        gauge!(names::BPF_MAP_PRESSURE, "map_name" => name.clone()).set(pressure);
        if map.conntrack {
            gauge!(names::CONNTRACK_ENTRIES, "map_name" => name.clone()).set(big(map.entries));
        }
    }
}

fn number(count: usize) -> f64 {
    big(count as u64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge of Prometheus is a double; counts stay far below 2^52"
)]
fn big(count: u64) -> f64 {
    count as f64
}
