//! States of an endpoint and what moves it between them. The transition
//! function lives in `endpoint/`; these are the words.

use serde::{Deserialize, Serialize};

/// Endpoint states (Cilium's names).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    WaitingForIdentity,
    Ready,
    WaitingToRegenerate,
    Regenerating,
    Restoring,
    Disconnecting,
    Disconnected,
    Invalid,
}

/// Inputs of the endpoint's state machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EndpointTrigger {
    IdentityMissing,
    IdentityAssigned,
    IdentityInvalid,
    RegenerationRequested,
    BuildStarted,
    BuildSucceeded,
    BuildFailed,
    RestoreStarted,
    DisconnectRequested,
    DisconnectFinished,
}
