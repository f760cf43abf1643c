//! How long a host takes to hear of a whole fleet from a real etcd, what it keeps
//! of it in memory, and how fast it takes changes. `cargo xtask scale --etcd`
//! prints it for 5,000 hosts with 20,000 addresses of 2,000 identities and 2,000
//! policies, and for a tenth of it.

use std::time::Instant;

use palisade::sources::etcd::wire::{RequestOp, TxnRequest};
use serde_json::json;

use crate::fleet::{Fleet, policy, policy_key, until};
use crate::growth::{self, Shown};
use crate::harness::SSH;
use crate::store::program;

/// Hosts in the test command; `PALISADE_SCALE_NODES` asks for another number.
const NODES: u32 = 50;
/// Writes of one transaction, fewer than etcd takes.
const WRITES: usize = 100;
const LAST_ADDRESS: &str = "10.255.255.1";

#[test]
fn a_whole_fleet_is_heard() {
    let Some(program) = program() else { return };
    let nodes = growth::nodes_or(NODES);
    let small = measure(program.clone(), nodes / 10);
    let large = measure(program, nodes);
    let kinds = ["hosts", "addresses", "identities, and policies"];
    growth::print(kinds, "changes of addresses", &small, &large);
}

fn addresses_of(nodes: u32) -> u32 {
    nodes * 4
}

fn identities_of(nodes: u32) -> u32 {
    addresses_of(nodes).div_ceil(10)
}

/// A fleet of this many hosts, from nothing.
fn measure(program: std::path::PathBuf, nodes: u32) -> Shown {
    let mut fleet = Fleet::bare(program, &["role-0"], false);
    write(&fleet, everything(nodes));
    let url = fleet.store.url();
    fleet.nodes[0].add_arguments(&["--etcd", &url]);
    let start = Instant::now();
    fleet.nodes[0].launch();
    until("the agent is ready", || {
        let status = fleet.nodes[0].agent().json(&["status"]).ok()?;
        (status["ready"] == true).then_some(())
    });
    let sync_s = start.elapsed().as_secs_f64();

    // Every tenth address has other labels, and one address is new.
    let changed = addresses_of(nodes) / 10;
    let mut changes: Vec<(String, String)> = (0..changed)
        .map(|number| address(number * 10, number + 1, identities_of(nodes)))
        .collect();
    let (_, last) = address(0, 0, identities_of(nodes));
    let last = last.replace("10.64.0.0", LAST_ADDRESS);
    changes.push((format!("cilium/state/ip/v1/default/{LAST_ADDRESS}"), last));
    let events = changes.len();
    let start = Instant::now();
    write(&fleet, changes);
    until("the last change is known", || {
        let who = fleet.nodes[0].who_is(LAST_ADDRESS);
        who["labels"]
            .to_string()
            .contains("app=app-0")
            .then_some(())
    });
    let events_s = start.elapsed().as_secs_f64();
    let pid = fleet.nodes[0].agent().pid().expect("an agent");
    let sizes = [nodes, addresses_of(nodes), identities_of(nodes)];
    Shown::of(sizes, sync_s, events as f64 / events_s, pid)
}

fn write(fleet: &Fleet, pairs: Vec<(String, String)>) {
    let written = fleet.store.ask(|client| async move {
        for some in pairs.chunks(WRITES) {
            let success = some
                .iter()
                .map(|(key, value)| RequestOp::put(key, value.as_str(), 0));
            let transaction = TxnRequest {
                success: success.collect(),
                ..TxnRequest::default()
            };
            client.transact(transaction).await?;
        }
        Ok(())
    });
    written.expect("etcd takes it");
}

/// Keys and values as hosts write them.
fn everything(nodes: u32) -> Vec<(String, String)> {
    let identities = identities_of(nodes);
    let hosts = (0..nodes).map(|number| {
        let name = format!("node-{number}");
        let [_, _, high, low] = number.to_be_bytes();
        let value = json!({"Name": name, "Cluster": "default", "Source": "local",
            "IPAddresses": [{"Type": "InternalIP", "IP": format!("172.20.{high}.{low}")}],
            "Labels": {"role": format!("role-{}", number % 50), "kubernetes.io/hostname": name}});
        (
            format!("cilium/state/nodes/v1/default/{name}"),
            value.to_string(),
        )
    });
    let masters = (0..identities).map(|number| {
        let key = format!("cilium/state/identities/v1/id/{}", 256 + number);
        (key, labels(number))
    });
    let addresses = (0..addresses_of(nodes)).map(|number| address(number, number, identities));
    let policies = (0..identities).map(|number| {
        let name = format!("policy-{number}");
        let value = policy(&name, &format!("role-{}", number % 50), &[SSH]);
        (policy_key(&name), value.to_string())
    });
    let all = hosts.chain(masters).chain(addresses).chain(policies);
    all.collect()
}

fn labels(identity: u32) -> String {
    format!(
        "k8s:app=app-{identity};k8s:io.cilium.k8s.policy.cluster=default;\
         k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=ns-{};",
        identity % 40
    )
}

/// An address with one of the identities.
fn address(number: u32, identity: u32, identities: u32) -> (String, String) {
    let [_, high, middle, low] = number.to_be_bytes();
    let address = format!("10.{}.{middle}.{low}", 64 + high);
    let identity = identity % identities;
    let value = json!({"IP": address, "Mask": null, "HostIP": "172.20.0.1",
        "ID": 256 + identity, "Key": 0, "Metadata": "cilium-global:default:node-1:0",
        "Labels": labels(identity), "K8sNamespace": "shop", "K8sPodName": format!("pod-{number}")});
    (
        format!("cilium/state/ip/v1/default/{address}"),
        value.to_string(),
    )
}
