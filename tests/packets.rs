//! Packets in, verdicts out: the real programs by BPF_PROG_TEST_RUN, with
//! tables made by the real policy engine and committed by the real datapath.
//!
//! Needs root and a BPF kernel (see `host::Host::new` for what happens else).

#[path = "packets/degraded.rs"]
mod degraded;
#[path = "packets/flows.rs"]
mod flows;
#[path = "packets/frames.rs"]
mod frames;
#[path = "packets/headers.rs"]
mod headers;
#[path = "packets/host.rs"]
mod host;
#[path = "packets/sandbox.rs"]
mod sandbox;
#[path = "packets/verdicts.rs"]
mod verdicts;
#[path = "packets/watched.rs"]
mod watched;
