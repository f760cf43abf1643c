//! What the operator reads where the kernel lacks something.

use std::fmt::Write as _;

use super::{Feature, FeatureState};

/// Kernels that the tests have run on.
const TESTED: &str = "6.1, 6.12 and 6.18";

/// What is around the features and may be why a trial failed.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// `uname -r`.
    pub(super) release: &'a str,
    /// How the kernel is locked down; empty if it is not.
    pub(super) lockdown: &'a str,
    /// Rights that the agent needs and this process lacks.
    pub(super) rights: &'a [&'static str],
}

/// Why the agent cannot run here; None if it can.
pub(super) fn refusal(features: &[Feature], around: &Surroundings<'_>) -> Option<String> {
    let release = around.release;
    let mut lacking = Vec::new();
    let mut forbidden = false;
    for feature in features {
        match &feature.state {
            FeatureState::Missing(error) => lacking.push(lacking_text(feature, release, error)),
            FeatureState::Forbidden => forbidden = true,
            FeatureState::Present | FeatureState::Instead(_) | FeatureState::Unknown(_) => {}
        }
    }
    // Without the right to ask, nothing is known about the kernel; without these two
    // the verifier is stricter, and says so with errors of all kinds, on some kernels
    // of our programs only.
    let is_strict = around
        .rights
        .iter()
        .any(|right| ["CAP_BPF", "CAP_PERFMON"].contains(right));
    if forbidden || is_strict {
        return Some(refusal_of_rights(around));
    }
    if lacking.is_empty() {
        return None;
    }
    Some(format!(
        "Linux {release} lacks what Palisade cannot do without: {}. Palisade is tested on Linux \
         {TESTED}",
        lacking.join("; ")
    ))
}

fn refusal_of_rights(around: &Surroundings<'_>) -> String {
    let release = around.release;
    let mut text = if around.rights.is_empty() {
        format!(
            "Linux {release} refuses bpf(2) to this process, which has the capabilities for it: in a \
             container, the seccomp profile must let bpf(2) through, and the user must be one of the \
             host"
        )
    } else {
        format!(
            "Linux {release} refuses bpf(2) to this process for lack of {}: the agent needs root, or \
             CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN",
            and(around.rights)
        )
    };
    if !around.lockdown.is_empty() {
        let _infallible = write!(text, "; the kernel is locked down ({})", around.lockdown);
    }
    text
}

/// `A, B and C`.
fn and(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => names.concat(),
    }
}

fn lacking_text(feature: &Feature, release: &str, error: &str) -> String {
    let (name, (major, minor)) = (feature.name, feature.since);
    let mut text = format!("{name} (in Linux since {major}.{minor}; here: {error})");
    if version(release).is_some_and(|running| running >= feature.since) {
        text.push_str(", which this kernel's configuration leaves out");
    }
    text
}

/// Major and minor number of `uname -r`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
