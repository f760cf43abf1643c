//! Endpoints: what policies apply to. Today one per node, the host.
//!
//! Reading order: `status` (what others see).

mod status;

pub use status::{
    AuditSetting, EndpointKind, EndpointPolicyStatus, EndpointRevisions, EndpointStatus,
    Enforcement, LogEntry, NodeFacts,
};
