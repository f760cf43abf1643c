//! What is written once counts on all nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{Fleet, policy, policy_key, until};
use crate::harness::{HTTP, SSH};
use crate::store::program;

#[test]
fn a_policy_written_once_is_enforced_on_all_selected_nodes() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web", "db"]);
    for node in 0..3 {
        assert!(
            fleet.is_open(node, &[SSH, HTTP]),
            "no policy: nothing is dropped"
        );
    }
    fleet.policy("ssh", "web", &[SSH]);
    fleet.wait_open(0, &[SSH]);
    fleet.wait_open(1, &[SSH]);
    assert!(
        fleet.is_open(2, &[SSH, HTTP]),
        "the policy does not select it"
    );
    fleet.policy("ssh", "web", &[HTTP]);
    fleet.wait_open(0, &[HTTP]);
    fleet.wait_open(1, &[HTTP]);

    // What cannot be read changes nothing, and names the key and the reason.
    let broken = [
        ("{\"kind\": \"CiliumClus", "line"),
        (
            &*policy("other", "web", &[SSH]).to_string(),
            "the key about",
        ),
    ];
    for (value, reason) in broken {
        fleet.store.put(&policy_key("ssh"), value);
        let problems = until("the problem is told", || {
            let problems = fleet.nodes[0].problems();
            problems.contains(reason).then_some(problems)
        });
        assert!(problems.contains(&policy_key("ssh")), "{problems}");
        assert!(fleet.is_open(0, &[HTTP]), "the last value stays");
    }
    // What can be read and is no valid policy is refused as from a manifest.
    let mut invalid = policy("ssh", "web", &[SSH]);
    invalid["spec"]["ingress"][0]["fromEntitys"] = json!(["all"]);
    fleet.store.put(&policy_key("ssh"), &invalid.to_string());
    until("the refusal is told", || {
        fleet.nodes[0]
            .problems()
            .contains("fromEntities")
            .then_some(())
    });
    assert!(fleet.is_open(0, &[HTTP]), "the last valid version stays");

    fleet.store.delete(&policy_key("ssh"));
    fleet.wait_open(0, &[SSH, HTTP]);
    fleet.wait_open(1, &[SSH, HTTP]);
    let source = fleet.nodes[1].source();
    assert_eq!(source["in_sync"], true, "{source}");
    let kinds = source["kinds"].to_string();
    assert!(kinds.contains("cilium/state/nodes/v1/"), "{kinds}");
}

/// Tells how soon a policy that is written counts on three hosts: the moment of the
/// first connection that is refused on each. Printed with `--nocapture`.
#[test]
fn a_policy_written_once_is_enforced_soon() {
    const ROUNDS: u32 = 5;
    let Some(program) = program() else { return };
    let fleet = Fleet::new(program, &["web", "web", "web"]);
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        fleet.policy("soon", "web", &[SSH, HTTP]);
        for node in 0..3 {
            fleet.wait_open(node, &[SSH, HTTP]);
        }
        let (written, closed) = std::thread::scope(|scope| {
            let watchers = [0, 1, 2].map(|node| {
                let fleet = &fleet;
                scope.spawn(move || first_refusal(fleet, node))
            });
            let written = Instant::now();
            fleet.policy("soon", "web", &[SSH]);
            (written, watchers.map(|it| it.join().expect("a moment")))
        });
        let mut spans = closed.map(|at| at.saturating_duration_since(written));
        spans.sort();
        all.push(spans);
    }
    all.sort_by_key(|spans| spans[2]);
    let shown = |at: usize| all.iter().map(move |spans| spans[at].as_millis());
    println!(
        "written -> enforced, ms, {ROUNDS} rounds: on the first host {:?}, on all three {:?}",
        shown(0).collect::<Vec<_>>(),
        shown(2).collect::<Vec<_>>()
    );
    fleet.wait_open(1, &[SSH]);
}

/// When the first connection that does not pass was begun.
fn first_refusal(fleet: &Fleet, node: usize) -> Instant {
    until("HTTP is closed", || {
        for _ in 0..25 {
            let begun = Instant::now();
            if !fleet.passes(node, HTTP) {
                return Some(begun);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    })
}
