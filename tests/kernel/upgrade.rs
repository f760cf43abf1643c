//! Upgrade and downgrade: another version's links, conntrack and tables are
//! taken over without a packet lost or passed, at whatever step it is ended.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade::datapath::Datapath;
use palisade::datapath::kernel::{KernelDatapath, Layout, StartReport, Unwanted, detach};
use palisade_abi::ABI_VERSION;
use palisade_abi::conntrack::flags;

use super::ends::{Ends, enforce, policy};
use super::guard::{Objects, World, has_tcx, in_world, pins, run, running};
use super::versions::{newer, older};

/// Opens the datapath as a version would, with a takeover of so many steps.
fn open_as(
    world: &World,
    layout: Layout,
    steps: usize,
) -> Result<(KernelDatapath, StartReport), String> {
    let mut options = world.options.clone();
    (options.layout, options.takeover_steps_max) = (layout, steps);
    KernelDatapath::open(&options).map_err(|error| error.to_string())
}

/// One life of an agent of a version, as far as so many steps of a takeover.
/// Whether it was taken over to the end.
fn live(world: &World, ends: &Ends, layout: Layout, steps: usize) -> bool {
    let Ok((mut datapath, _)) = open_as(world, layout, steps) else {
        return false;
    };
    ends.hold("opened");
    let synced = datapath
        .attachments()
        .sync_devices(std::slice::from_ref(&ends.device), Unwanted::Keep);
    synced.expect("sync");
    ends.hold("synced");
    datapath.stage(&policy(1)).expect("stage");
    if let Err(error) = datapath.commit() {
        assert!(error.to_string().contains("ended by its test"), "{error}");
        return false;
    }
    ends.hold("committed");
    let finished = versions(world.dir()) == [layout.version];
    if finished {
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
    }
    finished
}

/// The versions that have pins.
fn versions(dir: &Path) -> Vec<u32> {
    let of = |pin: &String| {
        let (_, version) = pin.rsplit_once("_v").expect("a version");
        version.parse().expect("a number")
    };
    let mut versions: Vec<u32> = pins(dir).iter().map(of).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// A world in which `first` enforces under open flows.
fn in_world_of(first: Layout, test: impl FnOnce(&World, &Ends) + Send) {
    in_world(|world| {
        std::thread::scope(|scope| {
            let built = Ends::build(world, scope);
            let (mut datapath, _) = open_as(world, first, usize::MAX).expect("open");
            let device = std::slice::from_ref(&built.device);
            let synced = datapath.attachments().sync_devices(device, Unwanted::Keep);
            assert_eq!(synced.expect("sync").failed, []);
            enforce(&mut datapath, 1);
            let ends = built.open_flows();
            drop(datapath);
            test(world, &ends);
        });
    });
}

/// Numbers of the pinned links.
fn links(dir: &Path) -> Vec<String> {
    let links = pins(dir).into_iter().filter(|pin| pin.starts_with("link_"));
    let number = |pin: String| {
        let shown = run(&format!(
            "bpftool link show pinned {}",
            dir.join(pin).display()
        ));
        shown.split(':').next().expect("a number").to_owned()
    };
    links.map(number).collect()
}

fn takes_over(from: Layout, to: Layout) {
    in_world_of(from, |world, ends| {
        let (before, _) = open_as(world, from, usize::MAX).expect("open");
        let old = Objects::of(&before);
        let flows_before = flows(&before);
        drop(before);
        let (mut datapath, report) = open_as(world, to, usize::MAX).expect("open");
        assert_eq!(report.taking_over, [from.version]);
        assert_eq!(report.adopted.expect("enforced").enforced, [true, false]);
        let synced = datapath
            .attachments()
            .sync_devices(std::slice::from_ref(&ends.device), Unwanted::Keep)
            .expect("sync");
        assert!(synced.is_empty(), "what runs is left alone: {synced:?}");
        assert_eq!(datapath.attachments().list().len(), 2);
        ends.hold("before the commit");
        enforce(&mut datapath, 1);
        ends.hold("after the commit");
        assert_eq!(versions(world.dir()), [to.version]);
        assert_eq!(running("v0"), ["pal_from_netdev", "pal_to_netdev"]);
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
        assert!(datapath.matches_current(&policy(1)).expect("compare"));
        let kept = flows(&datapath);
        for (flow, half) in flows_before {
            // One that was seen from one side may have been answered meanwhile.
            let is_kept = kept.contains(&(flow, false)) || (half && kept.contains(&(flow, true)));
            assert!(is_kept, "{flow:?} is lost: {kept:?}");
        }
        let new = Objects::of(&datapath);
        let shared = if from.set_flows == to.set_flows { 9 } else { 6 };
        assert_eq!(old.left_besides(&new), [""; 0]);
        assert_eq!(old.maps_in_common(&new), shared);
        drop(datapath);
        // The next start has nothing more to do.
        let (_, report) = open_as(world, to, usize::MAX).expect("open");
        assert!(report.taking_over.is_empty() && !report.programs_loaded);
    });
}

/// Protocol, local port, remote port, whether the host opened it.
type Flow = (u8, u16, u16, bool);

/// Flows, and whether they were seen from one side only.
fn flows(datapath: &KernelDatapath) -> Vec<(Flow, bool)> {
    let mut found = Vec::new();
    let all = datapath.inspector().for_each_flow(|flow| {
        let egress = flow.flags & flags::OPENED_EGRESS != 0;
        let (local, remote) = (flow.local_port, flow.remote_port);
        found.push(((flow.proto, local, remote, egress), flow.half));
        true
    });
    all.expect("flows");
    found
}

#[test]
fn an_older_version_is_taken_over() {
    takes_over(older(), Layout::current());
}

#[test]
fn the_older_version_takes_over_again() {
    takes_over(Layout::current(), older());
}

#[test]
fn a_version_that_is_not_known_by_its_number_is_taken_over() {
    takes_over(newer(), Layout::current());
    takes_over(Layout::current(), newer());
}

#[test]
fn the_links_of_another_version_are_updated_in_place() {
    in_world_of(newer(), |world, ends| {
        if !has_tcx() {
            return;
        }
        let before = links(world.dir());
        assert!(live(world, ends, Layout::current(), usize::MAX));
        assert_eq!(before.len(), 2);
        assert_eq!(
            links(world.dir()),
            before,
            "the same links, with other programs"
        );
    });
}

/// The version that the committed object plays was built from these sources.
#[test]
fn the_object_of_the_older_version_is_not_stale() {
    let sources = |stamp: &'static str| stamp.lines().find(|line| line.starts_with("sources"));
    let shipped = sources(include_str!("../../bpf-prog/palisade.bpf.stamp"));
    let older = sources(include_str!("../../bpf-prog/older.bpf.stamp"));
    assert!(shipped.is_some());
    assert_eq!(shipped, older, "run `cargo xtask bpf`");
}

/// Ends takeovers after each of `steps` and goes on with one version or the
/// other, in turns; `cargo xtask upgrades` does every step with both.
fn interrupted(one: Layout, other: Layout, steps: &[usize]) {
    let all = std::env::var_os("PALISADE_UPGRADES").is_some();
    let every: Vec<usize> = (0..=STEPS_MAX).collect();
    let steps = if all { &every } else { steps };
    in_world_of(one, |world, ends| {
        for (place, &steps) in steps.iter().enumerate() {
            let goes_on = [other, one].into_iter().enumerate();
            for (_, next) in goes_on.filter(|(it, _)| all || *it == place % 2) {
                // Who holds the host now is taken over by the other one.
                let holder = versions(world.dir());
                let [holder] = holder.as_slice() else {
                    panic!("two versions are left: {holder:?}");
                };
                let (from, to) = if *holder == one.version {
                    (one, other)
                } else {
                    (other, one)
                };
                let done = live(world, ends, to, steps);
                ends.hold(&format!("{from:?} to {to:?} ended after {steps} steps"));
                if done {
                    continue;
                }
                assert!(
                    live(world, ends, next, usize::MAX),
                    "{next:?} finishes after {steps} steps: {:?}",
                    pins(world.dir())
                );
                assert_eq!(versions(world.dir()), [next.version]);
            }
        }
        detach(world.dir()).expect("detach");
        assert_eq!(pins(world.dir()), [""; 0]);
    });
}

/// More than a takeover has.
const STEPS_MAX: usize = 52;

#[test]
fn a_takeover_of_shared_flows_that_is_ended_at_any_step_loses_nothing() {
    // Nine maps shared, a name and a program of each hook, then removals.
    let steps = [0, 4, 9, 9, 10, 10, 11, 11, 12, 12, 13, 20];
    interrupted(Layout::current(), newer(), &steps);
}

#[test]
fn a_takeover_of_other_flows_that_is_ended_at_any_step_loses_nothing() {
    // Five maps shared, two hooks, flows; hooks looked at, flows again, the word,
    // two hooks, then removals.
    let steps = [2, 5, 6, 6, 7, 8, 10, 11, 11, 12, 12, 13, 13, 20];
    interrupted(Layout::current(), older(), &steps);
}

/// Flows that a version sees before it enforces must not count as judged by one
/// that does and shares its conntrack.
#[test]
fn a_third_version_that_only_looks_on_opens_nothing() {
    in_world_of(older(), |world, ends| {
        // Ended before the older one is told to enforce nothing: both enforce.
        assert!(!live(world, ends, Layout::current(), 11));
        assert_eq!(versions(world.dir()), [ABI_VERSION - 1, ABI_VERSION]);
        let (datapath, report) = open_as(world, newer(), usize::MAX).expect("open");
        assert_eq!(report.taking_over.len(), 2);
        for look in 0..3 {
            ends.hold(&format!("look {look} of the third version"));
        }
        drop(datapath);
        assert!(live(world, ends, newer(), usize::MAX));
        assert_eq!(versions(world.dir()), [newer().version]);
    });
}

#[test]
fn filters_of_another_version_are_replaced() {
    for other in [older(), newer()] {
        in_world(|world| {
            std::thread::scope(|scope| {
                let built = Ends::build(world, scope);
                let mut options = world.options.clone();
                options.force_clsact = true;
                options.layout = other;
                let open = |options: &_| KernelDatapath::open(options).expect("open").0;
                let sync = |datapath: &KernelDatapath, device| {
                    let synced = datapath.attachments().sync_devices(device, Unwanted::Keep);
                    assert_eq!(synced.expect("sync").failed, []);
                };
                let mut datapath = open(&options);
                let device = built.device.clone();
                sync(&datapath, std::slice::from_ref(&device));
                enforce(&mut datapath, 1);
                let ends = built.open_flows();
                drop(datapath);
                options.layout = Layout::current();
                let mut datapath = open(&options);
                sync(&datapath, std::slice::from_ref(&device));
                ends.hold("before the commit");
                enforce(&mut datapath, 1);
                ends.hold("after the commit");
                assert_eq!(versions(world.dir()), [ABI_VERSION]);
                assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
                drop(datapath);
                detach(world.dir()).expect("detach");
                assert!(!run("tc qdisc show dev v0").contains("clsact"));
            });
        });
    }
}

/// An answer that comes in the moment in which programs are replaced, too. Over
/// clsact that is so where conntrack is shared: there is one filter on a hook, so
/// what goes out by one version's may come back to the other's.
#[test]
fn every_question_is_answered_while_versions_change() {
    let current = Layout::current();
    let of_tcx = [older(), newer(), older(), current];
    let of_clsact = [newer(), current, newer(), current];
    for (force_clsact, layouts) in [(false, of_tcx), (true, of_clsact)] {
        if !force_clsact && !has_tcx() {
            continue;
        }
        in_world(|world| {
            std::thread::scope(|scope| {
                let mut options = world.options.clone();
                options.force_clsact = force_clsact;
                // Every question in a new flow has its place.
                options.ct_entries_max = 65_536;
                let built = Ends::build(world, scope);
                let device = built.device.clone();
                let live = |options: &_| {
                    let (mut datapath, _) = KernelDatapath::open(options).expect("open");
                    let synced = datapath
                        .attachments()
                        .sync_devices(std::slice::from_ref(&device), Unwanted::Keep);
                    assert_eq!(synced.expect("sync").failed, []);
                    enforce(&mut datapath, 1);
                };
                live(&options);
                let (ends, stop) = (built.open_flows(), AtomicBool::new(false));
                let stop = &stop;
                let answered = std::thread::scope(|inner| {
                    let asking = inner.spawn(move || ends.hold_on(stop));
                    for layout in layouts {
                        options.layout = layout;
                        live(&options);
                        assert_eq!(versions(world.dir()), [layout.version]);
                    }
                    stop.store(true, Ordering::SeqCst);
                    asking.join().expect("every question is answered")
                });
                println!("clsact {force_clsact}: {answered} answers, none lost");
                assert!(answered > 100, "{answered} are too few to tell");
                detach(world.dir()).expect("detach");
            });
        });
    }
}

#[test]
fn detach_removes_what_another_version_attached() {
    for force_clsact in [false, true] {
        in_world(|world| {
            let mut options = world.options.clone();
            (options.force_clsact, options.layout) = (force_clsact, newer());
            let (datapath, _) = KernelDatapath::open(&options).expect("open");
            let device = world.veth("v0", "v1");
            let synced = datapath
                .attachments()
                .sync_devices(std::slice::from_ref(&device), Unwanted::Keep);
            assert_eq!(synced.expect("sync").failed, []);
            let qdiscs = run("tc qdisc show dev v0");
            assert_eq!(qdiscs.contains("clsact"), force_clsact || !has_tcx());
            let objects = Objects::of(&datapath);
            drop(datapath);
            assert_eq!(versions(world.dir()), [newer().version]);
            let done = detach(world.dir()).expect("detach");
            assert_eq!(objects.left(), [""; 0], "{done:?}");
            assert_eq!(running("v0"), [""; 0], "{done:?}");
            assert!(!run("tc qdisc show dev v0").contains("clsact"), "{done:?}");
            assert!(!world.dir().exists());
        });
    }
}
