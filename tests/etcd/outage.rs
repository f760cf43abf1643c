//! etcd goes away, or a node loses it: nothing opens, nothing drops, and in the
//! end all nodes are as etcd says.

use std::time::Duration;

use crate::fleet::{Fleet, policy_key, until};
use crate::harness::{HTTP, SSH};
use crate::store::program;

/// How long the partition lasts; `cargo xtask partition` makes it longer.
fn partition() -> Duration {
    let seconds = std::env::var("PALISADE_PARTITION_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(8);
    Duration::from_secs(seconds)
}

#[test]
fn a_partitioned_node_enforces_on_and_converges() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    fleet.wait_open(1, &[SSH]);
    let address = fleet.nodes[0].address;
    until("the nodes know each other", || {
        fleet.nodes[1].knows_node(address).then_some(())
    });

    fleet.cut(0);
    // What the node cannot hear: a policy comes, another goes, and of neither
    // anything is left in the history.
    fleet.policy("http", "web", &[HTTP]);
    fleet.store.delete(&policy_key("ssh"));
    fleet.wait_open(1, &[HTTP]);
    fleet.store.compact();
    std::thread::sleep(partition());
    assert!(fleet.is_open(0, &[SSH]), "it enforces what it knew");
    until("the loss is told", || {
        let source = fleet.nodes[0].source();
        (source["in_sync"] == false).then_some(())
    });
    assert!(fleet.nodes[0].problems().contains("stays in force"));
    until("its lease has run out", || {
        (!fleet.nodes[1].knows_node(address)).then_some(())
    });
    let other = fleet.nodes[1].address;
    assert!(
        fleet.nodes[0].knows_node(other),
        "nothing is deleted on a guess"
    );

    fleet.mend();
    fleet.wait_open(0, &[HTTP]);
    until("it is in sync again", || {
        let source = fleet.nodes[0].source();
        (source["in_sync"] == true).then_some(())
    });
    until("it is a node again", || {
        fleet.nodes[1].knows_node(address).then_some(())
    });
    let metrics = fleet.nodes[0].agent().client(&["metrics", "list"]).output();
    let metrics = String::from_utf8(metrics.expect("it runs").stdout).expect("text");
    assert!(metrics.contains("reason=\"expired\""), "{metrics}");
    assert!(metrics.contains("outcome=\"lost\""), "{metrics}");
}

#[test]
fn a_killed_etcd_changes_nothing_and_is_followed_again() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    fleet.wait_open(1, &[SSH]);

    fleet.store.kill();
    until("the loss is told", || {
        let source = fleet.nodes[0].source();
        (source["in_sync"] == false).then_some(())
    });
    assert!(fleet.is_open(0, &[SSH]), "what was told stays in force");
    // An agent that starts without etcd enforces what it knew.
    fleet.nodes[0].kill();
    fleet.nodes[0].launch();
    until("the agent answers", || {
        fleet.nodes[0].agent().host_endpoint().ok()
    });
    assert!(fleet.is_open(0, &[SSH]), "the journal is in force");

    fleet.restart_store();
    fleet.policy("ssh", "web", &[HTTP]);
    fleet.wait_open(0, &[HTTP]);
    fleet.wait_open(1, &[HTTP]);
}

/// What an operator does by hand while etcd was never heard of, over restarts, too.
#[test]
fn what_is_imported_without_etcd_is_enforced_now_and_joined_later() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::bare(program, &["web"], false);
    fleet.policy("http", "web", &[HTTP]);
    fleet.store.kill();
    let url = fleet.store.url();
    fleet.nodes[0].add_arguments(&["--etcd", &url]);
    fleet.nodes[0].launch();
    until("the agent answers", || {
        fleet.nodes[0].agent().host_endpoint().ok()
    });
    assert!(fleet.is_open(0, &[SSH, HTTP]), "nothing is known yet");

    let closed = import(&mut fleet, "ssh", &[]);
    fleet.nodes[0].json(&["policy", "wait", &closed]);
    assert!(fleet.is_open(0, &[]), "enforced, no source is waited for");
    let opened = import(&mut fleet, "ssh", &[SSH]);
    fleet.nodes[0].json(&["policy", "wait", &opened]);
    assert!(fleet.is_open(0, &[SSH]));
    let status = fleet.nodes[0].json(&["status"]);
    assert_eq!(status["ready"], false, "etcd is away: {status}");
    assert_eq!(status["enforcing"]["ingress"], "enabled", "{status}");
    let realized = &status["realized"];
    assert_eq!(
        realized["revision"], realized["newest_revision"],
        "{status}"
    );
    assert_eq!(fleet.nodes[0].source()["in_sync"], false);
    let dump = fleet.nodes[0].json(&["policy", "get", "ssh"]);
    assert_eq!(dump["policies"][0]["source"], "api", "{dump}");

    fleet.nodes[0].kill();
    fleet.nodes[0].launch();
    until("the agent answers", || {
        fleet.nodes[0].agent().host_endpoint().ok()
    });
    let deleted = fleet.nodes[0].json(&["policy", "delete", "ssh"]);
    fleet.nodes[0].json(&["policy", "wait", &deleted["revision"].to_string()]);
    assert!(fleet.is_open(0, &[SSH, HTTP]), "deleted by name: {deleted}");
    let again = import(&mut fleet, "ssh", &[SSH]);
    fleet.nodes[0].json(&["policy", "wait", &again]);
    assert!(fleet.is_open(0, &[SSH]));

    fleet.restart_store();
    fleet.wait_open(0, &[SSH, HTTP]);
    until("it is ready", || {
        let status = fleet.nodes[0].json(&["status"]);
        (status["ready"] == true).then_some(())
    });
}

/// Imports a policy by hand; its revision.
fn import(fleet: &mut Fleet, name: &str, ports: &[u16]) -> String {
    let policy = crate::fleet::policy(name, "web", ports);
    let file = fleet.nodes[0].scratch("import.json", &policy.to_string());
    let reply = fleet.nodes[0].json(&["policy", "import", &file]);
    reply["revision"].to_string()
}

#[test]
fn another_store_in_the_same_place_is_listed_anew() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    fleet.store.kill();
    fleet.cut(0);
    fleet.store.wipe();
    fleet.restart_store();
    // It has the name of the old one, and comes as far before it is heard.
    for port in 1..100 {
        fleet.policy("http", "web", &[port, HTTP]);
    }
    assert!(fleet.is_open(0, &[SSH]), "what was told stays in force");
    fleet.mend();
    fleet.wait_open(0, &[HTTP]);
    let address = fleet.nodes[1].address;
    until("the nodes know each other again", || {
        fleet.nodes[0].knows_node(address).then_some(())
    });
}

#[test]
fn the_first_owner_of_a_policy_keeps_it() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web"]);
    let manifest = crate::fleet::policy("ours", "web", &[SSH]).to_string();
    fleet.nodes[0].manifest("ours.json", &manifest);
    fleet.wait_open(0, &[SSH]);
    fleet.policy("ours", "web", &[HTTP]);
    until("the claim is told", || {
        let problems = fleet.nodes[0].problems();
        problems
            .contains("belongs to the source manifests")
            .then_some(())
    });
    assert!(fleet.is_open(0, &[SSH]), "the manifest is in force");
    fleet.nodes[0].remove_manifest("ours.json");
    fleet.wait_open(0, &[HTTP]);
    let dump = fleet.nodes[0].json(&["policy", "get", "ours"]);
    assert_eq!(dump["policies"][0]["source"], "etcd", "{dump}");
}
