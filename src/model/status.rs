//! The agent's own state.

use serde::{Deserialize, Serialize};

use crate::endpoint::Enforcement;

/// `palisade status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub node: String,
    /// Sources in sync and the newest revision enforced.
    pub ready: bool,
    pub enforcing: EnforcementStatus,
    pub realized: Option<RealizedLine>,
    pub devices: Vec<DeviceStatus>,
    /// How long devices were there before they were protected.
    #[serde(default)]
    pub protection: ProtectionStatus,
    /// Whether the kernel held what was committed.
    #[serde(default)]
    pub drift: DriftStatus,
    /// What of the agent itself passes whatever policy says.
    #[serde(default)]
    pub control: ControlStatus,
    pub sources: Vec<SourceLine>,
    pub queues: Vec<QueueLine>,
    pub kernel: KernelStatus,
    /// Everything an operator should look at.
    pub problems: Vec<Problem>,
    /// With `--verify`: what was compared with the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// Enforcement of the host, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnforcementStatus {
    pub ingress: Enforcement,
    pub egress: Enforcement,
    pub reason: String,
}

/// What the datapath holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RealizedLine {
    pub generation: u32,
    pub revision: u64,
    pub newest_revision: u64,
}

/// A device, protected or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub name: String,
    pub protected: bool,
    pub reason: String,
    /// `tcx` or `clsact`; empty if unprotected.
    pub attachment: String,
    /// How long it has been waiting for its protection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprotected_ms: Option<u64>,
}

/// Times from the kernel's word of a device to its protection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProtectionStatus {
    /// Devices that came in this life of the agent, or were there at its start.
    pub measured: u64,
    pub last_us: u64,
    pub last_device: String,
    pub longest_us: u64,
    pub longest_device: String,
}

/// What the audits of this life found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DriftStatus {
    pub passes: u64,
    /// Milliseconds since 1970; 0 before the end of the first one.
    pub last_pass_ms: u64,
    /// Elements that differed.
    pub found: u64,
    pub repaired: u64,
    /// The last findings, oldest first.
    pub last: Vec<DriftLine>,
}

/// Something that was not as it had been written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DriftLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub kind: String,
    pub message: String,
    pub repaired: bool,
}

/// The agent's own traffic.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ControlStatus {
    /// `0x50/0x7f`: value and mask.
    pub mark: String,
    pub endpoints: Vec<ControlLine>,
}

/// Where it may lead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControlLine {
    /// `tcp/192.0.2.7:6443`.
    pub endpoint: String,
    /// Flows that the agent opened to it.
    pub flows: u64,
    /// While tail calls miss, packets to it pass without the mark too.
    pub unmarked_while_degraded: bool,
}

/// A source of resources.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceLine {
    pub name: String,
    pub in_sync: bool,
    pub resources: usize,
    pub detail: String,
    /// Each kind, where the source hears them one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindLine>,
}

/// One kind of objects of a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KindLine {
    pub kind: String,
    pub in_sync: bool,
    pub resources: usize,
    /// Why it is not in sync, or why there is nothing.
    pub detail: String,
}

/// A queue of the pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueLine {
    pub name: String,
    pub depth: usize,
    pub capacity: usize,
    pub handled: u64,
    pub wait_last_ms: u64,
    pub handling_last_ms: u64,
}

/// What runs in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelStatus {
    /// `uname -r`.
    pub release: String,
    /// Hash of the object that the programs came from.
    pub object: String,
    /// Whether the start found an enforcing datapath and adopted it.
    pub adopted: bool,
    /// What Palisade uses of the kernel.
    #[serde(default)]
    pub features: Vec<FeatureLine>,
    pub programs: Vec<ProgramLine>,
    pub conntrack: Vec<MapUse>,
    /// Memory of all maps together, as the kernel counts it.
    #[serde(default)]
    pub maps_bytes: u64,
    #[serde(default)]
    pub maps: Vec<MapMemory>,
}

/// A map and the memory that it takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapMemory {
    pub name: String,
    /// Elements that it can hold.
    pub capacity: u32,
    pub bytes: u64,
}

/// Something of the kernel, as the start of the agent found it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeatureLine {
    pub name: String,
    /// The first Linux that has it.
    pub since: String,
    pub present: bool,
    /// What is done instead, or why it is not known; empty if present.
    pub detail: String,
}

/// A program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgramLine {
    pub name: String,
    pub id: u32,
    /// Instructions that the verifier looked at.
    pub verified_insns: u32,
}

/// How full a map was at the last sweep.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapUse {
    pub name: String,
    pub entries: usize,
    pub capacity: u32,
}

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something asked for is not done.
    Error,
    /// It is done, but look at it.
    Warning,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub severity: Severity,
    /// Room or source that says so.
    pub from: String,
    /// Resource, file or device.
    pub subject: String,
    pub message: String,
}

/// One comparison of `status --verify`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// Nothing differs now.
    pub ok: bool,
    pub detail: String,
    /// Elements that were compared; 0 where nothing can be compared yet.
    #[serde(default)]
    pub compared: u64,
    /// Those of them that differed, and those that are right now.
    #[serde(default)]
    pub differed: u64,
    #[serde(default)]
    pub repaired: u64,
}

/// One line of `palisade history`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub sequence: Option<u64>,
    pub revision: u64,
    pub event: String,
    pub subject: String,
    pub message: String,
    /// The source that brought a change: manifests, api...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What an event of the journal did: applied, refused, unchanged, deferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The generation that enforced it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}
