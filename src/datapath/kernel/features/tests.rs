//! The texts, and the trials on the kernel that runs the tests.

use std::io;

use super::code::{DONE, call};
use super::*;

fn feature(name: &'static str, since: (u32, u32), state: FeatureState) -> Feature {
    Feature { name, since, state }
}

fn refusal(
    features: &[Feature],
    release: &str,
    lockdown: &str,
    rights: &[&'static str],
) -> Option<String> {
    let around = texts::Surroundings {
        release,
        lockdown,
        rights,
    };
    texts::refusal(features, &around)
}

fn missing() -> FeatureState {
    state_of(Err(io::Error::from_raw_os_error(libc::EINVAL)))
}

#[test]
fn a_refusal_names_the_feature_the_kernel_that_has_it_and_the_one_that_runs() {
    let features = vec![
        feature("LPM tries", (4, 11), FeatureState::Present),
        feature("ring buffers", (5, 8), missing()),
        feature("TCX links", (6, 6), FeatureState::Instead("clsact filters")),
        feature("bpf_fib_lookup", (4, 18), missing()),
    ];
    let text = refusal(&features, "5.4.0-200-generic", "", &[]).expect("a refusal");
    assert_eq!(
        text,
        "Linux 5.4.0-200-generic lacks what Palisade cannot do without: ring buffers (in Linux since \
         5.8; here: Invalid argument (os error 22)); bpf_fib_lookup (in Linux since 4.18; here: Invalid \
         argument (os error 22)), which this kernel's configuration leaves out. Palisade is tested on \
         Linux 6.1, 6.12 and 6.18"
    );
}

#[test]
fn a_substitute_or_an_answer_that_says_nothing_is_no_refusal() {
    let full = state_of(Err(io::Error::from_raw_os_error(libc::ENOMEM)));
    assert!(matches!(full, FeatureState::Unknown(_)), "{full:?}");
    let features = vec![
        feature("TCX links", (6, 6), FeatureState::Instead("clsact filters")),
        feature("LPM tries", (4, 11), full),
    ];
    assert_eq!(refusal(&features, "6.1.0", "", &[]), None);
}

#[test]
fn a_process_without_the_right_is_told_which_it_lacks() {
    let forbidden = state_of(Err(io::Error::from_raw_os_error(libc::EPERM)));
    let features = vec![
        feature("bpf(2)", (3, 18), forbidden),
        feature("ring buffers", (5, 8), missing()),
    ];
    let told = |lockdown, rights: &[&'static str]| {
        refusal(&features, "6.1.0", lockdown, rights).expect("a refusal")
    };
    let text = told("", &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    assert_eq!(
        text,
        "Linux 6.1.0 refuses bpf(2) to this process for lack of CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON: the agent needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and \
         CAP_SYS_ADMIN"
    );
    let text = told("confidentiality", &[]);
    assert!(text.contains("seccomp"), "{text}");
    assert!(
        text.ends_with("the kernel is locked down (confidentiality)"),
        "{text}"
    );
}

/// The verifier refuses a loop to a process without CAP_PERFMON as if it knew none.
#[test]
fn a_right_that_makes_the_verifier_strict_is_named_before_the_kernel_is_blamed() {
    let features = vec![feature("bounded loops", (5, 3), missing())];
    let text = refusal(&features, "6.1.0", "", &["CAP_PERFMON"]).expect("a refusal");
    assert!(
        text.contains("for lack of CAP_PERFMON:") && !text.contains("loops"),
        "{text}"
    );
    let text = refusal(&[], "6.12.0", "", &["CAP_PERFMON"]).expect("the programs would be refused");
    assert!(text.contains("for lack of CAP_PERFMON:"), "{text}");
    let text = refusal(&features, "6.1.0", "", &["CAP_NET_ADMIN"]).expect("a refusal");
    assert!(text.contains("lacks what Palisade"), "{text}");
}

#[test]
fn a_substitute_is_named_only_where_the_feature_is_missing() {
    let probe = |trial| Probe {
        name: "thing",
        since: (6, 6),
        instead: Some("another"),
        trial,
    };
    let tried = |trial| Feature::tried(&probe(trial)).state;
    assert_eq!(tried(|| Ok(())), FeatureState::Present);
    let lacking = || Err(io::Error::from_raw_os_error(libc::EINVAL));
    assert_eq!(tried(lacking), FeatureState::Instead("another"));
    let forbidden = || Err(io::Error::from_raw_os_error(libc::EPERM));
    assert_eq!(tried(forbidden), FeatureState::Forbidden);
}

#[test]
fn releases_are_read_by_their_first_two_numbers() {
    assert_eq!(texts::version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
    assert_eq!(texts::version("5.4.0-200-generic"), Some((5, 4)));
    assert_eq!(texts::version("unknown"), None);
}

#[test]
fn the_documents_list_every_feature() {
    let text = include_str!("../../../../docs/kernels.md");
    for probe in probes::ALL.iter().chain([&WITHOUT_TCX]) {
        let (major, minor) = probe.since;
        let row = format!("| {} | {major}.{minor} |", probe.name);
        assert!(text.contains(&row), "docs/kernels.md has no row {row}");
        if let Some(instead) = probe.instead {
            assert!(
                text.contains(instead),
                "docs/kernels.md does not say: {instead}"
            );
        }
    }
}

#[test]
fn a_helper_that_no_kernel_has_is_found_missing() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root to load eBPF programs");
        return;
    }
    const NO_HELPER: i32 = 1_000_000;
    let answer = calls::load(&[call(NO_HELPER), DONE[0], DONE[1]]).map(drop);
    let state = state_of(answer);
    assert!(matches!(state, FeatureState::Missing(_)), "{state:?}");
}
