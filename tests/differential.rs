//! The differential test: what the text of the policies says, read plainly
//! (`policy::oracle`), is what the compiled verdict tables say, and what the
//! real programs do (BPF_PROG_TEST_RUN through the real datapath).
//!
//! Each case follows from its seed: manifests of up to 200 rules, options of
//! the agent, changes, packets near everything that the manifests name. A
//! mismatch is shrunk and printed with its seed.
//!
//! `PALISADE_FUZZ_SECONDS=n` sets the length, `PALISADE_FUZZ_SEED=n` the first
//! seed, `PALISADE_FUZZ_CASES=n` the number of cases; `cargo xtask fuzz` sets
//! them. Needs root and a BPF kernel for the third verdict.

#[path = "differential/case.rs"]
mod case;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/coverage.rs"]
mod coverage;
#[path = "differential/flows.rs"]
mod flows;
#[path = "packets/frames.rs"]
#[expect(dead_code, reason = "shared with the tests of packets")]
mod frames;
#[path = "differential/generate/mod.rs"]
mod generate;
#[path = "differential/kernel.rs"]
mod kernel;
#[path = "differential/probes.rs"]
mod probes;
#[path = "sim/random.rs"]
mod random;
#[path = "differential/run.rs"]
mod run;
#[path = "packets/sandbox.rs"]
mod sandbox;
#[path = "differential/shrink.rs"]
mod shrink;
#[path = "differential/tests.rs"]
mod tests;
#[path = "differential/verdict.rs"]
mod verdict;
