//! Drift of what is attached: links, filters, their order, their pins and the
//! file system under these.

use std::sync::Arc;
use std::time::Duration;

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use palisade::clock::{Clock, ManualClock};
use palisade::datapath::kernel::{
    Attachments, Auditor, Finding, Guarded, KernelDatapath, KernelOptions, Mending, Part,
    SyncReport, Unwanted, WantedDevice, detach,
};
use palisade::datapath::netns;
use palisade::sources::local::{DeviceBoard, LocalSource};
use rustix::mount::UnmountFlags;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::guard::{Objects, World, eventually, has_tcx, in_world, pins, run, running, wanted};

struct Node {
    attachments: Attachments,
    auditor: Auditor,
    objects: Objects,
    /// Held, so that the datapath lives.
    _datapath: Guarded,
}

impl Node {
    fn of(options: &KernelOptions) -> Self {
        let (datapath, _) = KernelDatapath::open(options).expect("open");
        let (attachments, objects) = (datapath.attachments(), Objects::of(&datapath));
        let datapath = Guarded::new(datapath);
        Self {
            attachments,
            auditor: Auditor::new(&datapath),
            objects,
            _datapath: datapath,
        }
    }

    fn sync(&self, devices: &[WantedDevice]) -> SyncReport {
        let sync = self.attachments.sync_devices(devices, Unwanted::Keep);
        sync.expect("sync")
    }

    fn found(&mut self) -> Vec<Finding> {
        let report = self.auditor.pass();
        assert_eq!(self.auditor.pass().findings, [], "after {report:?}");
        report.findings
    }

    fn mended(&mut self) -> Vec<Part> {
        let found = self.found();
        for finding in &found {
            assert_eq!(finding.mending, Mending::Done, "{finding:?}");
        }
        found.into_iter().map(|finding| finding.part).collect()
    }
}

fn clsact(world: &World) -> KernelOptions {
    let mut options = world.options.clone();
    options.force_clsact = true;
    options
}

/// Both ways to attach, where the kernel has both.
fn in_both(test: impl Fn(&World, Node) + Send + Sync) {
    in_world(|world| test(world, Node::of(&clsact(world))));
    in_world(|world| {
        if has_tcx() {
            test(world, Node::of(&world.options));
        }
    });
}

fn attachment_pins(world: &World) -> Vec<String> {
    let all = pins(world.dir()).into_iter();
    let kinds = ["link_", "filter_", "qdisc_"];
    all.filter(|pin| kinds.iter().any(|kind| pin.starts_with(kind)))
        .collect()
}

#[test]
fn a_detached_program_is_put_back() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        assert_eq!(node.mended(), []);
        let link = attachment_pins(world)
            .into_iter()
            .find(|it| it.starts_with("link_"));
        match link {
            Some(link) => run(&format!(
                "bpftool link detach pinned {}",
                world.dir().join(link).display()
            )),
            None => run("tc filter del dev v0 egress"),
        };
        assert_eq!(node.mended(), [Part::Attachment]);
        if has_tcx() && attachment_pins(world)[0].starts_with("link_") {
            assert_eq!(running("v0"), ["pal_from_netdev", "pal_to_netdev"]);
        } else {
            assert!(run("tc filter show dev v0 egress").contains("pal_to_netdev"));
        }
    });
}

#[test]
fn removed_pins_are_counted_and_made_again() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        let before = pins(world.dir());
        let gone = |pin: &&String| {
            ["pal_ct4", "link_", "filter_", "prog_pal_in4"]
                .iter()
                .any(|start| pin.starts_with(start))
        };
        let gone: Vec<_> = before.iter().filter(gone).collect();
        for pin in &gone {
            std::fs::remove_file(world.dir().join(pin)).expect("a pin");
        }
        let found = node.found();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].part, found[0].count),
            (Part::Pin, gone.len() as u64)
        );
        assert_eq!(pins(world.dir()), before);
    });
}

/// A foreign program runs with us, but not before us.
#[test]
fn a_program_put_before_ours_comes_behind_it() {
    in_world(|world| {
        if !has_tcx() {
            println!("this kernel has no TCX");
            return;
        }
        let mut node = Node::of(&world.options);
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        let before = attachment_pins(world);
        let clock = pins(world.dir())
            .into_iter()
            .find(|pin| pin.starts_with("prog_pal_clock_"));
        let clock = world.dir().join(clock.expect("a program"));
        let mut other = SchedClassifier::from_pin(clock).expect("a program");
        for (hook, order) in [
            (TcAttachType::Ingress, LinkOrder::first()),
            (TcAttachType::Egress, LinkOrder::last()),
        ] {
            let place = TcAttachOptions::TcxOrder(order);
            other
                .attach_with_options("v0", hook, place)
                .expect("attach");
        }
        let wrong = ["pal_clock", "pal_from_netdev", "pal_to_netdev", "pal_clock"];
        assert_eq!(running("v0"), wrong);
        let found = node.found();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].part, found[0].count), (Part::Order, 2));
        assert_eq!(found[0].mending, Mending::Done);
        let right = ["pal_from_netdev", "pal_clock", "pal_clock", "pal_to_netdev"];
        assert_eq!(running("v0"), right);
        assert_eq!(attachment_pins(world), before);
        drop(other);
        drop(node);
        // The pins hold the links that took the others' place. The kernel may end a link
        // a moment after its last descriptor.
        eventually("the other programs end", || {
            running("v0") == ["pal_from_netdev", "pal_to_netdev"]
        });
        let node = Node::of(&world.options);
        assert!(node.sync(&[wanted("v0")]).is_empty());
        let objects = node.objects;
        drop((node.attachments, node.auditor, node._datapath));
        detach(world.dir()).expect("detach");
        assert_eq!(objects.left(), [""; 0]);
    });
}

#[test]
fn a_filter_put_before_ours_comes_behind_it() {
    in_world(|world| {
        let mut node = Node::of(&clsact(world));
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        let code = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(code.path(), "1,6 0 0 4294967295").expect("the code");
        let code = code.path().display();
        run(&format!(
            "tc filter add dev v0 ingress pref 1 handle 9 bpf direct-action bytecode-file {code}"
        ));
        let order = || run("tc filter show dev v0 ingress");
        assert!(
            order().find("0x9") < order().find("pal_from"),
            "{}",
            order()
        );
        assert_eq!(node.mended(), [Part::Order]);
        assert!(
            order().find("pal_from") < order().find("0x9"),
            "{}",
            order()
        );
        let all = order();
        let ours = all.lines().filter(|line| line.contains("pal_from_netdev"));
        assert_eq!(ours.count(), 1, "{all}");
    });
}

/// The links live on by the agent's descriptors; the file system is mounted
/// again, and every pin made again.
#[test]
fn a_bpffs_that_was_unmounted_is_mounted_again_with_every_pin() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        let before = pins(world.dir());
        let runs = || {
            let filters = run("tc filter show dev v0 ingress");
            filters.contains("pal_from_netdev")
                || running("v0") == ["pal_from_netdev", "pal_to_netdev"]
        };
        let mount = world.dir().parent().expect("a mount point");
        rustix::mount::unmount(mount, UnmountFlags::DETACH).expect("unmount");
        assert!(runs(), "without a pin");
        let parts = node.mended();
        assert!(
            parts.contains(&Part::BpfFileSystem) && parts.contains(&Part::Pin),
            "{parts:?}"
        );
        let of_kernel = |pin: &String| pin.ends_with(".debug");
        let mut after = pins(world.dir());
        after.retain(|pin| !of_kernel(pin));
        assert_eq!(after, before);
        // It is ours again: no second agent, no detach while we live.
        let error = detach(world.dir()).expect_err("an agent runs");
        assert!(error.to_string().contains("an agent runs"), "{error}");
        drop(node);
        assert!(runs(), "by its pins");
        detach(world.dir()).expect("detach");
        assert!(!runs());
    });
}

#[test]
fn a_removed_directory_of_pins_is_made_again() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        std::fs::remove_dir_all(world.dir()).expect("rm -rf");
        let parts = node.mended();
        assert!(
            parts.contains(&Part::BpfFileSystem) && parts.contains(&Part::Pin),
            "{parts:?}"
        );
    });
}

#[test]
fn a_device_that_vanished_leaves_no_pin() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        run("ip link del v0");
        let dropped = node.sync(&[]).dropped;
        assert_eq!(dropped, ["v0"]);
        assert_eq!(attachment_pins(world), [""; 0]);
        assert_eq!(node.mended(), [], "no drift: nobody wants it");
    });
}

#[test]
fn a_device_keeps_its_protection_and_its_pins_under_another_name() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(&[device]);
        let before = attachment_pins(world).len();
        run("ip link set v0 down");
        run("ip link set v0 name w.0");
        run("ip link set w.0 up");
        let report = node.sync(&[wanted("w.0")]);
        assert_eq!(
            (report.attached.len(), report.dropped.len()),
            (0, 0),
            "{report:?}"
        );
        assert!(node.attachments.list().iter().all(|it| it.device == "w.0"));
        let pins = attachment_pins(world);
        let renamed = pins.iter().filter(|pin| pin.contains("w%2e0"));
        assert_eq!((pins.len(), renamed.count()), (before, 2), "{pins:?}");
        assert_eq!(node.mended(), []);
    });
}

/// Our program does not follow a device to where another firewall rules, and a
/// device with its old number is not taken for it.
#[test]
fn a_device_that_was_moved_to_another_namespace_is_let_go() {
    in_both(|world, mut node| {
        let device = world.veth("v0", "v1");
        node.sync(std::slice::from_ref(&device));
        let (tell, told) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                netns::enter_new().expect("a new network");
                let tid = rustix::thread::gettid().as_raw_nonzero();
                tell.send((tid, String::new())).expect("the test listens");
                wait.recv().expect("the device was moved and let go");
                let mut left = run("tc filter show dev v0 ingress");
                if has_tcx() {
                    left.push_str(&running("v0").join(" "));
                }
                tell.send((tid, left)).expect("the test listens");
            });
            let (tid, _) = told.recv().expect("a number");
            run(&format!("ip link set v0 netns {tid}"));
            assert_eq!(node.sync(&[]).dropped, ["v0"]);
            assert_eq!(attachment_pins(world), [""; 0]);
            // The same name and the same number again, another device.
            run(&format!(
                "ip link add v0 index {} type veth peer name v9",
                device.ifindex
            ));
            run("ip link set v0 up");
            assert_eq!(node.sync(&[wanted("v0")]).attached, ["v0"]);
            go_on.send(()).expect("the other namespace listens");
            let (_, left) = told.recv().expect("what is left there");
            assert!(!left.contains("pal_"), "{left}");
        });
        assert_eq!(node.mended(), []);
    });
}

/// The link's device went and another one has its number, all between two looks.
#[test]
fn a_device_with_the_number_of_a_vanished_one_is_protected() {
    in_both(|world, node| {
        let device = world.veth("v0", "v1");
        node.sync(std::slice::from_ref(&device));
        run("ip link del v0");
        run(&format!(
            "ip link add v0 index {} type veth peer name v1",
            device.ifindex
        ));
        run("ip link set v0 up");
        let report = node.sync(&[wanted("v0")]);
        assert_eq!(
            (&report.attached[..], report.failed.len()),
            (&["v0".to_owned()][..], 0)
        );
        assert!(node.attachments.drift().is_empty());
    });
}

/// Without the right to attach, a device stays unprotected: that is told, and
/// counts after its moment; what was attached is left alone.
#[test]
fn a_device_that_cannot_be_protected_is_overdue_after_its_moment() {
    // A filter needs the right to change the network; a TCX link does not.
    in_world(|world| {
        let node = Node::of(&clsact(world));
        let first = world.veth("v0", "v1");
        node.sync(&[first]);
        world.veth("w0", "w1");
        let clock = Arc::new(ManualClock::default());
        let board = Arc::new(DeviceBoard::default());
        let open = || {
            let names = ["v0", "w0"].map(str::to_owned);
            let (clock, board) = (Arc::clone(&clock), Arc::clone(&board));
            LocalSource::open(&names, node.attachments.clone(), board, clock).expect("devices")
        };
        let held = capabilities(None).expect("capabilities");
        let without = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        let less = CapabilitySets {
            effective: held.effective - without,
            ..held
        };
        set_capabilities(None, less).expect("fewer capabilities");
        drop(open());
        set_capabilities(None, held).expect("the capabilities back");
        let report = board.report();
        assert_eq!(report.unprotected.len(), 1, "{report:?}");
        assert!(
            report.problems.iter().any(|it| it.subject == "w0"),
            "{report:?}"
        );
        assert!(!board.is_overdue(clock.now()));
        clock.advance(Duration::from_secs(60));
        assert!(board.is_overdue(clock.now()));
        assert_eq!(board.report().overdue(clock.now())[0].0, "w0");
        drop(open());
        assert!(!board.is_overdue(clock.now()));
        assert_eq!(node.attachments.list().len(), 4);
    });
}
