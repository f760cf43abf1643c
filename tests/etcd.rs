//! The etcd source against a real etcd: real agents in network namespaces of
//! their own, one store between them.
//!
//! Where there is no etcd, the tests pass over themselves with the reason, and
//! fail in CI.

#[path = "etcd/contract.rs"]
mod contract;
#[path = "etcd/cut.rs"]
mod cut;
#[path = "etcd/fleet.rs"]
mod fleet;
#[path = "etcd/follow.rs"]
mod follow;
#[path = "e2e/harness.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
mod harness;
#[path = "etcd/outage.rs"]
mod outage;
#[path = "etcd/secured.rs"]
mod secured;
#[path = "etcd/shared.rs"]
mod shared;
#[path = "etcd/store.rs"]
mod store;
