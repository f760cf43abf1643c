//! What this node has to say to the others, from what it knows. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::keys::{ADDRESSES, labels_text, node};
use super::translate::Own;
use crate::datapath::devices::Scope;
use crate::events::{Resource, ResourceKind, SourceName};
use crate::identity::IdentityKey;
use crate::policy::PolicySnapshot;
use crate::policy::objects::Object;
use crate::sources::device_board::DeviceReport;

/// A pod whose numbers are shared.
struct Pod<'s> {
    resource: &'s Resource,
    address: IpAddr,
    /// As they stand in keys.
    labels: String,
    /// It runs on this node.
    is_here: bool,
}

/// Labels of the pods that this node was told of by hand, and of those that run
/// here: their numbers are to be the same everywhere. What another source of the
/// cluster numbers (Kubernetes) or what others published is theirs to share.
pub(super) fn labels(own: &Own, snapshot: &PolicySnapshot) -> BTreeSet<String> {
    pods(own, snapshot)
        .into_iter()
        .map(|pod| pod.labels)
        .collect()
}

/// The keys that this node publishes, with their values.
pub(super) fn keys(
    own: &Own,
    snapshot: &PolicySnapshot,
    addresses: &[IpAddr],
    numbers: &BTreeMap<String, u32>,
) -> BTreeMap<String, Vec<u8>> {
    let mut keys = BTreeMap::new();
    let Some(host) = addresses.first() else {
        // Nobody can tell the node from the outside.
        return keys;
    };
    keys.insert(
        node(&own.cluster, &own.node),
        node_value(own, snapshot, addresses),
    );
    for pod in pods(own, snapshot).iter().filter(|pod| pod.is_here) {
        if let Some(number) = numbers.get(&pod.labels) {
            let value = address_value(own, pod, *host, *number);
            keys.insert(format!("{ADDRESSES}{}", pod.address), value);
        }
    }
    keys
}

/// How slave keys end: the node's address, as in Cilium.
pub(super) fn suffix(own: &Own, addresses: &[IpAddr]) -> String {
    addresses
        .first()
        .map_or_else(|| own.node.clone(), IpAddr::to_string)
}

/// Addresses under which others see this node: those of protected devices. The
/// others, bridges of containers above all, many nodes may have.
pub(super) fn addresses(report: &DeviceReport) -> Vec<IpAddr> {
    let protected = report.selections.iter().filter(|it| it.protected);
    let held = protected.flat_map(|selection| &selection.device.addresses);
    let held: BTreeSet<IpAddr> = held
        .filter(|held| held.scope == Scope::Global)
        .map(|held| held.address)
        .collect();
    held.into_iter().collect()
}

fn node_value(own: &Own, snapshot: &PolicySnapshot, addresses: &[IpAddr]) -> Vec<u8> {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"Type": "InternalIP", "IP": address}))
        .collect();
    let labels: BTreeMap<&str, &str> = snapshot
        .host_labels
        .iter()
        .filter(|label| label.source != "reserved")
        .map(|label| (label.key.as_str(), label.value.as_str()))
        .collect();
    let value = json!({"Name": own.node, "Cluster": own.cluster, "IPAddresses": addresses,
        "Labels": labels, "Source": "local"});
    value.to_string().into_bytes()
}

fn address_value(own: &Own, pod: &Pod<'_>, host: IpAddr, number: u32) -> Vec<u8> {
    let key = &pod.resource.key;
    let value = json!({"IP": pod.address, "Mask": null, "HostIP": host, "ID": number, "Key": 0,
        "Metadata": format!("{}0", own.mark()),
        "K8sNamespace": key.namespace, "K8sPodName": key.name});
    value.to_string().into_bytes()
}

fn pods<'s>(own: &Own, snapshot: &'s PolicySnapshot) -> Vec<Pod<'s>> {
    let mut pods = Vec::new();
    for stored in snapshot.objects.values() {
        let resource = &*stored.resource;
        let Object::Pod(pod) = &stored.object else {
            continue;
        };
        let by_hand = matches!(resource.source, SourceName::Manifests | SourceName::Api);
        let is_here = is_here(own, snapshot, resource);
        if resource.key.kind != ResourceKind::Pod || !(by_hand || is_here) {
            continue;
        }
        for address in &pod.addresses {
            if let Some(labels) = labels_of(snapshot, *address) {
                pods.push(Pod {
                    resource,
                    address: *address,
                    labels,
                    is_here,
                });
            }
        }
    }
    pods
}

fn is_here(own: &Own, snapshot: &PolicySnapshot, resource: &Resource) -> bool {
    // Kubernetes tells every node of its pods by itself.
    if resource.source == SourceName::Kubernetes {
        return false;
    }
    let body = resource.body.value();
    let host = body["status"]["hostIP"].as_str();
    let host = host.and_then(|text| text.parse().ok());
    body["spec"]["nodeName"] == own.node.as_str()
        || host.is_some_and(|host| snapshot.local_addresses.contains(&host))
}

/// Of the pods at an address, as keys have them; None: its identity is not one
/// of those that get numbers.
fn labels_of(snapshot: &PolicySnapshot, address: IpAddr) -> Option<String> {
    let entry = match address {
        IpAddr::V4(ip) => snapshot.ipcache4.get(&Ipv4Net::from(ip)),
        IpAddr::V6(ip) => snapshot.ipcache6.get(&Ipv6Net::from(ip)),
    };
    match &snapshot.identities.live_at(entry?.index)?.key {
        IdentityKey::Workload { labels, .. } => Some(labels_text(labels)),
        IdentityKey::Reserved(_) | IdentityKey::Cidr(_) | IdentityKey::Node { .. } => None,
    }
}
