//! The API: HTTP with JSON over a Unix socket, version in the path.
//!
//! Reading order: `question` (a flow, as text), `client` (for the command line),
//! `agent` (what the handlers read), `server` (paths and handlers). What goes over
//! the wire: `crate::model`. Handlers read the agent's shared state and the kernel
//! through the datapath room; nothing here touches the store.

mod agent;
pub mod client;
mod noted;
pub mod question;
mod server;

pub use agent::Agent;
pub use noted::NotedPolicies;
pub use server::{ServerError, Servers};

/// First part of every path.
pub const VERSION: &str = "/v1";
