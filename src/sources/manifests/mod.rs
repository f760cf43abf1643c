//! The manifests directories: full sync, then deltas.
//!
//! Reading order: `files` (what counts as a manifest, how it is read), `state`
//! (what each file holds and what follows: no I/O), `pending` (when to look: no
//! I/O), `watch` (the thread).
//!
//! Invariants: a file that cannot be read or parsed keeps what it held before;
//! a resource is deleted only when its file is gone, or is valid without it; of
//! two files with the same resource the first by path wins.

mod files;
mod pending;
mod state;
mod watch;

pub use files::{read_capped, scan};
pub use state::{ManifestState, Observation, Settled};
pub use watch::{ManifestWatch, Stopper};

#[cfg(test)]
mod pending_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod watch_tests;
