//! The API: HTTP with JSON over a Unix socket, version in the path.
//!
//! Reading order: `model` (what goes over the wire), `client` (used by the
//! command line), `question` (a flow, as text). The server's handlers only read shared state of the agent;
//! nothing here touches the store or bpffs.

pub mod client;
pub mod model;
pub mod question;

/// First part of every path.
pub const VERSION: &str = "/v1";
