//! What the kernel or a limit refuses: a verifier, a policy that needs more than
//! the tables hold, an import that is too large, a device that cannot be
//! protected. What was enforced stays, it is told, and all heals by itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use palisade::limits::API_BODY_BYTES_MAX;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::faults::{Fault, metric};
use super::flips::Random;
use super::harness::{DEMO_POLICY, World, demo_rows, exe, privileged, until};

/// A script that starts the agent under strace.
fn under_strace(world: &mut World, words: &str) {
    let script = world.sandbox.path("agent.sh");
    let agent = exe().display();
    // Client commands are not looked at.
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = agent ] || exec {agent} \"$@\"\n\
         exec strace -D -f -qq -e trace=bpf {words} {agent} \"$@\"\n"
    );
    fs::write(&script, text).expect("writes");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
    world.run_as_agent(&script);
}

/// Ends the agent, and takes the pins of the programs away: the next agent must
/// load them, as one of another version does.
fn end_and_forget_programs(world: &mut World) {
    world.agent().end(Signal::KILL).expect("the agent ends");
    let pins = fs::read_dir(world.sandbox.path("bpf")).expect("the pins");
    let pins = pins.flatten().map(|pin| pin.path());
    let is_program = |pin: &PathBuf| pin.to_string_lossy().contains("/prog_");
    let removed = pins.filter(is_program).map(fs::remove_file);
    assert!(removed.map(|it| it.expect("removes")).count() >= 6);
}

/// The first call of bpf(2) by the thread that loads our programs which does.
fn first_load(trace: &str) -> usize {
    let load = trace
        .lines()
        .find(|line| line.contains("BPF_PROG_LOAD") && line.contains("prog_name=\"pal_"));
    let load = load.expect("a program is loaded");
    let thread = load.split_whitespace().next().expect("a thread");
    let mut calls = trace
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(thread) && line.contains(" bpf("));
    1 + calls.position(|line| line == load).expect("it is one")
}

#[test]
fn a_verifier_that_refuses_the_programs_leaves_what_enforces() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let trace = world.sandbox.path("trace");
    end_and_forget_programs(&mut world);
    under_strace(&mut world, &format!("-o {}", trace.display()));
    world.start_agent();
    let generation = world.generation();
    end_and_forget_programs(&mut world);
    let first = first_load(&fs::read_to_string(&trace).expect("a trace"));
    // What the verifier answers; earlier calls look at the kernel and open maps.
    let refuse = format!("-o /dev/null -e inject=bpf:error=EACCES:when={first}+");
    under_strace(&mut world, &refuse);
    world.launch_agent();
    until("the agent gives up", || {
        let ended = world.agent().exited().expect("its state");
        ended.map(|status| assert!(!status.success(), "{status}"))
    });
    let log = fs::read_to_string(world.sandbox.path("agent.log")).expect("a log");
    let said = log.lines().last().unwrap_or_default();
    assert!(
        said.contains("pal_") && said.contains("Permission denied"),
        "{said}"
    );
    world.expect(&demo_rows());
    // The service manager starts it again; the cause is gone.
    world.run_as_agent(exe());
    world.start_agent();
    assert!(world.generation() >= generation);
    world.expect(&demo_rows());
    let status = world.agent().json(&["status", "--verify"]).expect("status");
    assert_eq!(status["ready"], true, "{status}");
}

/// Columns of the table, each a port of its own, and rows, each a prefix.
const PORTS: usize = 4_096;
const PREFIXES: usize = 1_250;
/// As many items have an equal part of the ports, not one beside the other: so a
/// block of 16 columns is as good as never equal to another one.
const ITEMS: usize = PORTS / 40 + 1;

/// A policy that opens ports to prefixes by chance: it needs more blocks of
/// verdicts than the tables have.
fn too_much() -> Value {
    let mut random = Random::new(7);
    let mut item = |item: usize| {
        let ports = (item..PORTS).step_by(ITEMS).map(|port| {
            let port = (20_000 + port).to_string();
            json!({"port": port, "protocol": "TCP"})
        });
        let prefixes = (0..PREFIXES).filter(|_| random.below(4) == 0);
        let prefixes = prefixes.map(|place| format!("100.64.{}.{}", place / 256, place % 256));
        json!({
            "fromCIDR": prefixes.map(|it| format!("{it}/32")).collect::<Vec<_>>(),
            "toPorts": [{"ports": ports.collect::<Vec<_>>()}],
        })
    };
    let items: Vec<Value> = (0..ITEMS).map(&mut item).collect();
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "much"},
        "spec": {"nodeSelector": {}, "ingress": items},
    })
}

/// How long a refusal is waited for.
const POLL: Duration = Duration::from_millis(200);
const POLLS_MAX: u32 = 600;

fn import(world: &mut World, objects: &[Value]) -> std::process::Output {
    let file = world.sandbox.path("import.yaml");
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    fs::write(&file, texts.join("\n---\n")).expect("writes");
    world.client(&["policy", "import", file.to_str().expect("plain")])
}

#[test]
fn a_policy_that_does_not_fit_is_told_and_the_old_one_enforces() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let (before, generation) = (world.revision(), world.generation());
    let output = import(&mut world, &[too_much()]);
    assert!(output.status.success(), "{output:?}");
    // A table of millions of cells: longer than most things take.
    let log = |world: &mut World| {
        let log = world.agent().json(&["endpoint", "log", "1"]);
        log.expect("a log").to_string()
    };
    let is_refused = (0..POLLS_MAX).any(|_| {
        std::thread::sleep(POLL);
        log(&mut world).contains("trying again in")
    });
    let said = log(&mut world);
    assert!(is_refused, "{said}");
    assert!(said.contains("blocks of verdicts are needed"), "{said}");
    let endpoint = world.agent().host_endpoint().expect("the endpoint");
    assert_eq!(endpoint["revision"]["realized"].as_u64(), Some(before));
    world.expect(&demo_rows());
    let status = world.agent().json(&["status"]).expect("status");
    let problems = status["problems"].to_string();
    assert!(problems.contains("262144 fit"), "{problems}");
    assert_eq!(status["ready"], false);
    assert_eq!(world.generation(), generation);
    let regenerations = metric(&mut world, "endpoint_regenerations_total");
    let told = regenerations.iter().find(|line| line.contains("fail"));
    assert!(told.is_some_and(|line| !line.ends_with(" 0")), "{told:?}");
    world.expect(&demo_rows());
    // Without it all fits, and the agent goes on by itself.
    let name = "CiliumClusterwideNetworkPolicy/much";
    let output = world.client(&["policy", "delete", name]);
    assert!(output.status.success(), "{output:?}");
    world.wait_revision_after(before);
    until("the agent is ready", || {
        let status = world.agent().json(&["status"]).ok()?;
        (status["ready"] == true).then_some(())
    });
    world.expect(&demo_rows());
}

/// A policy of about so many bytes.
fn of_size(name: &str, bytes: usize) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "description": "x".repeat(bytes),
            "nodeSelector": {},
            "ingress": [{"fromEntities": ["cluster"]}],
        },
    })
}

#[test]
fn a_large_import_is_taken_whole_and_a_larger_one_refused_whole() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    // Five documents of a little under a megabyte, the limit of one.
    let large: Vec<Value> = (0..5)
        .map(|number| of_size(&format!("large-{number}"), 900 << 10))
        .collect();
    let output = import(&mut world, &large);
    assert!(output.status.success(), "{output:?}");
    let names = |world: &mut World| {
        let dump = world.agent().json(&["policy", "get"]).expect("policies");
        let policies = dump["policies"].as_array().expect("a list").clone();
        let names = policies.iter().map(|policy| policy["key"].to_string());
        names.filter(|name| name.contains("large")).count()
    };
    assert_eq!(names(&mut world), 5);
    world.expect(&demo_rows());
    let revision = world.revision();
    // Three files, each as large as one may be, are more than one request.
    let mut arguments = vec!["policy".to_owned(), "import".to_owned()];
    for file in 0..3 {
        let path = world.sandbox.path(&format!("more-{file}.yaml"));
        let objects = (0..14).map(|number| of_size(&format!("larger-{file}-{number}"), 900 << 10));
        let texts: Vec<String> = objects.map(|object| object.to_string()).collect();
        fs::write(&path, texts.join("\n---\n")).expect("writes");
        arguments.push(path.to_string_lossy().into_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = world.client(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&API_BODY_BYTES_MAX.to_string()), "{said}");
    assert!(said.contains("import fewer at once"), "{said}");
    // A client that does not count is told by the agent.
    let mut stream = UnixStream::connect(world.sandbox.path("agent.sock")).expect("connects");
    let head = format!(
        "PUT /v1/policy/resources HTTP/1.1\r\nHost: palisade\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        API_BODY_BYTES_MAX + 1
    );
    stream.write_all(head.as_bytes()).expect("writes");
    let part = vec![b' '; 1 << 20];
    // It may answer, and close, before it has read all.
    while stream.write_all(&part).is_ok() {}
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(names(&mut world), 5, "nothing of it was taken");
    assert_eq!(world.revision(), revision);
    world.expect(&demo_rows());
}

#[test]
fn a_device_that_cannot_be_protected_makes_the_agent_not_ready() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--device", "late0"]);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    let status = |world: &mut World| world.agent().json(&["status"]).expect("status");
    let wait_ready = |world: &mut World, ready: bool| {
        until("ready is as it should be", || {
            let status = status(world);
            (status["ready"] == ready).then_some(status)
        })
    };
    wait_ready(&mut world, true);
    let fault = Fault::begin(&mut world, "bpf:error=EPERM");
    let outsider = world.sandbox.namespace("outsider");
    world.tool(
        "host",
        &format!("ip link add late0 type veth peer name late0 netns {outsider}"),
    );
    world.tool("host", "ip link set late0 up");
    let overdue = wait_ready(&mut world, false);
    let problems = overdue["problems"].as_array().expect("a list").iter();
    let mut errors = problems.filter(|problem| problem["severity"] == "error");
    let is_told = |it: &Value| it["message"].to_string().contains("unprotected for");
    assert!(errors.any(is_told), "{overdue}");
    // The others stay protected.
    world.expect(&demo_rows());
    drop(fault);
    let after = wait_ready(&mut world, true);
    let devices = after["devices"].as_array().expect("a list").iter();
    let mut late = devices.filter(|device| device["name"] == "late0");
    assert!(late.any(|device| device["protected"] == true), "{after}");
    let problems = after["problems"].to_string();
    assert!(!problems.contains("unprotected"), "{problems}");
    world.expect(&demo_rows());
}
