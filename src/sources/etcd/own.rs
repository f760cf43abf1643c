//! What this node has to say to the others, from what it knows. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::keys::{ADDRESSES, labels_text, node};
use super::translate::Own;
use crate::datapath::devices::Scope;
use crate::events::{Resource, ResourceKey, ResourceKind, SourceName};
use crate::identity::{IdentityKey, IdentityNumber};
use crate::policy::PolicySnapshot;
use crate::policy::objects::Object;
use crate::sources::device_board::DeviceReport;

/// A pod whose number is shared.
pub(super) struct Pod<'s> {
    resource: &'s Resource,
    address: IpAddr,
    /// As they stand in keys.
    pub(super) labels: String,
    /// Its address is this node's to publish.
    is_told_here: bool,
}

/// A value to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) value: Vec<u8>,
    /// The labels whose number it names.
    pub(super) labels: Option<String>,
}

/// The keys that this node publishes, with their values.
pub(super) fn keys(
    own: &Own,
    snapshot: &PolicySnapshot,
    (addresses, pods): (&[IpAddr], &[Pod<'_>]),
    numbers: &BTreeMap<String, u32>,
) -> BTreeMap<String, Word> {
    let mut keys = BTreeMap::new();
    let Some(host) = addresses.first() else {
        // Nobody can tell the node from the outside.
        return keys;
    };
    let node_word = Word {
        value: node_value(own, snapshot, addresses),
        labels: None,
    };
    keys.insert(node(&own.cluster, &own.node), node_word);
    for pod in pods.iter().filter(|pod| pod.is_told_here) {
        if let Some(number) = numbers.get(&pod.labels) {
            let word = Word {
                value: address_value(own, pod, *host, *number),
                labels: Some(pod.labels.clone()),
            };
            keys.insert(format!("{ADDRESSES}{}", pod.address), word);
        }
    }
    keys
}

/// How slave keys end: the node's address, as in Cilium, with its name where
/// another node has the address too.
pub(super) fn suffix(own: &Own, addresses: &[IpAddr], is_shared: bool) -> String {
    match addresses.first() {
        Some(address) if is_shared => format!("{address}@{}", own.node),
        Some(address) => address.to_string(),
        None => own.node.clone(),
    }
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
        "Metadata": format!("{}0", own.mark()), "Labels": pod.labels,
        "K8sNamespace": key.namespace, "K8sPodName": key.name});
    value.to_string().into_bytes()
}

/// The pods that this node was told of by hand, and those that run here: their
/// numbers are to be the same everywhere. What Cilium numbers (CiliumIdentities of
/// Kubernetes) or what others published is theirs to share.
pub(super) fn pods<'s>(own: &Own, snapshot: &'s PolicySnapshot) -> Vec<Pod<'s>> {
    let mut pods = Vec::new();
    for stored in snapshot.objects.values() {
        let resource = &*stored.resource;
        let Object::Pod(pod) = &stored.object else {
            continue;
        };
        let by_hand = matches!(resource.source, SourceName::Manifests | SourceName::Api);
        let is_here = is_here(own, snapshot, resource);
        if !(by_hand || is_here) {
            continue;
        }
        // Kubernetes tells every node of its pods by itself.
        let is_told_here = is_here && resource.source != SourceName::Kubernetes;
        for address in &pod.addresses {
            if let Some(labels) = labels_of(snapshot, *address) {
                pods.push(Pod {
                    resource,
                    address: *address,
                    labels,
                    is_told_here,
                });
            }
        }
    }
    pods
}

fn is_here(own: &Own, snapshot: &PolicySnapshot, resource: &Resource) -> bool {
    // There are many pods of Kubernetes, and all have the name of their node.
    if resource.source == SourceName::Kubernetes && !resource.body.text().contains(&own.node) {
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
    let identity = snapshot.identities.live_at(entry?.index)?;
    match &identity.key {
        IdentityKey::Workload { .. } if is_of_cilium(snapshot, identity.number) => None,
        IdentityKey::Workload { labels, .. } => Some(labels_text(labels)),
        IdentityKey::Reserved(_) | IdentityKey::Cidr(_) | IdentityKey::Node { .. } => None,
    }
}

/// Whether Kubernetes tells of the number: then Cilium's operator gives numbers.
fn is_of_cilium(snapshot: &PolicySnapshot, number: IdentityNumber) -> bool {
    let key = ResourceKey {
        kind: ResourceKind::CiliumIdentity,
        namespace: None,
        name: number.to_string(),
    };
    let told = snapshot.objects.get(&key);
    told.is_some_and(|stored| stored.resource.source == SourceName::Kubernetes)
}
