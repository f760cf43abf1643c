//! The objects of a run, by what selectors ask of them.

use std::collections::BTreeMap;

use crate::events::ResourceKey;
use crate::identity::{Label, LabelSet};
use crate::policy::PolicyOptions;
use crate::policy::language::NamedPort;
use crate::policy::objects::{Object, PodObject};

/// Label sets and names; None where no object of the kind is known, so that
/// nothing can be said.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// As a nodeSelector sees them.
    pub(super) hosts: Option<Vec<LabelSet>>,
    /// As fromNodes sees them: without this node.
    pub(super) other_nodes: Option<Vec<LabelSet>>,
    pub(super) pods: Option<Vec<LabelSet>>,
    pub(super) pod_ports: Vec<&'a NamedPort>,
    /// Name and labels.
    pub(super) groups: Option<Vec<(&'a str, LabelSet)>>,
    /// Namespace, name and labels.
    pub(super) services: Option<Vec<(&'a str, &'a str, LabelSet)>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(objects: &[(&'a ResourceKey, &'a Object)], options: &PolicyOptions) -> Self {
        let mut known = Self::default();
        let mut nodes: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        let mut namespaces: BTreeMap<&str, &BTreeMap<String, String>> = BTreeMap::new();
        for (key, object) in objects {
            match object {
                Object::Node(node) => {
                    let labels = nodes.entry(&key.name).or_default();
                    labels.extend(pairs(&node.labels));
                }
                Object::Namespace(namespace) => {
                    namespaces.insert(&key.name, &namespace.labels);
                }
                Object::Pod(_) | Object::Service(_) | Object::EndpointSlice(_) => {}
                Object::Identity(_) | Object::Endpoint(_) | Object::CidrGroup(_) => {}
            }
        }
        if !nodes.is_empty() {
            known.add_nodes(nodes, options);
        }
        for (key, object) in objects {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            match object {
                Object::Pod(pod) => {
                    let labels = namespaces.get(namespace).copied();
                    let labels = labels_of_pod(namespace, pod, labels, options);
                    known.pods.get_or_insert_default().push(labels);
                    known.pod_ports.extend(&pod.named_ports);
                }
                Object::Endpoint(endpoint) => {
                    let labels = endpoint.labels.clone();
                    known.pods.get_or_insert_default().push(labels);
                    known.pod_ports.extend(&endpoint.named_ports);
                }
                Object::Identity(identity) => {
                    let labels = identity.labels.clone();
                    known.pods.get_or_insert_default().push(labels);
                }
                Object::CidrGroup(group) => {
                    let entry = (&key.name[..], labels("k8s", pairs(&group.labels)));
                    known.groups.get_or_insert_default().push(entry);
                }
                Object::Service(service) => {
                    let labels = labels("k8s", pairs(&service.labels));
                    let entry = (namespace, &key.name[..], labels);
                    known.services.get_or_insert_default().push(entry);
                }
                Object::Node(_) | Object::Namespace(_) | Object::EndpointSlice(_) => {}
            }
        }
        known
    }

    fn add_nodes<'n>(
        &mut self,
        mut nodes: BTreeMap<&'n str, BTreeMap<&'n str, &'n str>>,
        options: &'n PolicyOptions,
    ) {
        if !options.node_labels.is_empty() {
            let own = nodes.entry(&options.node_name).or_default();
            own.extend(pairs(&options.node_labels));
        }
        let mut hosts = Vec::new();
        let mut others = Vec::new();
        for (name, of_node) in &nodes {
            let with = |source: &str, reserved: &str| {
                let mut set = labels(source, of_node.iter().map(|(key, value)| (*key, *value)));
                set.insert(Label::reserved(reserved));
                set
            };
            hosts.push(with("k8s", "host"));
            if **name != options.node_name {
                others.push(with("node", "remote-node"));
            }
        }
        self.hosts = Some(hosts);
        self.other_nodes = Some(others);
    }
}

fn pairs(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (&key[..], &value[..]))
}

fn labels<'a>(source: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> LabelSet {
    pairs
        .map(|(key, value)| Label::new(source, key, value))
        .collect()
}

/// All that can stand on a pod: the filter takes some of it away, which is
/// warned of where a selector is read.
fn labels_of_pod(
    namespace: &str,
    pod: &PodObject,
    of_namespace: Option<&BTreeMap<String, String>>,
    options: &PolicyOptions,
) -> LabelSet {
    let mut set = labels("k8s", pairs(&pod.labels));
    for (key, value) in [
        ("io.kubernetes.pod.namespace", namespace),
        ("io.cilium.k8s.policy.cluster", &options.cluster_name),
        ("io.cilium.k8s.policy.serviceaccount", &pod.service_account),
    ] {
        set.insert(Label::new("k8s", key, value));
    }
    for (key, value) in of_namespace.into_iter().flatten() {
        let key = format!("io.cilium.k8s.namespace.labels.{key}");
        set.insert(Label::new("k8s", key, value));
    }
    set
}
