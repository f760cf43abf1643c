//! Endpoints: what policies apply to. Today one per node, the host.
//!
//! Reading order: `status` (what others see), `state` (the machine),
//! `endpoint` (one endpoint and its builds), `manager` (all of them),
//! `permits`, `committer` (the way into the datapath), `published` (what it
//! tells), `flush`, `signal` (how workers sleep), `meters`.

mod committer;
#[expect(
    clippy::module_inception,
    reason = "the room and its main type have the field's name"
)]
mod endpoint;
mod flush;
mod manager;
pub mod meters;
mod permits;
mod published;
mod signal;
mod state;
mod status;

pub use committer::{
    Committer, CommitterParts, Offer, OfferBox, endpoint_record, found_status, policy_status,
};
pub use endpoint::{Endpoint, Work};
pub use flush::Attempts;
pub use manager::{EndpointManager, HOST_ENDPOINT};
pub use permits::{BuildPermits, Permit};
pub use published::{GenerationNames, Published};
pub use signal::{Progress, Signal};
pub use state::{Refused, step};
pub use status::{
    AuditSetting, EndpointKind, EndpointPolicyStatus, EndpointRevisions, EndpointStatus,
    Enforcement, LogEntry, NodeFacts,
};
