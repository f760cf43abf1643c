//! No policy cuts the agent from etcd: the host denies everything, both ways, and the
//! agent still hears the store, and comes back to it after it was away.

use serde_json::json;

use crate::fleet::{Fleet, policy_key, until};
use crate::harness::{HTTP, SSH};
use crate::names::NameServer;
use crate::server::NAME;
use crate::store::{ADDRESS, program};

#[test]
fn a_host_that_denies_everything_still_hears_etcd() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web"]);
    fleet.store.put(&policy_key("deny-all"), &deny_all());
    fleet.wait_open(0, &[]);
    until("the way out is denied, too", || {
        let host = fleet.nodes[0].agent().host_endpoint().ok()?;
        (host["policy"]["egress"] == "enabled").then_some(())
    });
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    let status = fleet.nodes[0].json(&["status"]);
    let listed = status["control"]["endpoints"].to_string();
    assert!(listed.contains(":2379"), "{status}");

    // Both come back: the store, then an agent where all is denied already.
    fleet.store.kill();
    fleet.restart_store();
    fleet.policy("http", "web", &[HTTP]);
    fleet.wait_open(0, &[SSH, HTTP]);
    fleet.nodes[0].kill();
    fleet.nodes[0].start();
    fleet.store.delete(&policy_key("ssh"));
    fleet.wait_open(0, &[HTTP]);
}

/// By a name, which is asked for again and again where all is denied already.
#[test]
fn a_host_that_denies_everything_finds_etcd_by_its_name() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::bare(program, &["web"], false);
    let names = NameServer::start(&fleet.wire);
    let url = fleet.store.url().replace(ADDRESS, NAME);
    fleet.store.put(&policy_key("deny-all"), &deny_all());
    let node = &mut fleet.nodes[0];
    node.program.clone_from(&names.program);
    node.add_arguments(&["--etcd", &url]);
    node.start();
    fleet.wait_open(0, &[]);
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    let asked = names.asked();
    fleet.store.kill();
    fleet.restart_store();
    fleet.nodes[0].kill();
    fleet.nodes[0].start();
    fleet.policy("http", "web", &[HTTP]);
    fleet.wait_open(0, &[SSH, HTTP]);
    assert!(names.asked() > asked, "the name was asked for again");
}

fn deny_all() -> String {
    let policy = json!({"apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "deny-all"},
        "spec": {"nodeSelector": {"matchLabels": {"role": "web"}},
            "ingress": [{}], "egress": [{}]}});
    policy.to_string()
}
