//! What the programs and the agent need of the kernel, asked for at the start by
//! trying each thing on a small scale: version numbers lie, since distributions
//! bring features back and configurations leave them out.
//!
//! In reading order: what a trial may find and what is made of it (here), `probes`
//! (the table of trials), `global` (a larger one), `code` (instructions of the
//! trial programs), `calls` (the system calls), `rights`, `texts`. No state, any thread.

mod calls;
mod code;
mod global;
mod probes;
mod rights;
mod texts;

#[cfg(test)]
mod tests;

use std::io;

use probes::{Probe, WITHOUT_TCX};

use crate::datapath::DatapathError;

/// What a trial found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeatureState {
    Present,
    /// It is missing; this is done instead.
    Instead(&'static str),
    /// It is missing, and there is no other way.
    Missing(String),
    /// The kernel has no ear for this process.
    Forbidden,
    /// The trial failed for a reason that says nothing about the kernel.
    Unknown(String),
}

/// Something of the kernel that Palisade uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    pub name: &'static str,
    /// The first Linux that has it.
    pub since: (u32, u32),
    pub state: FeatureState,
}

impl Feature {
    fn tried(probe: &Probe) -> Self {
        let state = match (state_of((probe.trial)()), probe.instead) {
            (FeatureState::Missing(_), Some(instead)) => FeatureState::Instead(instead),
            (state, _) => state,
        };
        Self {
            name: probe.name,
            since: probe.since,
            state,
        }
    }
}

/// What a trial's answer says about the kernel.
fn state_of(answer: io::Result<()>) -> FeatureState {
    /// The kernel's own number for "not supported", which has no place in libc.
    const ENOTSUPP: i32 = 524;
    let Err(error) = answer else {
        return FeatureState::Present;
    };
    match error.raw_os_error() {
        Some(libc::EPERM) => FeatureState::Forbidden,
        Some(
            libc::EINVAL
            | libc::EACCES
            | libc::ENOSYS
            | libc::ENOENT
            | libc::E2BIG
            | libc::EOPNOTSUPP
            | ENOTSUPP,
        ) => FeatureState::Missing(error.to_string()),
        _ => FeatureState::Unknown(error.to_string()),
    }
}

/// Everything that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Features(pub Vec<Feature>);

impl Features {
    /// Tries everything. Without TCX also the filters that take its place.
    pub(crate) fn probe() -> Self {
        let mut all: Vec<Feature> = probes::ALL.iter().map(Feature::tried).collect();
        let lacks_tcx = |it: &Feature| it.name == probes::TCX && it.state != FeatureState::Present;
        if all.iter().any(lacks_tcx) {
            all.push(Feature::tried(&WITHOUT_TCX));
        }
        Self(all)
    }

    /// Refuses a kernel that lacks what has no substitute: one error that names
    /// it, the kernel that has it, and the one that runs.
    pub(crate) fn require(&self) -> Result<(), DatapathError> {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let around = texts::Surroundings {
            release: &release,
            lockdown: &lockdown(),
            rights: &rights::lacking(),
        };
        match texts::refusal(&self.0, &around) {
            Some(text) => Err(DatapathError::Other(text)),
            None => Ok(()),
        }
    }
}

/// How the kernel is locked down; empty if it is not.
fn lockdown() -> String {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let chosen = text.split(['[', ']']).nth(1).unwrap_or_default();
    if chosen == "none" {
        String::new()
    } else {
        chosen.to_owned()
    }
}
