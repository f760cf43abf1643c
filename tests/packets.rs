//! Packets in, verdicts out: the real programs by BPF_PROG_TEST_RUN, with
//! tables made by the real policy engine and committed by the real datapath.
//!
//! Needs root and a BPF kernel (see `host::Host::new` for what happens else).

#[path = "packets/addresses.rs"]
mod addresses;
#[path = "packets/classes.rs"]
mod classes;
#[path = "packets/control.rs"]
mod control;
#[path = "packets/degraded.rs"]
mod degraded;
#[path = "packets/flows.rs"]
mod flows;
#[path = "packets/fragments.rs"]
mod fragments;
#[path = "packets/frames.rs"]
mod frames;
#[path = "packets/fuzz/run.rs"]
mod fuzz;
#[path = "packets/headers.rs"]
mod headers;
#[path = "packets/host.rs"]
mod host;
#[path = "packets/icmp.rs"]
mod icmp;
#[path = "packets/layers.rs"]
mod layers;
#[path = "packets/lifetimes.rs"]
mod lifetimes;
#[path = "packets/fuzz/mutate.rs"]
mod mutate;
#[path = "packets/pressure.rs"]
mod pressure;
#[path = "sim/random.rs"]
mod random;
#[path = "packets/fuzz/reading.rs"]
mod reading;
#[path = "packets/sandbox.rs"]
mod sandbox;
#[path = "packets/sweeps.rs"]
mod sweeps;
#[path = "packets/verdicts.rs"]
mod verdicts;
#[path = "packets/watched.rs"]
mod watched;
