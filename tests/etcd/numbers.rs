//! No number ever means two things: nodes that were away for longer than lease and
//! collector, a journal with old numbers, a store that is wiped or set back.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fleet::{Fleet, until};
use crate::shared::{number, pod};
use crate::store::program;

const MASTERS: &str = "cilium/state/identities/v1/id/";
const CURSOR: &str = "cilium/state/identities/v1/cursor";
const CART: &str = "10.99.0.4";
const CASH: &str = "10.99.1.5";

/// A pod on a node, as that node alone is told.
fn run_pod(fleet: &Fleet, node: usize, app: &str, address: &str) {
    let name = &fleet.nodes[node].name;
    fleet.nodes[node].manifest(&format!("{app}.json"), &pod(app, app, address, name));
}

/// The number that these nodes have for the labels of an address, once they agree.
#[track_caller]
fn agreed(fleet: &mut Fleet, nodes: &[usize], address: &str, app: &str) -> u64 {
    until(&format!("nodes {nodes:?} agree on {app}"), || {
        nothing_is_mixed_up(fleet);
        let seen: Option<Vec<u64>> = nodes
            .iter()
            .map(|node| number(fleet, *node, address, app))
            .collect();
        let seen = seen?;
        let is_given = seen.iter().all(|it| *it == seen[0] && *it < 65_536);
        let master = fleet.store.get(&format!("{MASTERS}{}", seen[0]));
        let master = master.expect("etcd answers")?;
        let says = String::from_utf8_lossy(&master.value).contains(&format!("k8s:app={app};"));
        (is_given && says).then_some(seen[0])
    })
}

/// In etcd each address has a number that stands for its labels; and no node takes
/// an address for somebody else, whatever it has heard so far.
#[track_caller]
fn nothing_is_mixed_up(fleet: &mut Fleet) {
    let (masters, addresses) = fleet.store.numbers();
    let meanings: BTreeMap<String, String> = masters
        .into_iter()
        .map(|pair| {
            let key = String::from_utf8(pair.key).expect("text");
            let number = key.trim_start_matches(MASTERS).to_owned();
            (number, String::from_utf8(pair.value).expect("text"))
        })
        .collect();
    for pair in addresses {
        let word: Value = serde_json::from_slice(&pair.value).expect("JSON");
        let meaning = meanings.get(&word["ID"].to_string());
        assert_eq!(
            meaning.map(String::as_str),
            word["Labels"].as_str(),
            "{word}"
        );
    }
    for node in 0..fleet.nodes.len() {
        if !fleet.nodes[node].is_running() {
            continue;
        }
        for (address, other) in [(CART, "k8s:app=cash"), (CASH, "k8s:app=cart")] {
            let who = fleet.nodes[node].who_is(address);
            assert!(
                !who["labels"].to_string().contains(other),
                "node {node}: {who}"
            );
        }
    }
}

/// Nobody has used a number for long enough, and it is the next to be given.
fn free_number(fleet: &mut Fleet, number: u64) {
    let key = format!("{MASTERS}{number}");
    until("the number is collected", || {
        let master = fleet.store.get(&key).expect("etcd answers");
        master.is_none().then_some(())
    });
    fleet.store.put(CURSOR, &(number - 1).to_string());
}

#[test]
fn a_node_that_was_away_gives_its_numbers_up() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web", "web"]);
    run_pod(&fleet, 0, "cart", CART);
    let old = agreed(&mut fleet, &[0, 1, 2], CART, "cart");

    // Cut off for longer than its lease and two rounds of the collector, while all
    // other numbers are given.
    fleet.cut(0);
    free_number(&mut fleet, old);
    run_pod(&fleet, 1, "cash", CASH);
    assert_eq!(agreed(&mut fleet, &[1, 2], CASH, "cash"), old);
    assert_eq!(
        number(&mut fleet, 0, CART, "cart"),
        Some(old),
        "what it knows stays in force"
    );
    fleet.mend();
    let new = agreed(&mut fleet, &[0, 1, 2], CART, "cart");
    assert_ne!(new, old);
    assert_eq!(agreed(&mut fleet, &[0, 1, 2], CASH, "cash"), old);
}

#[test]
fn a_journal_with_old_numbers_is_in_force_until_etcd_speaks() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    run_pod(&fleet, 0, "cart", CART);
    let old = agreed(&mut fleet, &[0, 1], CART, "cart");

    fleet.nodes[0].kill();
    free_number(&mut fleet, old);
    run_pod(&fleet, 1, "cash", CASH);
    assert_eq!(agreed(&mut fleet, &[1], CASH, "cash"), old);
    fleet.store.kill();
    fleet.nodes[0].launch();
    until("the journal is in force", || {
        fleet.nodes[0].agent().host_endpoint().ok()?;
        (number(&mut fleet, 0, CART, "cart")? == old).then_some(())
    });
    fleet.restart_store();
    let new = agreed(&mut fleet, &[0, 1], CART, "cart");
    assert_ne!(new, old);
    assert_eq!(agreed(&mut fleet, &[0, 1], CASH, "cash"), old);
}

#[test]
fn a_wiped_store_may_give_all_numbers_another_meaning() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web", "web"]);
    run_pod(&fleet, 0, "cart", CART);
    let cart = agreed(&mut fleet, &[0, 1, 2], CART, "cart");
    run_pod(&fleet, 1, "cash", CASH);
    let cash = agreed(&mut fleet, &[0, 1, 2], CASH, "cash");
    assert!(cart < cash, "{cart} {cash}");

    fleet.store.kill();
    fleet.store.wipe();
    fleet.cut(0);
    fleet.restart_store();
    assert_eq!(agreed(&mut fleet, &[1, 2], CASH, "cash"), cart, "the first");
    fleet.mend();
    let now = agreed(&mut fleet, &[0, 1, 2], CART, "cart");
    assert_eq!(now, cash, "the second");
    assert_eq!(agreed(&mut fleet, &[0, 1, 2], CASH, "cash"), cart);
}

#[test]
fn a_store_that_was_set_back_learns_what_it_forgot() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    until("both nodes have their keys", || {
        (fleet.store.under("cilium/state/nodes/").len() == 2).then_some(())
    });
    fleet.store.kill();
    fleet.store.back_up();
    fleet.restart_store();
    run_pod(&fleet, 0, "cart", CART);
    agreed(&mut fleet, &[0, 1], CART, "cart");
    fleet.store.kill();
    // It knows the leases of both nodes, and neither number nor address.
    fleet.store.set_back();
    fleet.restart_store();
    until("the address is there again", || {
        let key = format!("cilium/state/ip/v1/default/{CART}");
        fleet.store.get(&key).expect("etcd answers")
    });
    agreed(&mut fleet, &[0, 1], CART, "cart");
}
