//! What nodes tell each other: addresses, labels, numbers of identities.

use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::harness::{HTTP, SSH};
use crate::store::program;

/// Nodes with a label reach HTTP, everybody SSH.
fn from_nodes(role: &str) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "nodes"},
        "spec": {
            "nodeSelector": {"matchLabels": {"role": "web"}},
            "ingress": [
                {"fromNodes": [{"matchLabels": {"role": role}}],
                    "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]},
                {"fromEntities": ["all"],
                    "toPorts": [{"ports": [{"port": "22", "protocol": "TCP"}]}]}]}})
}

#[test]
fn a_dead_nodes_addresses_go_and_no_others() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "db", "cache"]);
    let addresses: Vec<_> = fleet.nodes.iter().map(|node| node.address).collect();
    fleet.store.put(
        &crate::fleet::policy_key("nodes"),
        &from_nodes("db").to_string(),
    );
    fleet.wait_open(0, &[SSH]);
    until("node 0 lets the node of the role in", || {
        fleet.reaches(1, 0, HTTP).then_some(())
    });
    assert!(!fleet.reaches(2, 0, HTTP), "another role");
    assert!(fleet.reaches(2, 0, SSH));

    let (name, address) = (fleet.nodes[1].name.clone(), addresses[1]);
    let key = format!("cilium/state/nodes/v1/default/{name}");
    let value = fleet
        .store
        .get(&key)
        .expect("etcd answers")
        .expect("the node's key");
    assert_ne!(value.lease, 0, "it hangs on a lease");
    let value: Value = serde_json::from_slice(&value.value).expect("JSON");
    assert_eq!(value["Labels"]["role"], "db", "{value}");
    assert!(
        value["IPAddresses"]
            .to_string()
            .contains(&address.to_string()),
        "{value}"
    );

    // Others do not write there for long.
    fleet.store.delete(&key);
    until("the key is back", || {
        fleet.store.get(&key).expect("etcd answers")
    });
    let foreign = json!({"Name": name, "Cluster": "default",
        "IPAddresses": [{"Type": "InternalIP", "IP": "10.88.0.77"}]});
    fleet.store.put(&key, &foreign.to_string());
    until("the rival is told", || {
        let problems = fleet.nodes[1].problems();
        problems.contains("--node-name").then_some(())
    });
    until("it is the node's again", || {
        fleet.reaches(1, 0, HTTP).then_some(())
    });
    until("the rival is forgotten", || {
        let problems = fleet.nodes[1].problems();
        (!problems.contains("--node-name")).then_some(())
    });
    let who = fleet.nodes[0].who_is(address);
    assert_eq!(who["source"], "kvstore", "{who}");

    fleet.nodes[1].kill();
    until("the lease has run out", || {
        let there = fleet.store.get(&key).expect("etcd answers");
        there.is_none().then_some(())
    });
    until("its address is nobody's", || {
        (!fleet.nodes[0].knows_node(address)).then_some(())
    });
    assert!(fleet.nodes[0].knows_node(addresses[2]), "the others stay");
    assert!(fleet.nodes[2].knows_node(addresses[0]), "the others stay");
    until("it is let in no more", || {
        (!fleet.reaches(1, 0, HTTP)).then_some(())
    });
    fleet.nodes[1].start();
    until("it is a node again", || {
        fleet.reaches(1, 0, HTTP).then_some(())
    });
}

#[test]
fn what_went_while_an_agent_was_away_is_nobodys_when_it_is_back() {
    const ADDRESSES: &str = "cilium/state/ip/v1/default/";
    let Some(program) = program() else { return };
    let mut fleet = Fleet::bare(program, &["web", "web"], false);
    let url = fleet.store.url();
    for node in &mut fleet.nodes {
        // No lease ends while the test runs.
        node.lease_for("600");
        node.add_arguments(&["--etcd", &url]);
        node.start();
    }
    for (node, address) in [
        ("n11", "10.99.0.4"),
        ("n11", "10.99.0.5"),
        ("n12", "10.99.1.4"),
    ] {
        let name = format!("{}.json", address.replace('.', "-"));
        let host = usize::from(node == "n12");
        fleet.nodes[host].manifest(&name, &pod(&name, "shop", address, node));
    }
    let keys = |fleet: &Fleet| -> Vec<String> {
        let pairs = fleet.store.under(ADDRESSES).into_iter();
        let keys = pairs.map(|pair| String::from_utf8(pair.key).expect("text"));
        keys.map(|key| key.replace(ADDRESSES, "")).collect()
    };
    until("all is published", || {
        (keys(&fleet) == ["10.99.0.4", "10.99.0.5", "10.99.1.4"]).then_some(())
    });
    fleet.nodes[0].kill();
    fleet.nodes[0].remove_manifest("10-99-0-4.json");
    assert_eq!(keys(&fleet).len(), 3, "its lease lives");
    fleet.nodes[0].start();
    until("the address of the pod that went is gone", || {
        (keys(&fleet) == ["10.99.0.5", "10.99.1.4"]).then_some(())
    });
    until("the other node knows", || {
        number(&mut fleet, 1, "10.99.0.4", "shop")
            .is_none()
            .then_some(())
    });
    assert!(number(&mut fleet, 1, "10.99.0.5", "shop").is_some());
}

pub(crate) fn pod(name: &str, app: &str, address: &str, node: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": node}, "status": {"podIP": address, "phase": "Running"}})
    .to_string()
}

/// The number of an address with these labels; None: it is not known so.
pub(crate) fn number(fleet: &mut Fleet, node: usize, address: &str, app: &str) -> Option<u64> {
    let who = fleet.nodes[node].who_is(address);
    let label = format!("k8s:app={app}");
    who["labels"]
        .to_string()
        .contains(&label)
        .then(|| who["identity"].as_u64())?
}

#[test]
fn numbers_of_identities_agree() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(program, &["web", "web"]);
    // Told in another order, the numbers of each node alone would differ.
    let names: Vec<String> = fleet.nodes.iter().map(|node| node.name.clone()).collect();
    for (node, apps) in [["cart", "cash"], ["cash", "cart"]].into_iter().enumerate() {
        for app in apps {
            let address = format!("10.99.{node}.{}", app.len() + usize::from(app == "cash"));
            fleet.nodes[node].manifest(
                &format!("{app}.json"),
                &pod(app, app, &address, &names[node]),
            );
        }
    }
    let mut numbers = Vec::new();
    for app in ["cart", "cash"] {
        let last = app.len() + usize::from(app == "cash");
        let agreed = until("all nodes have one number", || {
            let mut seen = Vec::new();
            for node in 0..2 {
                for at in 0..2 {
                    seen.push(number(
                        &mut fleet,
                        node,
                        &format!("10.99.{at}.{last}"),
                        app,
                    )?);
                }
            }
            let key = format!("cilium/state/identities/v1/id/{}", seen[0]);
            let master = fleet.store.get(&key).expect("etcd answers")?;
            let labels = String::from_utf8(master.value).expect("text");
            let is_one = seen.iter().all(|it| *it == seen[0]);
            (is_one && labels.contains(&format!("k8s:app={app};"))).then_some(seen[0])
        });
        assert!((256..=65_535).contains(&agreed), "{agreed}");
        numbers.push(agreed);
    }
    assert_ne!(numbers[0], numbers[1], "other labels, another number");

    // A pod that is gone takes its address from the other node, and its number
    // is free when nobody has used it for a while.
    for node in 0..2 {
        fleet.nodes[node].remove_manifest("cash.json");
    }
    until("its address is nobody's", || {
        (number(&mut fleet, 1, "10.99.0.5", "cash").is_none()).then_some(())
    });
    until("its number is collected", || {
        let masters = fleet.store.under("cilium/state/identities/v1/id/");
        (masters.len() == 1).then_some(())
    });
    let kept = number(&mut fleet, 1, "10.99.0.4", "cart");
    assert_eq!(kept, Some(numbers[0]), "what is used stays");
}
