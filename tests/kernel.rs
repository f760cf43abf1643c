//! The kernel side on a real kernel: load, attach, stage, commit, adopt, detach.
//!
//! Each test has a network namespace, a mount namespace and a bpffs of its own
//! on a thread that ends with it, so nothing is left behind, also by a panic.
//! They need root; without it they pass over themselves with a message, unless
//! `PALISADE_REQUIRE_PRIVILEGED` is set.

#[path = "kernel/adoption.rs"]
mod adoption;
#[path = "kernel/adoption6.rs"]
mod adoption6;
#[path = "kernel/adoption_tunnels.rs"]
mod adoption_tunnels;
#[path = "kernel/attach.rs"]
mod attach;
#[path = "kernel/bpffs.rs"]
mod bpffs;
#[path = "kernel/build.rs"]
mod build;
#[path = "kernel/commit.rs"]
mod commit;
#[path = "kernel/conntrack.rs"]
mod conntrack;
#[path = "kernel/drift.rs"]
mod drift;
#[path = "kernel/drift_devices.rs"]
mod drift_devices;
#[path = "kernel/features.rs"]
mod features;
#[path = "kernel/guard.rs"]
mod guard;
#[path = "kernel/large.rs"]
mod large;
#[path = "kernel/refusals.rs"]
mod refusals;
#[path = "versions/mod.rs"]
mod versions;

#[path = "kernel/ends.rs"]
mod ends;
#[path = "kernel/restart.rs"]
mod restart;
#[path = "kernel/starts.rs"]
mod starts;
#[path = "kernel/upgrade.rs"]
mod upgrade;
