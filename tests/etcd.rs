//! The etcd source against a real etcd: real agents in network namespaces of
//! their own, one store between them.
//!
//! Where there is no etcd, the tests pass over themselves with the reason, and
//! fail in CI.

#[path = "etcd/beside.rs"]
mod beside;
#[path = "kubernetes/cluster.rs"]
#[expect(dead_code, reason = "the tests of Kubernetes use the rest of it")]
mod cluster;
#[path = "etcd/contract.rs"]
mod contract;
#[path = "etcd/cut.rs"]
mod cut;
#[path = "etcd/fleet.rs"]
mod fleet;
#[path = "etcd/follow.rs"]
mod follow;
#[path = "e2e/growth.rs"]
mod growth;
#[path = "e2e/harness.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
mod harness;
#[path = "kubernetes/names.rs"]
mod names;
#[path = "etcd/numbers.rs"]
mod numbers;
#[path = "etcd/outage.rs"]
mod outage;
#[path = "etcd/scale.rs"]
mod scale;
#[path = "etcd/secured.rs"]
mod secured;
#[path = "kubernetes/server.rs"]
#[expect(dead_code, reason = "the tests of Kubernetes use the rest of it")]
mod server;
#[path = "etcd/shared.rs"]
mod shared;
#[path = "etcd/store.rs"]
mod store;
