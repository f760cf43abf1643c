//! Objects by kind and name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{names, network, nodes, workloads};
use crate::random::Random;

/// The objects of a cluster.
pub(crate) fn all(random: &mut Random) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut some = |kind: &str, names: Vec<String>, percent: usize, random: &mut Random| {
        for name in names {
            if random.chance(percent) {
                objects.push(of_kind(kind, &name, random));
            }
        }
    };
    some("Node", nodes::names(), 55, random);
    some("CiliumNode", nodes::names(), 25, random);
    some("CiliumCIDRGroup", network::groups(), 70, random);
    if random.chance(70) {
        some("Namespace", workloads::namespaces(), 70, random);
        some("Pod", workloads::pods(), 60, random);
        some("CiliumIdentity", workloads::identities(), 50, random);
        some("CiliumEndpoint", workloads::endpoints(), 30, random);
        some("Service", network::services(), 60, random);
        some("EndpointSlice", network::slices(), 50, random);
    }
    objects
}

/// An object with a name that its kind knows.
pub(crate) fn of_kind(kind: &str, name: &str, random: &mut Random) -> Value {
    match kind {
        "Node" | "CiliumNode" => nodes::node(kind, name, random),
        "Namespace" => workloads::namespace(name, random),
        "Pod" => workloads::pod(name, random),
        "CiliumIdentity" => workloads::identity(name, random),
        "CiliumEndpoint" => workloads::endpoint(name, random),
        "Service" => network::service(name, random),
        "EndpointSlice" => network::slice(name, random),
        "CiliumCIDRGroup" => network::group(name, random),
        other => panic!("no objects of kind {other}"),
    }
}

/// Labels as Kubernetes objects have them.
pub(crate) fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, values) in names::LABELS {
        if random.chance(60) {
            labels.insert(key.to_owned(), (*random.pick(&values)).to_owned());
        }
    }
    labels
}
