//! A generation: everything that one flip of the commit word makes current.

use std::sync::Arc;

use imbl::OrdMap;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::events::Revision;
use crate::identity::IpcacheEntry;
use crate::policy::{EndpointPolicy, FailsafeEntry};

/// Number of a generation; rises with each commit, wraps after 2^32.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GenerationNumber(pub u32);

/// What the programs need besides tables and ipcache.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatapathSettings {
    pub tcp_established_s: u32,
    pub tcp_syn_s: u32,
    pub tcp_close_s: u32,
    pub other_s: u32,
    pub drop_other_ethertypes: bool,
    pub missed_tail_call_passes: bool,
    /// The degraded-mode list (see `palisade_abi::settings::Failsafe`).
    pub failsafe: Vec<FailsafeEntry>,
    /// VLAN ids allowed on every protected device; 0 = all.
    pub vlan_allow: Vec<u16>,
}

impl Default for DatapathSettings {
    /// Timeouts of Cilium, newest.
    fn default() -> Self {
        Self {
            tcp_established_s: 8_000,
            tcp_syn_s: 60,
            tcp_close_s: 10,
            other_s: 60,
            drop_other_ethertypes: false,
            missed_tail_call_passes: false,
            failsafe: Vec::new(),
            vlan_allow: Vec::new(),
        }
    }
}

/// One revision of the repository as the datapath takes it: one transaction
/// for all endpoints, directions and families.
#[derive(Clone, Debug)]
pub struct Generation {
    pub revision: Revision,
    /// Today: exactly the host endpoint.
    pub endpoints: Vec<Arc<EndpointPolicy>>,
    pub ipcache4: OrdMap<Ipv4Net, IpcacheEntry>,
    pub ipcache6: OrdMap<Ipv6Net, IpcacheEntry>,
    pub settings: Arc<DatapathSettings>,
}

/// What the datapath enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Realized {
    pub generation: GenerationNumber,
    pub revision: Revision,
    /// Tells it from another generation of this number and revision, which an
    /// agent without history may have made.
    pub nonce: u32,
    /// By direction number.
    pub enforced: [bool; 2],
    /// By direction number: not enforced, but its verdicts are reported.
    pub watched: [bool; 2],
}

/// What staging did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageReport {
    /// Map elements and table blocks written.
    pub writes: usize,
    /// Blocks of verdicts in use in the slot.
    pub blocks: usize,
    /// Identities with a row, of both directions.
    pub rows: usize,
    pub prefixes: usize,
    /// What [`Realized`] will show once this is committed.
    pub nonce: u32,
}

/// Why a generation could not be staged or committed. The old one enforces on.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error(
        "{what}: {needed} needed, {max} available; the generation was refused, the previous one enforces on"
    )]
    DoesNotFit {
        what: &'static str,
        needed: usize,
        max: usize,
    },
    #[error("read-back of {what} differs from what was written")]
    ReadBack { what: String },
    #[error("{operation}: {source}")]
    Kernel {
        operation: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Other(String),
}
