//! Old revisions and the history, over `kill -9` and without an agent.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{DEMO_POLICY, World, exe, privileged, until};

/// What is asked of an old revision, without what only it can tell.
fn get(world: &mut World, arguments: &[&str]) -> Value {
    let words = [&["policy", "get"], arguments].concat();
    world.agent().json(&words).expect("policies")
}

fn history(world: &mut World) -> Vec<Value> {
    let lines = world.agent().json(&["history"]).expect("the history");
    lines.as_array().expect("a list").clone()
}

/// The lines about policies: sequence, revision, event, outcome, generation.
fn about_policies(lines: &[Value]) -> Vec<String> {
    let is_policy = |line: &&Value| line["event"].to_string().contains("policy-");
    let told = lines.iter().filter(is_policy).map(|line| {
        let of = |field: &str| line[field].to_string();
        let fields = ["sequence", "revision", "event", "outcome", "generation"];
        fields.map(of).join(" ")
    });
    told.collect()
}

fn refused(world: &mut World, arguments: &[&str], words: &str) {
    let output = world.client(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(words), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn old_revisions_and_the_history_outlive_kill_nine() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let first = world.revision();
    let then = get(&mut world, &[]);
    world.manifest("policy.yaml", &DEMO_POLICY.replace("\"22\"", "\"2222\""));
    let second = world.wait_revision_after(first);
    let later = get(&mut world, &[]);
    assert_ne!(then["policies"], later["policies"]);
    world.manifest("policy.yaml", &DEMO_POLICY.replace("\"22\"", "\"70000\""));
    until("the broken version is refused", || {
        let lines = history(&mut world);
        lines
            .iter()
            .any(|line| line["outcome"] == "refused")
            .then_some(())
    });
    let told = about_policies(&history(&mut world));
    let first_text = first.to_string();
    let of_first = get(&mut world, &["--revision", &first_text]);
    assert_eq!(of_first["policies"], then["policies"]);
    let checksum = of_first["verdicts_sha256"].as_str().expect("a checksum");
    assert_eq!(checksum.len(), 64);

    world.agent().end(Signal::KILL).expect("the agent ends");
    world.start_agent();
    assert_eq!(get(&mut world, &["--revision", &first_text]), of_first);
    let mut of_second = get(&mut world, &["--revision", &second.to_string()]);
    // The revision in force also says what was refused since.
    let policy = of_second["policies"][0].as_object_mut().expect("a policy");
    assert!(policy.remove("refused").is_some(), "{of_second}");
    assert_eq!(of_second["policies"], later["policies"]);
    assert_ne!(of_second["verdicts_sha256"], of_first["verdicts_sha256"]);
    let second_text = second.to_string();
    let diff = ["policy", "diff", &first_text, &second_text];
    let told_apart = world.agent().json(&diff).expect("a comparison");
    let changes = told_apart["changes"].to_string();
    assert!(changes.contains("tcp/2222"), "{told_apart}");
    let same = ["policy", "diff", &second_text, &second_text];
    let same = world.agent().json(&same).expect("a comparison");
    assert_eq!(same["changes"].as_array().map(Vec::len), Some(0), "{same}");
    let mixed = world.client(&["policy", "diff", &first_text, "/tmp"]);
    assert_eq!(mixed.status.code(), Some(2), "{mixed:?}");
    let gone = ["policy", "diff", "0", &second_text];
    refused(&mut world, &gone, "no longer kept");
    let named = get(&mut world, &["--revision", &first_text, "demo-host-policy"]);
    assert_eq!(named["policies"].as_array().map(Vec::len), Some(1));

    let lines = history(&mut world);
    let again = about_policies(&lines);
    assert_eq!(again[..told.len()], told, "what was told is told again");
    let changed = lines.iter().find(|line| line["revision"] == second);
    let changed = changed.expect("the second version is in the history");
    assert_eq!(changed["event"], "policy-add");
    assert_eq!(changed["outcome"], "applied");
    assert_eq!(changed["cause"], "manifests");
    assert!(changed["generation"].is_u64(), "{changed}");
    let times: Vec<u64> = lines
        .iter()
        .map(|line| line["time_ms"].as_u64().expect("a time"))
        .collect();
    assert!(times.last() >= times.first(), "newest last: {times:?}");
    let last = world.agent().json(&["history", "--last", "2"]);
    assert_eq!(
        last.expect("two lines").as_array(),
        Some(&lines[lines.len() - 2..].to_vec())
    );
}

#[test]
fn a_revision_that_is_not_there_is_told_and_replay_waits_for_no_agent() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let revision = world.revision();
    let text = revision.to_string();
    let of_agent = get(&mut world, &["--revision", &text]);
    let words = format!("revision 1000 is not there yet; the newest is {revision}");
    refused(&mut world, &["policy", "get", "--revision", "1000"], &words);
    let words = "revision 0 is no longer kept; the oldest one kept is 1";
    refused(&mut world, &["policy", "get", "--revision", "0"], words);
    let unknown = ["policy", "get", "--revision", &text, "nobody"];
    refused(&mut world, &unknown, "no policy `nobody` at revision");

    let host = world.agent().host_endpoint().expect("the endpoint");
    let id = host["id"].to_string();
    let set = world.client(&["endpoint", "config", &id, "PolicyAuditMode=Enabled"]);
    assert!(set.status.success(), "{set:?}");

    let state = world.sandbox.path("state");
    let replay = |to: &str| {
        let mut command = Command::new(exe());
        command.args(["replay", "--to", to, "-o", "json", "--state-dir"]);
        command.arg(&state).output().expect("the binary starts")
    };
    let held = replay(&text);
    assert_eq!(held.status.code(), Some(1));
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    assert!(said.contains("an agent holds"), "{said}");
    assert!(said.contains("policy get --revision"), "{said}");

    world.agent().end(Signal::KILL).expect("the agent ends");
    let replayed = replay(&text);
    assert!(replayed.status.success(), "{replayed:?}");
    let found: Value = serde_json::from_slice(&replayed.stdout).expect("JSON");
    assert_eq!(found["policies"], of_agent["policies"]);
    assert_eq!(found["verdicts_sha256"], of_agent["verdicts_sha256"]);
    let identities = found["identities"].as_array().expect("identities");
    let of_host = host;
    let host = identities.iter().find(|identity| identity["id"] == 1);
    assert!(host.is_some_and(|host| host["labels"].to_string().contains("reserved:host")));
    let endpoint = &found["endpoints"][0];
    assert_eq!(endpoint["id"].to_string(), id);
    assert_eq!(endpoint["labels"], of_host["labels"]);
    assert_eq!(endpoint["policy_audit_mode"], true);
    assert_eq!(found["policy_audit_mode"], false);
    let future = replay("1000");
    assert_eq!(future.status.code(), Some(1));
    let said = String::from_utf8_lossy(&future.stderr).into_owned();
    assert!(said.contains("is not there yet; the newest is"), "{said}");
    // And nothing was spoilt.
    world.start_agent();
    assert_eq!(world.revision(), revision);
}

#[test]
fn identity_numbers_outlive_kill_nine() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let with_prefixes = |prefixes: &[&str]| {
        let from = prefixes.join("\", \"");
        let rule = format!("  ingress:\n  - fromCIDR: [\"{from}\"]");
        DEMO_POLICY.replace("  ingress:", &rule)
    };
    let numbers = |world: &mut World| {
        let list = world.agent().json(&["identity", "list"]);
        let list = list
            .expect("identities")
            .as_array()
            .expect("a list")
            .clone();
        let with_prefix = list
            .into_iter()
            .filter(|identity| identity["labels"].to_string().contains("cidr:"));
        with_prefix
            .map(|identity| (identity["labels"].to_string(), identity["id"].to_string()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut revision = world.revision();
    for prefixes in [
        &["198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/25"][..],
        // The number in the middle is free again, and a later one is not.
        &["198.51.100.0/24", "192.0.2.0/25", "192.0.2.128/25"],
    ] {
        world.manifest("policy.yaml", &with_prefixes(prefixes));
        revision = world.wait_revision_after(revision);
        let before = numbers(&mut world);
        assert_eq!(before.len(), 3, "{before:?}");
        world.agent().end(Signal::KILL).expect("the agent ends");
        world.start_agent();
        assert_eq!(numbers(&mut world), before);
    }
}
