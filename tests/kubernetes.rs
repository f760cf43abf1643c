//! The Kubernetes source against a real API server: a real agent in a network
//! namespace, a real kube-apiserver with etcd in another.
//!
//! `cargo xtask apiserver` builds the server once; where there is none, the
//! tests pass over themselves with the reason, and fail in CI.

#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/cut.rs"]
mod cut;
#[path = "kubernetes/deployment.rs"]
mod deployment;
#[path = "kubernetes/document.rs"]
mod document;
#[path = "kubernetes/doors.rs"]
mod doors;
#[path = "kubernetes/extension.rs"]
mod extension;
#[path = "kubernetes/follow.rs"]
mod follow;
#[path = "e2e/growth.rs"]
mod growth;
#[path = "e2e/harness.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
mod harness;
#[path = "kubernetes/image.rs"]
mod image;
#[path = "kubernetes/latency.rs"]
mod latency;
#[path = "kubernetes/lease.rs"]
mod lease;
#[path = "kubernetes/names.rs"]
mod names;
#[path = "kubernetes/needs.rs"]
mod needs;
#[path = "kubernetes/outage.rs"]
mod outage;
#[path = "kubernetes/rights.rs"]
mod rights;
#[path = "kubernetes/scale.rs"]
mod scale;
#[path = "kubernetes/server.rs"]
mod server;
#[path = "kubernetes/streaming.rs"]
mod streaming;
