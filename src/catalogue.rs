//! Every metric: name, kind, unit, labels, help. Names are Cilium's where the
//! thing is the same; the recorder puts the configured prefix before them.

use metrics::Unit;

/// Kinds of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        unit,
        labels,
        help,
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        unit,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        labels,
        help,
    }
}

pub const BUILD_INFO: &str = "build_info";
pub const READY: &str = "agent_ready";
pub const JOURNAL_AVAILABLE: &str = "journal_available";
pub const JOURNAL_FAILURES: &str = "journal_failures_total";
pub const DROP_COUNT: &str = "drop_count_total";
pub const DROP_BYTES: &str = "drop_bytes_total";
pub const FORWARD_COUNT: &str = "forward_count_total";
pub const FORWARD_BYTES: &str = "forward_bytes_total";
pub const RULE_COUNT: &str = "rule_count_total";
pub const RULE_BYTES: &str = "rule_bytes_total";
pub const CONTROL_FLOWS: &str = "control_flows_total";
pub const MISSED_TAIL_CALLS: &str = "missed_tail_calls_total";
pub const ENDPOINT: &str = "endpoint";
pub const ENDPOINT_STATE: &str = "endpoint_state";
pub const POLICY: &str = "policy";
pub const POLICY_MAX_REVISION: &str = "policy_max_revision";
pub const POLICY_REALIZED_REVISION: &str = "policy_realized_revision";
pub const POLICY_REFUSED: &str = "policy_refused";
pub const POLICY_ENFORCEMENT_STATUS: &str = "policy_endpoint_enforcement_status";
pub const IDENTITY: &str = "identity";
pub const IPCACHE_ENTRIES: &str = "ipcache_entries";
pub const BPF_MAP_PRESSURE: &str = "bpf_map_pressure";
pub const BPF_MAP_CAPACITY: &str = "bpf_map_capacity";
pub const CONNTRACK_ENTRIES: &str = "datapath_conntrack_entries";
pub const CONNTRACK_GC_RUNS: &str = "datapath_conntrack_gc_runs_total";
pub const CONNTRACK_GC_DELETED: &str = "datapath_conntrack_gc_deleted_total";
pub const CONNTRACK_EVICTIONS: &str = "datapath_conntrack_evictions_total";
pub const CONNTRACK_GC_DURATION: &str = "datapath_conntrack_gc_duration_seconds";
pub const CONNTRACK_GC_INTERVAL: &str = "datapath_conntrack_gc_interval_seconds";
pub const GENERATION: &str = "datapath_generation";
pub const PROTECTED_DEVICES: &str = "protected_devices";
pub const UNPROTECTED_DEVICES: &str = "unprotected_devices";
pub const LOST_EVENTS: &str = "lost_events_total";
pub const MONITOR_READERS: &str = "monitor_readers";
pub const SOURCE_IN_SYNC: &str = "source_in_sync";
pub const SOURCE_RESOURCES: &str = "source_resources";
pub const SOURCE_PROBLEMS: &str = "source_problems";
pub const SOURCE_KIND_IN_SYNC: &str = "source_kind_in_sync";
pub const SOURCE_KIND_RESOURCES: &str = "source_kind_resources";
pub const SOURCE_EVENTS: &str = "source_events_total";
pub const SOURCE_RESYNCS: &str = "source_resyncs_total";
pub const SOURCE_ERRORS: &str = "source_errors_total";
pub const KVSTORE_OPERATION: &str = "kvstore_operations_duration_seconds";
pub const KVSTORE_LEASES: &str = "kvstore_leases_total";
pub const QUEUE_DEPTH: &str = "queue_depth";
pub const QUEUE_CAPACITY: &str = "queue_capacity";
pub const QUEUE_EVENTS: &str = "queue_events_total";
pub const QUEUE_ENQUEUE_WAIT: &str = "queue_enqueue_wait_seconds";
pub const QUEUE_WAIT: &str = "queue_wait_seconds";
pub const QUEUE_HANDLING: &str = "queue_handling_seconds";

/// All of them. The last ones are written by the pipeline as things happen.
pub const ALL: &[Metric] = &[
    gauge(
        BUILD_INFO,
        Unit::Count,
        &["version"],
        "Version of the agent; the value is 1",
    ),
    gauge(
        READY,
        Unit::Count,
        &[],
        "1 when sources are in sync and the newest revision is enforced",
    ),
    counter(
        DROP_COUNT,
        Unit::Count,
        &["reason", "direction"],
        "Packets dropped",
    ),
    counter(
        DROP_BYTES,
        Unit::Bytes,
        &["reason", "direction"],
        "Bytes of dropped packets",
    ),
    counter(
        FORWARD_COUNT,
        Unit::Count,
        &["direction"],
        "Packets let through",
    ),
    counter(
        FORWARD_BYTES,
        Unit::Bytes,
        &["direction"],
        "Bytes of packets let through",
    ),
    counter(
        RULE_COUNT,
        Unit::Count,
        &["rule"],
        "Packets that a rule decided about",
    ),
    counter(
        CONTROL_FLOWS,
        Unit::Count,
        &["endpoint"],
        "Flows that the agent opened to its sources and name servers, whatever policy says",
    ),
    counter(
        RULE_BYTES,
        Unit::Bytes,
        &["rule"],
        "Bytes of packets that a rule decided about",
    ),
    counter(
        MISSED_TAIL_CALLS,
        Unit::Count,
        &["direction", "outcome"],
        "Packets whose family's program was missing",
    ),
    gauge(ENDPOINT, Unit::Count, &[], "Endpoints of this node"),
    gauge(
        ENDPOINT_STATE,
        Unit::Count,
        &["endpoint_state"],
        "Endpoints by state",
    ),
    gauge(POLICY, Unit::Count, &[], "Policies in the repository"),
    gauge(
        POLICY_MAX_REVISION,
        Unit::Count,
        &[],
        "Newest revision of the repository",
    ),
    gauge(
        POLICY_REALIZED_REVISION,
        Unit::Count,
        &[],
        "Revision that the kernel enforces",
    ),
    gauge(
        POLICY_REFUSED,
        Unit::Count,
        &[],
        "Resources whose newest version is invalid; the last valid one is in force",
    ),
    gauge(
        POLICY_ENFORCEMENT_STATUS,
        Unit::Count,
        &["enforcement"],
        "Endpoints by enforced directions",
    ),
    gauge(
        IDENTITY,
        Unit::Count,
        &["type"],
        "Identities known to this node",
    ),
    gauge(
        IPCACHE_ENTRIES,
        Unit::Count,
        &["family"],
        "Prefixes with an identity",
    ),
    gauge(
        BPF_MAP_PRESSURE,
        Unit::Percent,
        &["map_name"],
        "Part of a map that is in use, 0 to 1; a conntrack map near 1 evicts, flows \
         seen from one side first",
    ),
    gauge(
        BPF_MAP_CAPACITY,
        Unit::Count,
        &["map_name"],
        "Elements that a map can hold",
    ),
    gauge(
        CONNTRACK_ENTRIES,
        Unit::Count,
        &["map_name"],
        "Flows in conntrack that the last sweep left alive",
    ),
    counter(
        CONNTRACK_GC_RUNS,
        Unit::Count,
        &["status"],
        "Sweeps of conntrack",
    ),
    counter(
        CONNTRACK_GC_DELETED,
        Unit::Count,
        &["map_name"],
        "Expired flows that sweeps have removed",
    ),
    counter(
        CONNTRACK_EVICTIONS,
        Unit::Count,
        &["flows"],
        "Flows that lived and had to make room for others: one-sided or answered",
    ),
    histogram(CONNTRACK_GC_DURATION, &[], "Time of a sweep of conntrack"),
    gauge(
        CONNTRACK_GC_INTERVAL,
        Unit::Seconds,
        &[],
        "Time until the next sweep of conntrack; it shrinks while sweeps find much",
    ),
    gauge(
        GENERATION,
        Unit::Count,
        &[],
        "Generation that the commit word makes current",
    ),
    gauge(
        PROTECTED_DEVICES,
        Unit::Count,
        &[],
        "Devices with our programs on them",
    ),
    gauge(
        UNPROTECTED_DEVICES,
        Unit::Count,
        &[],
        "Devices that are to be protected and are not, or not yet",
    ),
    counter(
        LOST_EVENTS,
        Unit::Count,
        &["cause"],
        "Events of the programs that no reader saw",
    ),
    gauge(MONITOR_READERS, Unit::Count, &[], "Readers of the monitor"),
    gauge(
        SOURCE_IN_SYNC,
        Unit::Count,
        &["source"],
        "1 when the source has told everything it holds",
    ),
    gauge(
        SOURCE_RESOURCES,
        Unit::Count,
        &["source"],
        "Resources that the source holds",
    ),
    gauge(
        SOURCE_PROBLEMS,
        Unit::Count,
        &["source"],
        "Files or objects that the source could not read",
    ),
    gauge(
        SOURCE_KIND_IN_SYNC,
        Unit::Count,
        &["source", "kind"],
        "1 when what is known of the kind is what the source holds, or the source has no such kind",
    ),
    gauge(
        SOURCE_KIND_RESOURCES,
        Unit::Count,
        &["source", "kind"],
        "Objects of the kind that the source holds",
    ),
    counter(
        SOURCE_EVENTS,
        Unit::Count,
        &["source", "kind", "event"],
        "Objects that the source told of: new, changed or listed (object), deleted (gone)",
    ),
    counter(
        SOURCE_RESYNCS,
        Unit::Count,
        &["source", "kind", "reason"],
        "Times that everything of a kind was listed again: its version was too old (expired), the \
         watch could not be resumed (broken), another store stood there (replaced)",
    ),
    counter(
        SOURCE_ERRORS,
        Unit::Count,
        &["source", "kind"],
        "Requests of the source that failed; each is tried again",
    ),
    histogram(
        KVSTORE_OPERATION,
        &["action", "outcome"],
        "Time that etcd took to answer, by call",
    ),
    counter(
        KVSTORE_LEASES,
        Unit::Count,
        &["outcome"],
        "Leases of this node in etcd: granted; lost, with all that it had published",
    ),
    gauge(
        QUEUE_DEPTH,
        Unit::Count,
        &["queue"],
        "Events that wait in a queue",
    ),
    gauge(
        QUEUE_CAPACITY,
        Unit::Count,
        &["queue"],
        "Events that a queue can hold",
    ),
    counter(
        QUEUE_EVENTS,
        Unit::Count,
        &["queue", "outcome"],
        "Events of a queue by what became of them",
    ),
    histogram(
        QUEUE_ENQUEUE_WAIT,
        &["queue"],
        "Time that producers waited for room",
    ),
    histogram(QUEUE_WAIT, &["queue"], "Time that events waited in a queue"),
    histogram(QUEUE_HANDLING, &["queue"], "Time that handlers took"),
    counter(
        "endpoint_regenerations_total",
        Unit::Count,
        &["reason", "outcome"],
        "Regenerations by cause and outcome",
    ),
    histogram(
        "endpoint_regeneration_time_stats_seconds",
        &["scope", "status"],
        "Time of the parts of a regeneration",
    ),
    counter(
        "policy_change_total",
        Unit::Count,
        &["source", "operation", "outcome"],
        "Changes of the repository",
    ),
    histogram(
        "policy_implementation_delay",
        &["source"],
        "Time from the acceptance of a change to its enforcement, in seconds",
    ),
    counter(
        "datapath_written_entries_total",
        Unit::Count,
        &[],
        "Entries of verdict tables, ipcache, settings and tail calls that commits had to write; \
         none after a start that found all of them in the kernel",
    ),
    histogram(
        "journal_flush_seconds",
        &[],
        "Time of a flush of the journal to the disk",
    ),
    histogram(
        "device_protection_seconds",
        &[],
        "Time from the kernel's word of a device that is to be protected to its protection",
    ),
    counter(
        "datapath_drift_total",
        Unit::Count,
        &["kind", "outcome"],
        "Elements that the kernel did not hold as they were written, by what became of them",
    ),
    histogram(
        "datapath_audit_duration_seconds",
        &[],
        "Time of a whole audit of the kernel, with its rests",
    ),
    histogram(
        "datapath_audit_piece_duration_seconds",
        &[],
        "Time of one piece of an audit: so long a change of policy may wait for it",
    ),
    gauge(
        JOURNAL_AVAILABLE,
        Unit::Count,
        &[],
        "1 while what is accepted is written to the disk, 0 while the agent runs without history",
    ),
    counter(
        JOURNAL_FAILURES,
        Unit::Count,
        &[],
        "Writes and flushes of the journal that failed",
    ),
];

/// Upper bounds of the buckets of every histogram, in seconds.
pub const BUCKETS_S: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];
