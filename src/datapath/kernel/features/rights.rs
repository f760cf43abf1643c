//! The rights that a trial or one of our programs would fail for, before the kernel is
//! blamed: to a process without CAP_PERFMON the verifier refuses loops, and so on.

use rustix::thread::{CapabilitySet, capabilities};

/// What the trials need.
const NEEDED: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];
/// To bpf(2) it stands for each of these.
const ADMIN: (CapabilitySet, &str) = (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN");

/// Those that this thread lacks. None where it cannot be known.
pub(super) fn lacking() -> Vec<&'static str> {
    capabilities(None).map_or_else(|_| Vec::new(), |held| lacking_in(held.effective))
}

fn lacking_in(held: CapabilitySet) -> Vec<&'static str> {
    let (admin, name) = ADMIN;
    if held.contains(admin) {
        return Vec::new();
    }
    let missing = NEEDED.iter().filter(|(needed, _)| !held.contains(*needed));
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return vec![name];
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_that_a_trial_failed_for_is_named_and_no_other() {
        let without = |gone| lacking_in(CapabilitySet::all() - gone);
        let admin = CapabilitySet::SYS_ADMIN;
        assert_eq!(without(admin | CapabilitySet::PERFMON), ["CAP_PERFMON"]);
        let both = admin | CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        assert_eq!(without(both), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(without(admin), ["CAP_SYS_ADMIN"]);
        assert_eq!(without(CapabilitySet::BPF), [""; 0], "it is included");
        assert_eq!(
            lacking_in(CapabilitySet::empty()),
            ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]
        );
    }
}
