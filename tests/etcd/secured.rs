//! TLS with certificates of both sides, and a user with a password.

use std::fs;

use crate::fleet::{Fleet, until};
use crate::harness::SSH;
use crate::store::program;

#[test]
fn certificates_and_user_are_taken_from_the_file() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::bare(program, &["web"], true);
    fleet.store.enable_users("agent", "first");
    let config = fleet.store.path("agent.yaml");
    let text = format!(
        "endpoints: ['{}']\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n\
         username: agent\npassword-file: {}\n",
        fleet.store.url(),
        fleet.store.path("ca.crt"),
        fleet.store.path("agent.crt"),
        fleet.store.path("agent.key"),
        fleet.store.path("password"),
    );
    fs::write(&config, text).expect("a file");
    fs::write(fleet.store.path("password"), "wrong\n").expect("a file");
    fleet.nodes[0].add_arguments(&["--etcd-config", &config]);
    fleet.nodes[0].launch();
    until("the reason is told", || {
        let status = fleet.nodes[0].agent().json(&["status"]).ok()?;
        status["problems"]
            .to_string()
            .contains("authentication failed")
            .then_some(())
    });
    // The file is read again.
    fs::write(fleet.store.path("password"), "first\n").expect("a file");
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    let key = format!("cilium/state/nodes/v1/default/{}", fleet.nodes[0].name);
    until("the node may write", || {
        fleet.store.get(&key).expect("etcd answers")
    });
}
