//! What the start finds in the kernel that runs the tests, and what it says to
//! a process that may not ask.

use palisade::datapath::kernel::{Feature, FeatureState, KernelDatapath, Mechanism, Unwanted};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::guard::{World, has_tcx, in_world, run};

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

/// What a process is told that lacks some rights; None if it may go on.
fn refusal_without(world: &World, gone: CapabilitySet) -> Option<String> {
    let held = capabilities(None).expect("capabilities");
    let less = CapabilitySets {
        effective: held.effective - gone,
        ..held
    };
    set_capabilities(None, less).expect("fewer capabilities");
    let opened = KernelDatapath::open(&world.options);
    set_capabilities(None, held).expect("the capabilities back");
    opened.err().map(|refusal| refusal.to_string())
}

#[test]
fn a_process_without_a_right_is_told_which_one_and_the_kernel_is_not_blamed() {
    in_world(|world| {
        std::fs::create_dir(world.dir()).expect("the directory of pins");
        // To bpf(2) it stands for each of the others.
        let admin = CapabilitySet::SYS_ADMIN;
        for (gone, named) in [
            (CapabilitySet::BPF, "CAP_BPF"),
            (CapabilitySet::PERFMON, "CAP_PERFMON"),
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (
                CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
                "CAP_BPF and CAP_NET_ADMIN",
            ),
        ] {
            let text = refusal_without(world, gone | admin).expect("it may not");
            let lack = format!("refuses bpf(2) to this process for lack of {named}: ");
            assert!(text.contains(&lack), "{named}: {text}");
            assert!(!text.contains("loops"), "the kernel is blamed: {text}");
        }
        // Nothing else was missing; but the filters' trial makes a network of its own.
        let refusal = refusal_without(world, admin);
        if has_tcx() {
            assert_eq!(refusal, None);
        } else {
            let text = refusal.expect("it may not");
            assert!(text.contains("for lack of CAP_SYS_ADMIN: "), "{text}");
        }
    });
}
