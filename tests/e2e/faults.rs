//! The real agent on a disk that is full, slow, failing or corrupted, and on a
//! kernel that refuses: what was enforced stays, and all heals by itself.
//!
//! strace makes system calls of the running agent fail, from the moment when it
//! is attached until it is let go.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::detach::left_by_detach;
use super::harness::{DEMO_POLICY, World, demo_rows, exe, privileged, until};

/// A fault of the agent's system calls; gone when dropped.
pub(crate) struct Fault(Child);

impl Fault {
    /// `what`: for strace's `inject=`, as in `fdatasync:error=EIO`.
    pub(crate) fn begin(world: &mut World, what: &str) -> Self {
        let pid = world.agent().pid().expect("it runs").to_string();
        let call = what.split(':').next().expect("a call");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid]);
        command.args(["-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={what}")]);
        let child = command.stdin(Stdio::null()).spawn();
        let fault = Self(child.expect("strace is missing: apt-get install strace"));
        let traced = || {
            let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let is_traced = |task: &Path| {
                let status = fs::read_to_string(task.join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0")
            };
            tasks
                .all(|task| task.is_ok_and(|task| is_traced(&task.path())))
                .then_some(())
        };
        until("strace holds every thread", traced);
        fault
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It lets the agent go on this signal.
        let _ = kill_process(pid.expect("a process"), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Messages of the status about one part of the agent.
fn problems(world: &mut World, from: &str) -> Vec<String> {
    let status = world.agent().json(&["status"]).expect("status");
    let problems = status["problems"].as_array().expect("a list").clone();
    let of = problems.iter().filter(|problem| problem["from"] == from);
    of.map(|problem| problem["message"].to_string()).collect()
}

fn wait_problem(world: &mut World, words: &str) -> String {
    until(&format!("status says `{words}`"), || {
        let mut found = problems(world, "store").into_iter();
        found.find(|problem| problem.contains(words))
    })
}

fn wait_no_problem(world: &mut World) {
    until("status has no problem of the store", || {
        problems(world, "store").is_empty().then_some(())
    });
}

fn events(world: &mut World) -> Vec<String> {
    let lines = world.agent().json(&["history"]).expect("the history");
    let lines = lines.as_array().expect("a list").clone();
    let event = |line: &Value| line["event"].as_str().unwrap_or_default().to_owned();
    lines.iter().map(event).collect()
}

pub(crate) fn metric(world: &mut World, start: &str) -> Vec<String> {
    let output = world.client(&["metrics", "list"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.contains(start));
    lines.map(str::to_owned).collect()
}

/// The demo policy with another port, which is a change of it.
fn other_policy(port: u16) -> String {
    let first = "      - port: \"22\"";
    assert!(DEMO_POLICY.contains(first));
    let both = format!("      - port: \"{port}\"\n        protocol: TCP\n{first}");
    DEMO_POLICY.replace(first, &both)
}

/// An import is not taken while it would be lost.
fn refuses_import(world: &mut World) {
    let file = world.sandbox.path("import.yaml");
    let policy = DEMO_POLICY.replace("demo-host-policy", "imported");
    fs::write(&file, policy).expect("writes");
    let output = world.client(&["policy", "import", file.to_str().expect("plain")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("would be lost with the agent"), "{said}");
    assert!(said.contains("manifests"), "{said}");
}

/// A script that starts the agent with a small disk as its state directory, in
/// a mount namespace of its own.
fn on_a_small_disk(world: &World) -> PathBuf {
    let path = world.sandbox.path("agent.sh");
    let (exe, state) = (exe().display(), world.sandbox.path("state"));
    let text = format!(
        "#!/bin/sh\n\
         [ \"$1\" = agent ] || exec {exe} \"$@\"\n\
         exec unshare --mount --propagation private sh -c '\n\
         mount -t tmpfs -o size=32m none {} && exec {exe} \"$@\"' sh \"$@\"\n",
        state.display()
    );
    fs::write(&path, text).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
    path
}

#[test]
fn a_full_disk_stops_no_policy_and_history_resumes() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    let script = on_a_small_disk(&world);
    world.run_as_agent(&script);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.start_agent();
    world.wait("ingress", "enabled");
    let pid = world.agent().pid().expect("it runs");
    let state = world.sandbox.path("state");
    let inside = PathBuf::from(format!("/proc/{pid}/root{}", state.display()));
    let ballast = inside.join("ballast");
    let mut file = File::create(&ballast).expect("creates");
    for bytes in [1 << 20, 4 << 10] {
        let zeros = vec![0; bytes];
        while file.write_all(&zeros).is_ok() {}
    }
    drop(file);
    // The reserve holds for a while; then it is told, and nothing else happens.
    let mut before = world.revision();
    for number in 0..400 {
        world.manifest("policy.yaml", &large_policy(2_000 + number));
        before = world.wait_revision_after(before);
        if !problems(&mut world, "store").is_empty() {
            break;
        }
    }
    wait_problem(&mut world, "running without history");
    world.manifest("policy.yaml", &other_policy(3_000));
    let newest = world.wait_revision_after(before);
    world.expect(&demo_rows());
    refuses_import(&mut world);
    let available = metric(&mut world, "journal_available");
    assert!(available.concat().contains(" 0"), "{available:?}");

    fs::remove_file(ballast).expect("removes");
    wait_no_problem(&mut world);
    let told = events(&mut world);
    for event in ["store-problem", "store-resumed"] {
        assert!(told.iter().any(|told| told == event), "{told:?}");
    }
    // Nothing is missing: each revision can be had.
    for revision in [before, newest] {
        let text = revision.to_string();
        let old = world
            .agent()
            .json(&["policy", "get", "--revision", &text])
            .expect("it is kept");
        assert_eq!(old["revision"], revision);
    }
}

/// The demo policy with a comment of some size, other for each number.
fn large_policy(number: u16) -> String {
    let text = format!("{number} ").repeat(8_000);
    let empty = "description: \"\"";
    assert!(DEMO_POLICY.contains(empty));
    other_policy(number).replace(empty, &format!("description: \"{text}\""))
}

#[test]
fn a_disk_that_fails_is_told_and_nothing_acknowledged_is_lost() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let mut revision = world.revision();
    for (what, words, port) in [
        ("fdatasync:error=EIO", "Input/output error", 2_222),
        ("pwrite64:error=ENOSPC", "No space left", 2_223),
    ] {
        let fault = Fault::begin(&mut world, what);
        world.manifest("policy.yaml", &other_policy(port));
        revision = world.wait_revision_after(revision);
        let problem = wait_problem(&mut world, "running without history");
        assert!(problem.contains(words), "{what}: {problem}");
        world.expect(&demo_rows());
        refuses_import(&mut world);
        drop(fault);
        wait_no_problem(&mut world);
    }
    let failures = metric(&mut world, "journal_failures_total");
    assert!(!failures.concat().ends_with(" 0"), "{failures:?}");
    let live = world.agent().json(&["policy", "get"]).expect("policies");
    // No source says anything new: what is there is from the store.
    world.agent().end(Signal::KILL).expect("the agent ends");
    world.start_agent();
    assert!(problems(&mut world, "store").is_empty());
    assert_eq!(world.revision(), revision);
    let again = world.agent().json(&["policy", "get"]).expect("policies");
    assert_eq!(again["policies"], live["policies"]);
}

#[test]
fn a_kernel_that_refuses_leaves_the_old_generation_and_is_asked_again() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let mut before = world.revision();
    for (error, words, port) in [
        ("EPERM", "Operation not permitted", 2_222),
        ("ENOSPC", "No space left", 2_223),
    ] {
        let generation = world.generation();
        let fault = Fault::begin(&mut world, &format!("bpf:error={error}"));
        world.manifest("policy.yaml", &other_policy(port));
        let endpoint = world.wait_for("a regeneration that failed", |endpoint| {
            endpoint["state"] == "waiting-to-regenerate"
        });
        assert!(endpoint["revision"]["realized"].as_u64() <= Some(before));
        let id = endpoint["id"].to_string();
        let log = world.agent().json(&["endpoint", "log", &id]);
        let log = log.expect("its log").to_string();
        assert!(log.contains("Failure") && log.contains(words), "{log}");
        world.expect(&demo_rows());
        drop(fault);
        before = world.wait_revision_after(before);
        assert_eq!(world.generation(), generation + 1);
        world.expect(&demo_rows());
    }
    assert!(events(&mut world).contains(&"commit-failed".to_owned()));
    let failed = metric(&mut world, "endpoint_regenerations_total");
    let failed = failed.iter().find(|line| line.contains("fail"));
    assert!(
        failed.is_some_and(|line| !line.ends_with(" 0")),
        "{failed:?}"
    );
}

#[test]
fn a_kernel_that_refuses_a_start_goes_on_as_before() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let generation = world.generation();
    world.agent().end(Signal::KILL).expect("the agent ends");
    let script = world.sandbox.path("agent.sh");
    let text = format!(
        "#!/bin/sh\nexec strace -f -qq -o /dev/null -e trace=bpf -e inject=bpf:error=EPERM {} \"$@\"\n",
        exe().display()
    );
    fs::write(&script, text).expect("writes");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
    world.run_as_agent(&script);
    world.launch_agent();
    until("the agent gives up", || {
        world.agent().exited().expect("its state").map(|status| {
            assert!(!status.success(), "{status}");
        })
    });
    let log = fs::read_to_string(world.sandbox.path("agent.log")).expect("a log");
    assert!(log.contains("refuses bpf(2) to this process"), "{log}");
    world.expect(&demo_rows());
    world.run_as_agent(exe());
    world.start_agent();
    assert_eq!(world.generation(), generation, "nothing had to be written");
    world.expect(&demo_rows());
}

#[test]
fn a_slow_disk_holds_up_the_acknowledgement_and_nothing_else() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    // Ten minutes: longer than the test, ended by letting go.
    let fault = Fault::begin(&mut world, "fdatasync:delay_enter=600000000");
    let file = world.sandbox.path("import.yaml");
    let policy = DEMO_POLICY.replace("demo-host-policy", "imported");
    fs::write(&file, policy).expect("writes");
    let mut import = world.agent().client(&["policy", "import"]);
    import
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut import = import.spawn().expect("the client starts");
    wait_problem(&mut world, "has not answered");
    world.expect(&demo_rows());
    assert!(world.agent().host_endpoint().is_ok());
    let waits = import.try_wait().expect("it runs");
    assert_eq!(waits, None, "acknowledged before it was on the disk");
    drop(fault);
    let output = import.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    wait_no_problem(&mut world);
}

#[test]
fn a_corrupted_store_is_set_aside_while_the_kernel_enforces() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let journal = world.sandbox.path("state").join("journal");
    let database = journal.join("db");
    let damages: [(&str, &dyn Fn()); 4] = [
        ("its log is garbage", &|| {
            let length = fs::metadata(&database).expect("it is there").len();
            let bytes = vec![0xa5; usize::try_from(length).expect("small")];
            fs::write(&database, bytes).expect("writes");
        }),
        ("its configuration is garbage", &|| {
            fs::write(journal.join("conf"), b"garbage\xff\xfe").expect("writes");
        }),
        ("a directory instead of a file", &|| {
            fs::remove_file(&database).expect("removes");
            fs::create_dir(&database).expect("creates");
        }),
        ("a file instead of a directory", &|| {
            fs::remove_dir_all(&journal).expect("removes");
            fs::write(&journal, "not a folder").expect("writes");
        }),
    ];
    let mut revision = world.revision();
    for (what, damage) in damages {
        world.agent().end(Signal::KILL).expect("the agent ends");
        damage();
        world.expect(&demo_rows());
        world.start_agent();
        let told = problems(&mut world, "store").concat();
        let is_told = told.contains("journal.broken-") || told.contains("lost or swapped");
        assert!(is_told, "{what}: {told}");
        world.expect(&demo_rows());
        let found = world.revision();
        assert!(found >= revision, "{what}: {found} after {revision}");
        // And the new one works.
        world.manifest(
            "policy.yaml",
            &other_policy(u16::try_from(found).expect("small")),
        );
        revision = world.wait_revision_after(found);
        world.agent().end(Signal::KILL).expect("the agent ends");
        world.start_agent();
        assert_eq!(world.revision(), revision, "{what}");
        assert!(problems(&mut world, "store").is_empty(), "{what}");
    }
}

#[test]
fn what_only_an_operator_brought_outlives_a_lost_journal() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let file = world.sandbox.path("import.yaml");
    let import = |world: &mut World, name: &str| {
        fs::write(&file, DEMO_POLICY.replace("demo-host-policy", name)).expect("writes");
        let path = file.to_str().expect("plain");
        let output = world.client(&["policy", "import", path]);
        assert!(output.status.success(), "{output:?}");
    };
    import(&mut world, "taken-back");
    import(&mut world, "imported");
    let output = world.client(&["policy", "delete", "taken-back"]);
    assert!(output.status.success(), "{output:?}");
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
    let names = |world: &mut World| {
        let policies = world.agent().json(&["policy", "get"]).expect("policies");
        policies.to_string()
    };
    // While the kernel enforces, and where it holds nothing.
    for is_cold in [false, true] {
        world.agent().end(Signal::KILL).expect("the agent ends");
        fs::remove_dir_all(world.sandbox.path("state").join("journal")).expect("lost");
        if is_cold {
            assert_eq!(left_by_detach(&world), [""; 0]);
        }
        world.start_agent();
        let told = problems(&mut world, "store").concat();
        assert!(told.contains("lost or swapped"), "{told}");
        world.wait("ingress", "enabled");
        world.expect(&demo_rows());
        let names = names(&mut world);
        assert!(names.contains("imported"), "{names}");
        assert!(!names.contains("taken-back"), "{names}");
    }
    // An operator's word counts again, and lasts.
    let output = world.client(&["policy", "delete", "imported"]);
    assert!(output.status.success(), "{output:?}");
    world.wait("ingress", "disabled");
    let kept = fs::read_dir(world.sandbox.path("state").join("imports"));
    assert_eq!(kept.expect("a folder").count(), 0);
}

#[test]
fn events_without_a_reader_cost_nothing_but_themselves() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let pid = world.agent().pid().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).expect("it runs");
    // Nobody reads the ring buffer, as while an agent hangs or is away.
    kill_process(pid, Signal::STOP).expect("it stops");
    let target = std::net::SocketAddr::new(
        palisade::lab::network::Place::Host.address(palisade::lab::network::Family::V4),
        4_444,
    );
    const DENIED: usize = 200_000;
    let outsider = world.sandbox.namespace("outsider");
    palisade::datapath::netns::run_in(&outsider, || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
        for _ in 0..DENIED {
            let _ = socket.send_to(&[0; 8], target);
        }
    })
    .expect("a namespace");
    world.expect(&demo_rows());
    kill_process(pid, Signal::CONT).expect("it goes on");
    let lost = until("what was lost is told", || {
        let lines = metric(&mut world, "lost_events_total");
        let counted = |line: &String| {
            let count = line.split_whitespace().last()?.parse::<f64>().ok()?;
            (count > 0.0).then_some(count)
        };
        lines.iter().find_map(counted)
    });
    assert!(lost > 0.0);
    world.expect(&demo_rows());
}
