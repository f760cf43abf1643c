//! Palisade: a host firewall for Linux nodes.
//!
//! The rooms in the order in which they may import each other (a room names
//! only rooms above it); ARCHITECTURE.md walks one event through all of them.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod catalogue;
pub mod clock;
pub mod events;
pub mod identity;
pub mod limits;
pub mod policy;

pub mod datapath;
pub mod endpoint;
pub mod queues;

pub mod config;
pub mod model;
pub mod sources;

pub mod api;
pub mod metrics;
pub mod monitor;

pub mod cli;
pub mod daemon;
pub mod lab;
