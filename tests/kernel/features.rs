//! What the start finds in the kernel that runs the tests, and what it says to
//! a process that may not ask.

use palisade::datapath::kernel::{Feature, FeatureState, KernelDatapath, Mechanism, Unwanted};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::guard::{has_tcx, in_world, run};

#[test]
fn this_kernel_has_every_feature_or_its_substitute() {
    in_world(|world| {
        let (datapath, report) = world.open();
        let features = &report.features.0;
        let absent: Vec<&Feature> = features
            .iter()
            .filter(|feature| feature.state != FeatureState::Present)
            .collect();
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        attachments
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        // What the trial said is what the attachment found.
        let (names, mechanism): (&[&str], _) = if has_tcx() {
            (&[], Mechanism::Tcx)
        } else {
            (&["TCX links"], Mechanism::Clsact)
        };
        let absent: Vec<&str> = absent.iter().map(|feature| feature.name).collect();
        assert_eq!(absent, names);
        assert!(
            attachments
                .list()
                .iter()
                .all(|hook| hook.mechanism == mechanism)
        );
        // The filters' trial had a network of its own.
        assert!(!run("tc qdisc show dev lo").contains("clsact"));
    });
}

#[test]
fn without_the_right_to_use_bpf_the_refusal_says_so() {
    in_world(|world| {
        std::fs::create_dir(world.dir()).expect("the directory of pins");
        let held = capabilities(None).expect("capabilities");
        let without = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        let less = CapabilitySets {
            effective: held.effective - without,
            ..held
        };
        set_capabilities(None, less).expect("fewer capabilities");
        let refusal = KernelDatapath::open(&world.options).expect_err("it may not");
        set_capabilities(None, held).expect("the capabilities back");
        let text = refusal.to_string();
        assert!(
            text.contains("refuses bpf(2) to this process: the agent needs root"),
            "{text}"
        );
    });
}
