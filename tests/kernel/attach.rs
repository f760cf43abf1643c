//! Devices: attach, vanish, other programs on the hook, detach.

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use palisade::datapath::devices::{DevicePattern, DeviceWatch, list, select};
use palisade::datapath::kernel::{KernelDatapath, Unwanted, detach};
use std::time::Duration;

use super::guard::{Objects, attachment_pin, eventually, has_tcx, in_world, pins, run, running};

#[test]
fn every_program_loads_and_runs_on_a_device_until_detach() {
    in_world(|world| {
        let (datapath, report) = world.open();
        assert!(
            report.programs_loaded && report.adopted.is_none(),
            "{report:?}"
        );
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        let report = attachments
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        assert_eq!(
            (report.attached.as_slice(), report.failed.len()),
            (&["v0".to_owned()][..], 0)
        );
        let again = attachments
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        assert!(again.is_empty(), "{again:?}");
        let attached = attachments.list();
        assert_eq!(attached.len(), 2);
        let inspector = datapath.inspector();
        assert_eq!(inspector.verify().expect("verify"), [""; 0]);
        for program in inspector.programs() {
            assert!(program.verified_insns < 500_000, "{program:?}");
        }
        let objects = Objects::of(&datapath);
        drop((datapath, inspector, attachments));
        let removed = detach(world.dir()).expect("detach");
        let ended = if has_tcx() {
            "link: v0 ingress".to_owned()
        } else {
            format!("filter: device {} ingress", device.ifindex)
        };
        assert!(removed.contains(&ended), "{removed:?}");
        assert_eq!(objects.left(), [""; 0]);
        assert!(!world.dir().exists());
        assert_eq!(detach(world.dir()).expect("again"), [""; 0]);
    });
}

#[test]
fn without_an_agent_the_programs_go_on_running() {
    in_world(|world| {
        let (datapath, _) = world.open();
        let device = world.veth("v0", "v1");
        datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        let objects = Objects::of(&datapath);
        let all = objects.left().len();
        drop(datapath);
        assert_eq!(objects.left().len(), all);
        assert!(running("v0").contains(&"pal_from_netdev".to_owned()));
        detach(world.dir()).expect("detach");
        assert_eq!(objects.left(), [""; 0]);
        assert!(running("v0").is_empty());
    });
}

#[test]
fn a_device_that_is_gone_loses_its_pins_and_a_new_one_is_attached() {
    in_world(|world| {
        let (datapath, _) = world.open();
        let attachments = datapath.attachments();
        let old = world.veth("v0", "v1");
        attachments
            .sync_devices(&[old], Unwanted::Keep)
            .expect("sync");
        run("ip link del v0");
        let new = world.veth("w.0", "w1");
        let report = attachments
            .sync_devices(&[new], Unwanted::Keep)
            .expect("sync");
        assert_eq!(report.dropped, ["v0"]);
        assert_eq!(report.attached, ["w.0"]);
        let links: Vec<_> = pins(world.dir())
            .into_iter()
            .filter(|pin| pin.starts_with(attachment_pin()))
            .collect();
        assert_eq!(links.len(), 2, "{links:?}");
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
    });
}

#[test]
fn an_unwanted_device_stays_attached_until_the_operator_names_others() {
    in_world(|world| {
        let (datapath, _) = world.open();
        let attachments = datapath.attachments();
        let device = world.veth("v0", "v1");
        attachments
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        let kept = attachments.sync_devices(&[], Unwanted::Keep).expect("sync");
        assert!(kept.is_empty(), "{kept:?}");
        assert_eq!(attachments.list().len(), 2);
        let gone = attachments
            .sync_devices(&[], Unwanted::Detach)
            .expect("sync");
        assert_eq!(gone.dropped, ["v0"]);
        assert!(running("v0").is_empty());
    });
}

#[test]
fn clsact_filters_stand_beside_others_and_go_alone() {
    in_world(|world| {
        let mut options = world.options.clone();
        options.force_clsact = true;
        let open = || KernelDatapath::open(&options).expect("open");
        let (datapath, _) = open();
        let own_qdisc = world.veth("v0", "v1");
        let other_qdisc = world.veth("w0", "w1");
        run("tc qdisc add dev w0 clsact");
        // A classifier of somebody else: one instruction of classic bytecode.
        let code = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(code.path(), "1,6 0 0 0").expect("the code");
        let code = code.path().display();
        run(&format!(
            "tc filter add dev w0 ingress pref 7 bpf bytecode-file {code}"
        ));
        let both = [own_qdisc, other_qdisc];
        let report = datapath
            .attachments()
            .sync_devices(&both, Unwanted::Keep)
            .expect("sync");
        assert_eq!(report.failed, []);
        assert!(run("tc filter show dev v0 egress").contains("pal_to_netdev"));
        let order = run("tc filter show dev w0 ingress");
        assert!(
            order.find("pal_from_netdev") < order.find("pref 7"),
            "{order}"
        );
        drop(datapath);
        let (datapath, _) = open();
        let again = datapath
            .attachments()
            .sync_devices(&both, Unwanted::Keep)
            .expect("sync");
        assert!(again.is_empty(), "{again:?}");
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
        let objects = Objects::of(&datapath);
        drop(datapath);
        detach(world.dir()).expect("detach");
        assert_eq!(objects.left(), [""; 0]);
        assert!(
            !run("tc qdisc show dev v0").contains("clsact"),
            "we added it, it goes"
        );
        assert!(
            run("tc qdisc show dev w0").contains("clsact"),
            "not ours, it stays"
        );
        assert!(run("tc filter show dev w0 ingress").contains("pref 7"));
    });
}

#[test]
fn verify_tells_of_a_program_put_before_ours() {
    in_world(|world| {
        if !has_tcx() {
            println!("this kernel has no TCX: filters have fixed places");
            return;
        }
        let (datapath, _) = world.open();
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        attachments
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        // Any other program will do: what it returns means "next".
        let clock = pins(world.dir())
            .into_iter()
            .find(|pin| pin.starts_with("prog_pal_clock_"));
        let clock = world.dir().join(clock.expect("a program"));
        let mut other = SchedClassifier::from_pin(clock).expect("a program");
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        other
            .attach_with_options("v0", TcAttachType::Ingress, first)
            .expect("attach");
        assert_eq!(
            running("v0"),
            ["pal_clock", "pal_from_netdev", "pal_to_netdev"]
        );
        let problems = datapath.inspector().verify().expect("verify");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("v0 ingress: our program runs at place 2 of 2"),
            "{problems:?}"
        );
        drop(other);
        // A child of another test may hold the link until it is exec'ed.
        eventually("the other program goes", || {
            datapath.inspector().verify().expect("verify").is_empty()
        });
    });
}

fn removed_pins_are_told_and_made_again(force_clsact: bool) {
    in_world(|world| {
        let mut options = world.options.clone();
        options.force_clsact = force_clsact;
        let (datapath, _) = KernelDatapath::open(&options).expect("open");
        let begin = if force_clsact {
            "filter_"
        } else {
            attachment_pin()
        };
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        attachments
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        let before = pins(world.dir());
        let gone: Vec<_> = before
            .iter()
            .filter(|pin| {
                ["pal_ct4", begin, "prog_pal_in4"]
                    .iter()
                    .any(|start| pin.starts_with(start))
            })
            .cloned()
            .collect();
        for pin in &gone {
            std::fs::remove_file(world.dir().join(pin)).expect("a pin");
        }
        let problems = datapath.inspector().verify().expect("verify");
        assert_eq!(problems.len(), gone.len(), "{problems:?}");
        let report = attachments
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        assert_eq!(report.repinned.len(), gone.len(), "{report:?}");
        assert_eq!(pins(world.dir()), before);
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
        drop(datapath);
        if !force_clsact {
            assert_eq!(running("v0"), ["pal_from_netdev", "pal_to_netdev"]);
        }
    });
}

#[test]
fn removed_pins_are_made_again() {
    removed_pins_are_told_and_made_again(false);
}

#[test]
fn removed_records_of_filters_are_made_again() {
    removed_pins_are_told_and_made_again(true);
}

#[test]
fn a_filter_that_somebody_removed_is_put_back() {
    in_world(|world| {
        let mut options = world.options.clone();
        options.force_clsact = true;
        let (datapath, _) = KernelDatapath::open(&options).expect("open");
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        attachments
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        run("tc filter del dev v0 ingress");
        let problems = datapath.inspector().verify().expect("verify");
        assert!(
            problems.iter().any(|it| it.contains("v0 ingress")),
            "{problems:?}"
        );
        attachments
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        assert!(run("tc filter show dev v0 ingress").contains("pal_from_netdev"));
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
    });
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused() {
    in_world(|world| {
        let (_first, _) = world.open();
        let error = KernelDatapath::open(&world.options).expect_err("the directory is held");
        assert!(error.to_string().contains("another agent holds"), "{error}");
    });
}

#[test]
fn devices_are_listed_with_what_they_are_and_changes_are_told() {
    in_world(|world| {
        let mut watch = DeviceWatch::open().expect("a watch");
        assert!(!watch.wait(Duration::ZERO).expect("quiet"));
        world.veth("v0", "v1");
        run("ip link add br0 type bridge");
        run("ip link set v1 master br0");
        run("ip addr add 10.9.8.7/24 dev v0");
        run("ip addr add fd00::7/64 dev v0 nodad");
        run("ip tuntap add dev t0 mode tun");
        assert!(watch.wait(Duration::from_secs(5)).expect("changes"));
        let devices = list().expect("devices");
        let find = |name: &str| {
            devices
                .iter()
                .find(|device| device.name == name)
                .expect(name)
        };
        let (v0, v1, t0) = (find("v0"), find("v1"), find("t0"));
        assert_eq!((v0.kind.as_str(), v0.ethernet, v0.up), ("veth", true, true));
        assert_eq!(v1.master, Some(find("br0").ifindex));
        assert!(!t0.ethernet && find("lo").loopback);
        assert!(v0.has_global_unicast() && !v1.has_global_unicast());
        let own = palisade::datapath::devices::own_addresses().expect("addresses");
        assert!(own.contains(&"10.9.8.7".parse().expect("ip")));
        assert!(own.contains(&"fd00::7".parse().expect("ip")));
        let named = select(&devices, &[DevicePattern::new("v+")]);
        let protected: Vec<_> = named
            .iter()
            .filter(|it| it.protected)
            .map(|it| it.device.name.as_str())
            .collect();
        assert_eq!(protected, ["v1", "v0"]);
    });
}

#[test]
fn a_device_without_ethernet_gets_the_programs_for_such() {
    in_world(|world| {
        let (datapath, _) = world.open();
        run("ip tuntap add dev t0 mode tun");
        run("ip link set t0 up");
        let device = super::guard::wanted("t0");
        let report = datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        assert_eq!(report.attached, ["t0"]);
        assert!(running("t0").contains(&"pal_from_l3dev".to_owned()));
    });
}
