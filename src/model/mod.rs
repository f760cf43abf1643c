//! Wire types. A contract: scripts read them through `-o json`.
//!
//! Reading order: `endpoint`, `policy`, `identity`, `event` (monitor), `bpf`,
//! `status`.

mod bpf;
mod endpoint;
mod event;
mod identity;
mod policy;
mod status;

pub use bpf::{BpfCounter, BpfCtEntry, BpfIpcacheEntry, BpfPolicyEntry, BpfRule, RuleOfCell};
pub use endpoint::{
    Endpoint, EndpointConfig, EndpointDetail, EndpointPolicy, EndpointRevision, Enforcing,
    FailsafeFlow, LogLine,
};
pub use event::{AgentNote, Decision, EventKind, MonitorEvent, Peer};
pub use identity::{Identity, IpEntry, labels_of};
pub use policy::{
    ChangeReply, DecidingRule, Explanation, IdentityRef, PolicyDump, PolicyResource,
    RefusedVersion, RuleName, Selector, WaitReply,
};
pub use status::{
    Check, ControlLine, ControlStatus, DeviceStatus, DriftLine, DriftStatus, EnforcementStatus,
    FeatureLine, HistoryLine, KernelStatus, KindLine, MapMemory, MapUse, Problem, ProgramLine,
    ProtectionStatus, QueueLine, RealizedLine, Severity, SourceLine, Status,
};

use serde::{Deserialize, Serialize};

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiError {
    pub error: String,
}
