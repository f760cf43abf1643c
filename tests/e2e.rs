//! End to end: the real binary, the real programs, real sockets, in network
//! namespaces that each test makes and removes.
//!
//! One test for each sentence of what the host firewall must show. They need
//! root; without it they pass over themselves with a message, unless
//! `PALISADE_REQUIRE_PRIVILEGED` is set (`cargo xtask test` sets it).

#[path = "e2e/adoption.rs"]
mod adoption;
#[path = "e2e/audit.rs"]
mod audit;
#[path = "e2e/classes.rs"]
mod classes;
#[path = "e2e/cli.rs"]
mod cli;
#[path = "e2e/containers.rs"]
mod containers;
#[path = "e2e/continuity.rs"]
mod continuity;
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/detach.rs"]
mod detach;
#[path = "e2e/drift.rs"]
mod drift;
#[path = "e2e/drift_boot.rs"]
mod drift_boot;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/files.rs"]
mod files;
#[path = "e2e/flips.rs"]
mod flips;
#[path = "e2e/frames.rs"]
mod frames;
#[path = "e2e/harness.rs"]
mod harness;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/imports.rs"]
mod imports;
#[path = "e2e/journaled.rs"]
mod journaled;
#[path = "e2e/kills.rs"]
mod kills;
#[path = "e2e/metrics.rs"]
mod metrics;
#[path = "e2e/monitor.rs"]
mod monitor;
#[path = "e2e/past.rs"]
mod past;
#[path = "e2e/pods.rs"]
mod pods;
#[path = "e2e/policies.rs"]
mod policies;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "versions/mod.rs"]
mod versions;

#[path = "e2e/sockets.rs"]
mod sockets;
#[path = "e2e/streams.rs"]
mod streams;
#[path = "e2e/upgrade.rs"]
mod upgrade;
