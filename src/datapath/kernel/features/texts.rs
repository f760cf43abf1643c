//! What the operator reads where the kernel lacks something.

use std::fmt::Write as _;

use super::{Feature, FeatureState};

/// Kernels that the tests have run on.
const TESTED: &str = "6.1, 6.12 and 6.18";

/// Why the agent cannot run here; None if it can.
pub(super) fn refusal(features: &[Feature], release: &str, lockdown: &str) -> Option<String> {
    let mut lacking = Vec::new();
    let mut forbidden = false;
    for feature in features {
        match &feature.state {
            FeatureState::Missing(error) => lacking.push(lacking_text(feature, release, error)),
            FeatureState::Forbidden => forbidden = true,
            FeatureState::Present | FeatureState::Instead(_) | FeatureState::Unknown(_) => {}
        }
    }
    // Without the right to ask, nothing is known about the kernel.
    if forbidden {
        let mut text = format!(
            "Linux {release} refuses bpf(2) to this process: the agent needs root (or CAP_BPF, \
                 CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN), in a container also a seccomp profile \
                 that lets bpf(2) through"
        );
        if !lockdown.is_empty() {
            let _infallible = write!(text, "; the kernel is locked down ({lockdown})");
        }
        return Some(text);
    }
    (!lacking.is_empty()).then(|| {
        format!(
            "Linux {release} lacks what Palisade cannot do without: {}. Palisade is tested on \
                 Linux {TESTED}",
            lacking.join("; ")
        )
    })
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
