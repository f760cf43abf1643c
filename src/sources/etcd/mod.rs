//! etcd as a source: what a fleet of plain hosts shares. Policies are read from
//! it; nodes, addresses and the numbers of identities are read and published.
//! `docs/etcd.md` has the layout of the keys, which is Cilium's.
//!
//! Owners: thread `etcd` talks to etcd (tokio), thread `etcd-intake` hands on
//! what it heard; between them a bounded channel, so a full pipeline slows the
//! watch down. Invariants: a key is gone only when etcd said so, or when a list
//! that came to its end does not hold it; a number means the same labels to
//! everybody, which transactions of etcd decide; what a node publishes hangs on
//! its lease and goes with it.
//!
//! Reading order: `keys` (layout), `translate` (a value as an object), `heard`
//! (what the feed tells), `mirror` (what follows from it; no I/O), `wire` and
//! `client` (etcd's API), `access` (endpoints, TLS, user), `feed` (list and
//! watch), `allocator` (numbers of labels), `collector` (numbers that nobody
//! uses), `own` (what a node has to say; no I/O), `publisher` (lease and keys of
//! this node), `intake`, `source`; `doors` (for the fuzz target).

mod access;
mod allocator;
pub mod client;
mod collector;
pub mod doors;
mod feed;
mod heard;
mod intake;
pub mod keys;
mod mirror;
mod own;
mod publisher;
mod source;
mod translate;
pub mod wire;

#[cfg(test)]
mod allocator_tests;
#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod translate_tests;

pub use access::Access;
pub use allocator::{Allocator, NoNumber, Verified};
pub use collector::Collector;
pub use source::EtcdSource;
