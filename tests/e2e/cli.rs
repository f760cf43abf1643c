//! Exit codes and forms of the commands: what scripts rely on.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::harness::{DEMO_POLICY, World, exe, privileged};

fn palisade(arguments: &[&str]) -> Output {
    Command::new(exe())
        .args(arguments)
        .output()
        .expect("the binary starts")
}

#[track_caller]
fn code(arguments: &[&str], expected: i32) -> Output {
    let output = palisade(arguments);
    assert_eq!(
        output.status.code(),
        Some(expected),
        "{arguments:?}: {output:?}"
    );
    output
}

#[test]
fn usage_errors_are_two_and_help_is_zero() {
    code(&["--help"], 0);
    code(&["--version"], 0);
    code(&[], 2);
    code(&["fly"], 2);
    code(&["endpoint", "list", "--wings"], 2);
    code(&["endpoint", "list", "-o", "sculpture"], 2);
    code(&["agent", "--policy-enforcement", "sometimes"], 2);
    code(&["policy", "explain", "--direction", "ingress"], 2);
}

#[test]
fn without_an_agent_client_commands_fail_with_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("none.sock");
    let socket = socket.to_str().expect("UTF-8");
    for command in [
        &["status"][..],
        &["endpoint", "list"],
        &["monitor"],
        &["policy", "get"],
    ] {
        let output = code(&[command, &["--socket", socket]].concat(), 1);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(socket), "the socket is not named: {said}");
    }
}

#[test]
fn validate_tells_every_error_and_exits_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    let path = file.to_str().expect("UTF-8");
    fs::write(&file, DEMO_POLICY).expect("written");
    code(&["policy", "validate", path], 0);
    let two = DEMO_POLICY
        .replace("cluster", "clutter")
        .replace("\"22\"", "\"70000\"");
    fs::write(&file, two).expect("written");
    let output = code(&["policy", "validate", "-o", "json", path], 1);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!(report["valid"], false);
    let fields: Vec<&str> = report["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["field"].as_str())
        .collect();
    let wanted = [
        "spec.ingress[0].fromEntities[0]",
        "spec.ingress[1].toPorts[0].ports[0].port",
    ];
    assert_eq!(fields, wanted, "{report}");
    code(&["policy", "validate", "/nonexistent/policy.yaml"], 1);
}

#[test]
fn explain_works_offline() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().to_str().expect("UTF-8");
    fs::write(folder.path().join("policy.yaml"), DEMO_POLICY).expect("written");
    fs::write(
        folder.path().join("nodes.yaml"),
        palisade::lab::scenario::NODES,
    )
    .expect("written");
    let explain = |peer: &str, port: &str| {
        let output = palisade(&[
            "policy",
            "explain",
            "--manifests",
            manifests,
            "--node-name",
            "host",
            "--direction",
            "ingress",
            "--peer",
            peer,
            "--proto",
            "tcp",
            "--port",
            port,
            "-o",
            "json",
        ]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let ssh = explain("10.88.0.3", "22");
    assert_eq!(ssh["verdict"], "allowed", "{ssh}");
    assert_eq!(ssh["enforced"], true);
    assert_eq!(ssh["rule"]["section"], "ingress");
    assert_eq!(ssh["rule"]["index"], 1);
    let http = explain("10.88.0.3", "80");
    assert_eq!(http["verdict"], "denied", "{http}");
    assert!(http["rule"].is_null(), "{http}");
    assert_eq!(explain("fd88::2", "80")["verdict"], "allowed");
}

/// Every reading command answers in each form.
#[test]
fn reading_commands_print_tables_json_and_yaml() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let id = world.agent().host_endpoint().expect("the endpoint")["id"].to_string();
    world.expect(&super::harness::demo_rows());
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "--verify"],
        &["endpoint", "list"],
        &["endpoint", "get", &id],
        &["endpoint", "log", &id],
        &["endpoint", "config", &id],
        &["policy", "get"],
        &["policy", "get", "demo-host-policy"],
        &["policy", "selectors"],
        &["policy", "wait", "1"],
        &["identity", "list"],
        &["identity", "get", "1"],
        &["ip", "list"],
        &["ip", "get", "10.88.0.2"],
        &["bpf", "policy", "list"],
        &["bpf", "ct", "list"],
        &["bpf", "ipcache", "list"],
        &["bpf", "metrics", "list"],
        &["bpf", "rules", "list"],
        &["metrics", "list"],
        &["history"],
    ];
    for command in commands {
        for form in ["table", "json", "yaml"] {
            let output = world.client(&[*command, &["-o", form][..]].concat());
            assert!(output.status.success(), "{command:?} -o {form}: {output:?}");
            assert!(
                !output.stdout.is_empty(),
                "{command:?} -o {form} prints nothing"
            );
            if form == "json" {
                let parsed = serde_json::from_slice::<Value>(&output.stdout);
                parsed.unwrap_or_else(|error| panic!("{command:?}: {error}: {output:?}"));
            }
        }
    }
    for unknown in [
        &["endpoint", "get", "4242"][..],
        &["policy", "get", "nobody"],
    ] {
        assert_eq!(world.client(unknown).status.code(), Some(1), "{unknown:?}");
    }
    memory_is_told(&mut world);
    let checks = world.agent().json(&["status", "--verify"]).expect("status");
    let checks = checks["checks"].as_array().expect("checks").clone();
    assert!(!checks.is_empty());
    assert!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
}

/// The status names every map with the memory that it takes, and the sum.
fn memory_is_told(world: &mut World) {
    let status = world.agent().json(&["status"]).expect("status");
    let kernel = &status["kernel"];
    let maps = kernel["maps"].as_array().expect("a list of maps");
    let bytes = |map: &Value| map["bytes"].as_u64().expect("a number of bytes");
    for name in ["pal_ct4", "pal_ct6", "pal_blocks", "pal_events"] {
        let map = maps.iter().find(|map| map["name"] == name);
        let map = map.unwrap_or_else(|| panic!("{name} is not in {maps:?}"));
        // Each element of these is allocated from the start.
        assert!(
            bytes(map) >= map["capacity"].as_u64().expect("a number"),
            "{map}"
        );
    }
    let sum: u64 = maps.iter().map(bytes).sum();
    assert_eq!(kernel["maps_bytes"].as_u64(), Some(sum));
    let table = world.client(&["status"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let line = format!("Memory of maps: {} KiB", sum.div_ceil(1_024));
    assert!(table.contains(&line), "{table}");
}
