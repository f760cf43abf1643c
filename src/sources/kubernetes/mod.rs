//! The Kubernetes API as a source: every kind that policies are about is
//! listed, then watched, and told to the pipeline as the same objects that a
//! manifest would hold.
//!
//! Owners: thread `kubernetes` talks to the server (tokio), thread
//! `kube-intake` hands on what it heard; between them a bounded channel, so a
//! full pipeline slows the watches down. Invariants: an object is gone only when
//! the server said so, or when a list that came to its end does not hold it; a
//! kind is absent only when the server says that no such definition exists, for
//! a server that is starting answers 404 for what it has not read yet.
//!
//! The lists and watches are our own (`feed`), not kube-runtime's watcher: that
//! one hides bookmarks and the success of a watch, so `status` could not say
//! when a kind is heard again, and it asks for an expired version for ever where
//! a server answers 410 before the stream begins.
//!
//! Reading order: `kinds` (what is watched), `needs`, `demand` and `orders` (how much
//! of it, by the policies for this node),
//! `lobby` (where policies of other sources wait for it), `trim` (what is kept of an object), `heard` (what a feed tells), `mirror` (what follows from it; no I/O),
//! `access` (configuration) with `client` and `behind`, `feed` (list and watch),
//! `locate` (where a kind is served), `outlet` (where a feed leads), `intake`,
//! `event` and `report` (what the node tells the cluster), `tally`, `lease` and
//! `status` (what one agent counts for all), `source`.

mod access;
mod behind;
mod client;
mod demand;
mod event;
mod feed;
mod heard;
mod intake;
mod kinds;
mod lease;
mod lobby;
mod locate;
mod mirror;
mod needs;
mod orders;
mod outlet;
mod report;
mod source;
mod status;
mod tally;
mod trim;

#[cfg(test)]
mod demand_tests;
#[cfg(test)]
mod feed_tests;
#[cfg(test)]
mod lobby_tests;
#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod trim_tests;

pub use access::Access;
pub use behind::api_servers;
pub use source::KubernetesSource;
