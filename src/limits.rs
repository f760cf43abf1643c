//! Every capacity, timeout and batch size of the agent, and the relations
//! between them, checked at compile time. Kernel-side limits live in the ABI.

use std::time::Duration;

/// Events that wait in the RepositoryChangeQueue and in the RuleReactionQueue
/// (Cilium: `policy-queue-size`).
pub const REPOSITORY_QUEUE_MAX: usize = 100;
/// Events that wait in each endpoint's queue (Cilium: `endpoint-queue-size`).
pub const ENDPOINT_QUEUE_MAX: usize = 25;
/// Builds that may run at once on a machine with fewer CPUs than this.
pub const BUILD_PERMITS_MIN: usize = 2;
/// Events flushed to the journal in one group.
pub const JOURNAL_GROUP_MAX: usize = 256;

/// First and longest wait before a failed regeneration is tried again.
pub const REGENERATION_RETRY_FIRST: Duration = Duration::from_secs(2);
pub const REGENERATION_RETRY_MAX: Duration = Duration::from_secs(120);

/// Largest manifest file, largest document, deepest nesting (POLICY.md 1).
pub const MANIFEST_FILE_BYTES_MAX: u64 = 16 << 20;
pub const MANIFEST_DOCUMENT_BYTES_MAX: usize = 1 << 20;
pub const MANIFEST_NESTING_MAX: usize = 64;
/// Objects of one file, list items included.
pub const MANIFEST_OBJECTS_MAX: usize = 16_384;
/// Values (fields and list elements) of one document and of one file, and the
/// memory that a file's values may take: a few bytes of text can become a
/// hundred times as many in memory.
pub const MANIFEST_DOCUMENT_VALUES_MAX: usize = 131_072;
pub const MANIFEST_FILE_VALUES_MAX: usize = 1 << 20;
pub const MANIFEST_FILE_MEMORY_BYTES_MAX: usize = 128 << 20;
/// Longest key of a mapping (YAML's own limit).
pub const MANIFEST_KEY_BYTES_MAX: usize = 1_024;
/// Errors listed for one file, and by one `policy validate`; the rest is
/// counted.
pub const MANIFEST_ERRORS_MAX: usize = 10_000;
/// Problems of one file that the status lists; the rest is counted.
pub const MANIFEST_PROBLEMS_MAX: usize = 100;
/// Silence after a file notification before the directory is looked at, and
/// how long a stream of notifications may put it off.
pub const MANIFEST_DEBOUNCE: Duration = Duration::from_millis(50);
pub const MANIFEST_DEBOUNCE_MAX: Duration = Duration::from_millis(400);
/// A file that is open for writing is read after this much silence.
pub const MANIFEST_WRITER_QUIET: Duration = Duration::from_millis(300);
/// Time between two scans without any notification, and while a directory
/// cannot be listed.
pub const MANIFEST_RESCAN: Duration = Duration::from_secs(5);
pub const MANIFEST_RETRY: Duration = Duration::from_millis(500);
/// File notifications that wait; more are dropped and a scan catches up.
pub const MANIFEST_EVENTS_MAX: usize = 1_024;
/// Ports and ICMP fields per item (Cilium).
pub const PORTS_PER_ITEM_MAX: usize = 40;
pub const ICMP_FIELDS_PER_ITEM_MAX: usize = 40;
/// Named ports of the host, and the longest name of a cluster (Cilium).
pub const NAMED_PORTS_MAX: usize = 1_024;
pub const CLUSTER_NAME_BYTES_MAX: usize = 32;
/// Rules that `policy explain --why-not` tells of.
pub const EXPLAIN_MISSES_MAX: usize = 100;
/// Questions about one item of one rule that `policy diff` asks: seconds.
pub const DIFF_WORK_MAX: usize = 1_000_000_000;
/// Rule items of one resource whose lines are noted.
pub const ITEM_LINES_MAX: usize = 4_096;
/// Pairs of an allow and a deny that are compared for a warning, at most.
pub const ADVICE_PAIRS_MAX: usize = 4_000_000;
/// Errors reported for one resource before the rest is summarised.
pub const ERRORS_PER_RESOURCE_MAX: usize = 100;

/// How often the device worker looks whether it shall stop, and how often it
/// compares everything again without any word of a change.
pub const LOCAL_POLL: Duration = Duration::from_millis(250);
pub const LOCAL_RESYNC: Duration = Duration::from_secs(30);
/// How soon a device is tried again that could not be protected, and after how
/// long without protection `status` tells of it and the agent is not ready.
pub const DEVICE_RETRY: Duration = Duration::from_secs(1);
pub const DEVICE_UNPROTECTED_MAX: Duration = Duration::from_secs(2);
/// How often the agent's own events and losses are told to the monitor.
pub const MONITOR_NOTES_POLL: Duration = Duration::from_millis(200);
/// How long a start waits for the lock of an agent that is just ending.
pub const START_LOCK_MAX: Duration = Duration::from_secs(3);
pub const START_LOCK_POLL: Duration = Duration::from_millis(20);
/// How long the workers may take to end when the agent stops.
pub const STOP_MAX: Duration = Duration::from_secs(5);
/// How often readiness is looked at until it is told to the service manager,
/// and samples are moved into their buckets.
pub const READY_POLL: Duration = Duration::from_millis(50);
/// How long the service manager is kept waiting where nothing was ever enforced
/// and the sources do not answer: they may need the network, which waits for us.
pub const NOTIFY_READY_MAX: Duration = Duration::from_secs(10);
pub const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// Flows that one request may list.
pub const API_FLOWS_MAX: usize = 1_000_000;
/// How long a change of an endpoint's options waits until it is enforced.
pub const ENDPOINT_CONFIG_WAIT: Duration = Duration::from_secs(10);
/// Largest request to the API: a manifest file of the largest size, as JSON.
pub const API_BODY_BYTES_MAX: usize = 32 << 20;
/// Longest wait of an API request (Cilium: 6 minutes).
pub const API_WAIT_MAX: Duration = Duration::from_secs(360);
/// Major events of this life held in memory, and lines of `endpoint log`.
pub const HISTORY_MAX: usize = 1_024;
pub const ENDPOINT_LOG_MAX: usize = 256;
/// Events of one kind that one CPU may send in a second; the rest is counted.
pub const KERNEL_EVENTS_PER_CPU_S_MAX: u32 = 5_000;
/// How often the ring buffer is read, and how much of it at once.
pub const KERNEL_EVENTS_POLL: Duration = Duration::from_millis(20);
pub const KERNEL_EVENTS_BATCH_MAX: usize = 4_096;
/// Flows per family, when the operator does not choose (Cilium's TCP table).
pub const CT_ENTRIES_MAX: u32 = 524_288;
/// How often a program is loaded that the kernel could not verify without being
/// interrupted by a signal (libbpf: 5).
pub const PROGRAM_LOADS_MAX: u32 = 5;
/// How many times and how often a start asks for the directory of pins before it
/// says that another agent holds it.
pub const LOCK_TRIES: u32 = 50;
pub const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// How often and how many times `detach` looks whether the kernel has freed all.
pub const DETACH_POLL_INTERVAL: Duration = Duration::from_millis(10);
pub const DETACH_POLLS_MAX: u32 = 300;
/// Sets of flows that are mapped at once by a walk (2 MiB in IPv4); how often a
/// flow is entered while others write its sets.
pub const CT_WINDOW_SETS: u32 = 4_096;
pub const CT_ENTER_TRIES_MAX: u32 = 8;
/// How long after the start expired flows are swept, and the shortest and longest
/// time between two sweeps. The metrics of conntrack's use are as old as the last.
pub const CT_SWEEP_FIRST: Duration = Duration::from_secs(10);
pub const CT_SWEEP_MIN: Duration = Duration::from_secs(5);
pub const CT_SWEEP_MAX: Duration = Duration::from_secs(60);

/// How long after the end of a whole audit the next one begins, in seconds, when
/// the operator does not choose; how long the auditor rests between two pieces.
pub const AUDIT_INTERVAL_S: u32 = 30;
pub const AUDIT_PAUSE: Duration = Duration::from_millis(2);
/// Elements of one piece: about a millisecond of work, which a commit may have to
/// wait for.
pub const AUDIT_BLOCKS_MAX: u32 = 8_192;
pub const AUDIT_BUCKETS_MAX: u16 = 512;
pub const AUDIT_PREFIXES_MAX: usize = 512;
pub const AUDIT_CHUNKS_MAX: usize = 64;
/// Findings of one pass that are told one by one, and of all passes that `status`
/// remembers.
pub const AUDIT_FINDINGS_MAX: usize = 64;
pub const DRIFT_REMEMBERED_MAX: usize = 8;
/// How long the audit waits for the generation that takes the place of a wrong one.
pub const DRIFT_MEND_WAIT: Duration = Duration::from_secs(5);

/// Monitor events buffered for one slow reader before it loses some.
pub const MONITOR_BUFFER_MAX: usize = 4_096;

/// The lab: how long silence must last to count as a drop, in how many tries
/// of a datagram; how often and how many times it looks for a change.
pub const LAB_PROBE_TIMEOUT: Duration = Duration::from_millis(1_500);
pub const LAB_PROBE_TRIES_MAX: u32 = 3;
pub const LAB_POLL_INTERVAL: Duration = Duration::from_millis(50);
pub const LAB_POLLS_MAX: u32 = 600;

const _: () = assert!(MANIFEST_DEBOUNCE.as_millis() < MANIFEST_WRITER_QUIET.as_millis());
const _: () = assert!(JOURNAL_GROUP_MAX >= REPOSITORY_QUEUE_MAX);
const _: () = assert!(MANIFEST_DOCUMENT_BYTES_MAX as u64 <= MANIFEST_FILE_BYTES_MAX);
const _: () = assert!(API_BODY_BYTES_MAX as u64 >= 2 * MANIFEST_FILE_BYTES_MAX);

/// Events that the journal holds beyond its snapshot before a new one: no fewer
/// than this, no more than that, and between them when their bytes are this part
/// (one half) of the snapshot's. A replay stays short beside reading the snapshot.
pub const SNAPSHOT_EVENTS_MIN: usize = 512;
pub const SNAPSHOT_EVENTS_MAX: usize = 5_000;
pub const SNAPSHOT_SHARE: u64 = 2;
/// How much of the past is kept; the limit that is reached first counts. A month
/// and ten thousand events outlast any incident review, the bytes hold for big
/// policies too, and with eight snapshots a replay is rarely longer than 1,500
/// events, of a store as large as they come 5,000.
pub const PAST_EVENTS_MAX: u64 = 10_000;
pub const PAST_SNAPSHOTS_MAX: usize = 8;
pub const PAST_BYTES_MAX: u64 = 64 << 20;
pub const PAST_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Events and lines of the history that stay whatever their age says: the wall
/// clock may jump by years.
pub const PAST_EVENTS_MIN: u64 = 1_000;
/// Lines of `palisade history` that outlive the agent: each event may have one
/// and its commit another.
pub const PAST_NOTES_MAX: u64 = 20_000;
/// Longest message of such a line.
pub const HISTORY_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Records of the past that are deleted with each group of events, beyond two
/// for each event: deleting keeps pace without ever taking long.
pub const PAST_SWEEP_MIN: usize = 16;
/// How long a question about an old revision waits while another is answered.
pub const PAST_TURN_WAIT: Duration = Duration::from_secs(10);
/// Times that a flush is tried, with a pause, before the agent goes on without
/// history: enforcement must not wait for a disk.
pub const FLUSH_ATTEMPTS_MAX: u32 = 5;

/// Lives in a row that may end within their first build before the next one does
/// not build by itself: as often as systemd starts a service that fails at once.
pub const BUILDS_CUT_OFF_MAX: u32 = 5;
pub const FLUSH_RETRY: Duration = Duration::from_millis(200);
/// A flush that takes this long is told as a problem.
pub const FLUSH_SLOW: Duration = Duration::from_secs(3);
/// How often a store that was given up is tried again.
pub const STORE_RETRY: Duration = Duration::from_secs(2);
/// Generations whose rule names the monitor can ask for.
pub const GENERATION_NAMES_MAX: usize = 64;
/// Changes whose way to the datapath is timed at once.
pub const DELAYS_MAX: usize = 1_024;
/// Longest sleep of a worker that waits for nothing in particular.
pub const WORKER_SLEEP_MAX: Duration = Duration::from_secs(1);
/// Times that an event is appended to the journal before the store is given up.
pub const APPEND_ATTEMPTS_MAX: u32 = 3;
/// How often a producer that waits for room looks whether the agent stops.
pub const ENQUEUE_RECHECK: Duration = Duration::from_millis(50);

const _: () = assert!(SNAPSHOT_EVENTS_MAX as u64 * 2 <= PAST_EVENTS_MAX);

/// The Kubernetes source. Objects of one page of a list, and what was heard and
/// waits for the pipeline.
pub const KUBERNETES_PAGE_MAX: u32 = 250;
pub const KUBERNETES_HEARD_MAX: usize = 256;
/// How long to wait for a connection, and for one answer.
pub const KUBERNETES_CONNECT: Duration = Duration::from_secs(5);
pub const KUBERNETES_ANSWER: Duration = Duration::from_secs(60);
/// How long a watch is asked for (a part of it more, so that nodes do not come
/// back together), and the silence after which it is doubted: servers send a bookmark
/// each minute.
pub const KUBERNETES_WATCH: Duration = Duration::from_secs(240);
pub const KUBERNETES_WATCH_SPREAD: Duration = Duration::from_secs(60);
pub const KUBERNETES_SILENCE: Duration = Duration::from_secs(100);
/// First and longest wait after a failure; failures of a watch after which all
/// is listed again.
pub const KUBERNETES_RETRY_FIRST: Duration = Duration::from_millis(250);
pub const KUBERNETES_RETRY_MAX: Duration = Duration::from_secs(30);
pub const KUBERNETES_RESUMES_MAX: u32 = 6;
/// How often a kind without a definition is asked for where no word of
/// definitions comes, and how often the intake looks around.
pub const KUBERNETES_ABSENT_POLL: Duration = Duration::from_secs(60);
pub const KUBERNETES_TICK: Duration = Duration::from_secs(1);
/// How long a kind is watched on when no policy needs it any more.
pub const KUBERNETES_LINGER: Duration = Duration::from_secs(10);
/// How often a node looks whether it has news for the cluster, and the policies
/// that its object names.
pub const KUBERNETES_REPORT: Duration = Duration::from_secs(10);
pub const KUBERNETES_REPORT_POLICIES_MAX: usize = 500;
/// How often a node tells the same again: its Node object may be another one.
pub const KUBERNETES_REPORT_AGAIN: Duration = Duration::from_secs(3_600);
/// The shortest lease of the one agent that counts for the status of policies:
/// thousands look at it, each less than once in half of it. Policies written in one
/// round.
pub const KUBERNETES_LEASE_MIN: u32 = 5;
pub const KUBERNETES_STATUS_WRITES_MAX: usize = 100;

/// The agent's own connections to its sources: addresses of a name that are let
/// through, the time for one connection and for one answer of a name server, and the
/// silence after which a connection is probed.
pub const CONTROL_ADDRESSES_PER_NAME_MAX: usize = 32;
pub const CONTROL_CONNECT: Duration = Duration::from_secs(3);
pub const CONTROL_NAME_ANSWER: Duration = Duration::from_secs(2);
pub const CONTROL_NAME_CONNECT: Duration = Duration::from_secs(2);
pub const CONTROL_KEEPALIVE: Duration = Duration::from_secs(10);

/// The etcd source. Keys of one page of a list, what was heard and waits for the
/// pipeline, and the largest answer: all masters, or a page of large policies.
pub const ETCD_PAGE_MAX: i64 = 250;
pub const ETCD_HEARD_MAX: usize = 256;
pub const ETCD_MESSAGE_BYTES_MAX: usize = 512 << 20;
/// How long to wait for a connection and for one answer; how often a connection
/// is tried (etcd hangs up on those that ask more than each five seconds), and
/// how long it may take to say that it lives.
pub const ETCD_CONNECT: Duration = Duration::from_secs(5);
pub const ETCD_ANSWER: Duration = Duration::from_secs(20);
pub const ETCD_PING: Duration = Duration::from_secs(6);
pub const ETCD_PING_ANSWER: Duration = Duration::from_secs(5);
/// How often the intake looks around, and the node at what it publishes.
pub const ETCD_TICK: Duration = Duration::from_secs(1);
pub const ETCD_PUBLISH: Duration = Duration::from_secs(1);
/// Writes in one transaction (etcd takes 128), and tries for one number while
/// others are faster.
pub const ETCD_OPERATIONS_MAX: usize = 64;
pub const ETCD_ATTEMPTS_MAX: u32 = 32;
/// Shortest lease of a node, in seconds.
pub const ETCD_LEASE_TTL_MIN: u32 = 5;

const _: () = assert!(KUBERNETES_SILENCE.as_secs() < KUBERNETES_WATCH.as_secs());
