//! A world for one test: namespaces and a bpffs on a thread of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use palisade::datapath::kernel::{
    Inspector, KernelDatapath, KernelOptions, StartReport, WantedDevice,
};
use palisade::datapath::netns;
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Small maps: a test needs few flows, and many tests run at once.
const CT_ENTRIES: u32 = 1_024;

/// Says that a test cannot run here. True: return from the test.
pub(crate) fn skipped() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "`ip` of iproute2 is missing"
    } else {
        return false;
    };
    skip(reason);
    true
}

/// Says why a test does not run; fails where it must.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var_os("PALISADE_REQUIRE_PRIVILEGED").is_some();
    assert!(!required, "a kernel test cannot run: {reason}");
    println!("SKIPPED: {reason}");
}

/// What a test stands in.
pub(crate) struct World {
    pub(crate) options: KernelOptions,
}

/// Runs `test` in a world of its own. Everything in it ends with its thread.
pub(crate) fn in_world(test: impl FnOnce(&World) + Send) {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    run_on_thread(|| {
        enter_private_namespaces();
        let bpffs = dir.path().join("bpf");
        std::fs::create_dir(&bpffs).expect("a mount point");
        rustix::mount::mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("a bpffs");
        let options = KernelOptions {
            bpffs: bpffs.join("palisade"),
            ct_entries_max: CT_ENTRIES,
            ..KernelOptions::default()
        };
        test(&World { options });
    });
}

/// Runs `work` on a thread and passes its panic on.
pub(crate) fn run_on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| scope.spawn(work).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn enter_private_namespaces() {
    netns::enter_new().expect("a new network");
    netns::enter_new_mounts().expect("new mounts");
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .expect("private mounts");
    run("ip link set lo up");
}

/// Runs a command line in this thread's namespaces.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect(line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    text
}

impl World {
    pub(crate) fn open(&self) -> (KernelDatapath, StartReport) {
        KernelDatapath::open(&self.options).expect("the datapath opens")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.options.bpffs
    }

    /// A pair of devices, both up.
    pub(crate) fn veth(&self, one: &str, other: &str) -> WantedDevice {
        run(&format!("ip link add {one} type veth peer name {other}"));
        run(&format!("ip link set {one} up"));
        run(&format!("ip link set {other} up"));
        wanted(one)
    }
}

/// A device by its name.
pub(crate) fn wanted(name: &str) -> WantedDevice {
    let devices = palisade::datapath::devices::list().expect("devices");
    let device = devices
        .iter()
        .find(|device| device.name == name)
        .expect(name);
    WantedDevice {
        ifindex: device.ifindex,
        name: name.to_owned(),
        ethernet: device.ethernet,
        vlans: Vec::new(),
    }
}

/// Whether this kernel has TCX; where it has not, filters are attached.
pub(crate) fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// How names of attachments' pins begin on this kernel.
pub(crate) fn attachment_pin() -> &'static str {
    if has_tcx() { "link_" } else { "filter_" }
}

/// Names of the programs on a device's hooks, ingress first.
pub(crate) fn running(device: &str) -> Vec<String> {
    let mut names = Vec::new();
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        if has_tcx() {
            let (_, programs) = SchedClassifier::query_tcx(device, hook).expect("a query");
            let name = |it: &aya::programs::ProgramInfo| it.name_as_str().unwrap_or("?").to_owned();
            names.extend(programs.iter().map(name));
        } else {
            names.extend(filters(device, hook));
        }
    }
    names
}

/// Names of the programs of a device's filters on one hook.
fn filters(device: &str, hook: TcAttachType) -> Vec<String> {
    let hook = match hook {
        TcAttachType::Ingress => "ingress",
        _ => "egress",
    };
    // A line for each filter: `... handle 0x1 NAME direct-action ...`.
    let shown = run(&format!("tc filter show dev {device} {hook}"));
    let lines = shown.lines().filter(|line| line.contains("direct-action"));
    let name = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "handle");
        words.nth(2).expect("a filter's name").to_owned()
    };
    lines.map(name).collect()
}

/// Names of the pins in a directory.
pub(crate) fn pins(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("a pin"))).collect();
    names.sort();
    names
}

/// Waits until `done` says so.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not happen within ten seconds");
}

/// The kernel's numbers of our maps and programs.
pub(crate) struct Objects {
    maps: Vec<u32>,
    programs: Vec<u32>,
}

impl Objects {
    pub(crate) fn of(datapath: &KernelDatapath) -> Self {
        Self::all(&datapath.inspector())
    }

    pub(crate) fn all(inspector: &Inspector) -> Self {
        Self {
            maps: inspector.maps().iter().map(|map| map.id).collect(),
            programs: inspector
                .programs()
                .iter()
                .map(|program| program.id)
                .collect(),
        }
    }

    /// Maps that are the other's too.
    pub(crate) fn maps_in_common(&self, other: &Self) -> usize {
        let common = self.maps.iter().filter(|id| other.maps.contains(id));
        common.count()
    }

    /// Those that the kernel still has and that are not the other's.
    pub(crate) fn left_besides(&self, other: &Self) -> Vec<String> {
        let mut own = Self {
            maps: self.maps.clone(),
            programs: self.programs.clone(),
        };
        own.maps.retain(|id| !other.maps.contains(id));
        own.programs.retain(|id| !other.programs.contains(id));
        let mut left = Vec::new();
        // The kernel frees after a grace period, later on a loaded machine.
        for _ in 0..500 {
            left = own.left();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        left
    }

    /// Those that the kernel still has. Asked for one by one: to open the maps of
    /// tests that run beside this one could keep the kernel from freeing them.
    pub(crate) fn left(&self) -> Vec<String> {
        let exists = |kind: &str, id: u32| {
            let output = Command::new("bpftool")
                .args([kind, "show", "id", &id.to_string()])
                .output();
            output.expect("bpftool is installed").status.success()
        };
        let maps = self.maps.iter().filter(|id| exists("map", **id));
        let programs = self.programs.iter().filter(|id| exists("prog", **id));
        maps.map(|id| format!("map {id}"))
            .chain(programs.map(|id| format!("program {id}")))
            .collect()
    }
}

/// A path that is not under our temporary directory is a mistake of a test.
pub(crate) fn under_temp(path: &Path) -> PathBuf {
    assert!(path.starts_with(std::env::temp_dir()), "{}", path.display());
    path.to_owned()
}
