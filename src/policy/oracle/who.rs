//! Whose address is it, and which labels does its owner have?

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::book::Book;
use super::labels::survives_filter;
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{Label, LabelSet};
use crate::policy::language::NamedPort;
use crate::policy::objects::{EndpointObject, Object, PodObject};

/// The peer of a packet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Who {
    pub address: IpAddr,
    pub side: Side,
    pub labels: LabelSet,
}

/// The sides on which an address can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// This host.
    Host,
    /// Another node of the cluster.
    RemoteNode,
    /// A pod, or whatever else Cilium gave an identity to.
    Workload,
    /// Everyone else.
    World,
}

/// Who claims an address, before anything is said about labels.
pub(super) enum Claimed<'a> {
    Host,
    Node(&'a str),
    Pod(&'a ResourceKey, &'a PodObject),
    Endpoint(&'a EndpointObject),
    Nobody,
}

impl Claimed<'_> {
    pub(super) fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }
    /// Whether it is neither this host nor another node: a Kubernetes API there
    /// is an external one.
    pub(super) fn is_outside(&self) -> bool {
        !matches!(self, Self::Host | Self::Node(_))
    }
}

impl<'a> Book<'a> {
    /// Who owns an address.
    #[must_use]
    pub fn who(&self, address: IpAddr) -> Who {
        let apiserver = self.apiservers.contains(&address);
        let (side, mut labels) = match self.who_claims(address) {
            Claimed::Host => (Side::Host, self.host_labels.clone()),
            Claimed::Node(name) => (Side::RemoteNode, self.node_labels(name, address)),
            // The word about the API server is the strongest of all.
            _ if apiserver => (Side::World, self.world_labels(address)),
            Claimed::Pod(key, pod) => (Side::Workload, self.pod_labels(key, pod)),
            Claimed::Endpoint(endpoint) => (Side::Workload, self.endpoint_labels(endpoint)),
            Claimed::Nobody => (Side::World, self.world_labels(address)),
        };
        if apiserver {
            labels.insert(Label::reserved("kube-apiserver"));
        }
        Who {
            address,
            side,
            labels,
        }
    }

    /// The strongest claim on an address: local, then custom resources, then
    /// Kubernetes' own objects; among equals this host, other nodes, pods.
    pub(super) fn who_claims(&self, address: IpAddr) -> Claimed<'a> {
        if self.snapshot.local_addresses.contains(&address) {
            return Claimed::Host;
        }
        let own_name = &self.snapshot.options.node_name;
        let strength = |key: &ResourceKey| match key.kind {
            ResourceKind::CiliumNode if key.name == *own_name => 0,
            ResourceKind::CiliumNode => 1,
            ResourceKind::CiliumEndpoint => 2,
            ResourceKind::Node if key.name == *own_name => 3,
            ResourceKind::Node => 4,
            _ => 5,
        };
        let claims = self.claims.get(&address).into_iter().flatten();
        match claims.min_by_key(|(key, _)| (strength(key), *key)) {
            None => Claimed::Nobody,
            Some((key, Object::Pod(pod))) => Claimed::Pod(key, pod),
            Some((_, Object::Endpoint(endpoint))) => Claimed::Endpoint(endpoint),
            Some((key, _)) if key.name == *own_name => Claimed::Host,
            Some((key, _)) => Claimed::Node(&key.name),
        }
    }

    fn node_labels(&self, name: &str, address: IpAddr) -> LabelSet {
        let mut labels = LabelSet::default();
        labels.insert(Label::reserved("remote-node"));
        if self.node_labels {
            let mut written: BTreeMap<&str, &str> = BTreeMap::new();
            for kind in [ResourceKind::CiliumNode, ResourceKind::Node] {
                if let Some(Object::Node(node)) = self.object(kind, name) {
                    let of_object = node.labels.iter();
                    written.extend(of_object.map(|(key, value)| (key.as_str(), value.as_str())));
                }
            }
            for (key, value) in written {
                labels.insert(Label::new("node", key, value));
            }
        }
        if self.snapshot.options.cidr_match_nodes {
            self.add_cidr_labels(&mut labels, address);
        }
        labels
    }

    fn pod_labels(&self, key: &ResourceKey, pod: &PodObject) -> LabelSet {
        const OF_NAMESPACE: &str = "io.cilium.k8s.namespace.labels";
        let namespace = key.namespace.as_deref().unwrap_or("default");
        let mut written: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in &pod.labels {
            // What Cilium itself says of a pod, nobody can say with a label.
            if !key.starts_with(OF_NAMESPACE) {
                written.insert(key.clone(), value.clone());
            }
        }
        if let Some(Object::Namespace(object)) = self.object(ResourceKind::Namespace, namespace) {
            for (key, value) in &object.labels {
                written.insert(format!("{OF_NAMESPACE}.{key}"), value.clone());
            }
        }
        let cluster = &self.snapshot.options.cluster_name;
        for (key, value) in [
            ("io.kubernetes.pod.namespace", namespace),
            ("io.cilium.k8s.policy.cluster", cluster),
            ("io.cilium.k8s.policy.serviceaccount", &pod.service_account),
        ] {
            written.insert(key.to_owned(), value.to_owned());
        }
        written
            .into_iter()
            .filter(|(key, _)| survives_filter(key))
            .map(|(key, value)| Label::new("k8s", key, value))
            .collect()
    }

    fn endpoint_labels(&self, endpoint: &EndpointObject) -> LabelSet {
        let number = endpoint.identity.unwrap_or_default().to_string();
        match self.object(ResourceKind::CiliumIdentity, &number) {
            Some(Object::Identity(identity)) => identity.labels.clone(),
            _ => endpoint.labels.clone(),
        }
    }

    fn world_labels(&self, address: IpAddr) -> LabelSet {
        let mut labels = LabelSet::default();
        labels.insert(Label::reserved("world"));
        self.add_cidr_labels(&mut labels, address);
        labels
    }

    /// The prefixes and groups that hold an address.
    fn add_cidr_labels(&self, labels: &mut LabelSet, address: IpAddr) {
        for length in 0..=IpNet::from(address).max_prefix_len() {
            let around = IpNet::new(address, length).map(|prefix| prefix.trunc());
            if let Ok(around) = around
                && self.listed.contains(&around)
            {
                labels.insert(Label::new("cidr", around.to_string(), ""));
            }
        }
        for (name, group) in &self.groups {
            if group.cidrs.iter().any(|prefix| prefix.contains(&address)) {
                let key = format!("io.cilium.policy.cidrgroupname/{name}");
                labels.insert(Label::new("cidrgroup", key, ""));
            }
        }
    }

    /// The named ports of all pods that have the labels of this peer.
    pub(super) fn named_ports(&self, who: &Who) -> &[&'a NamedPort] {
        if who.side != Side::Workload {
            return &[];
        }
        let all = self.named_ports.get_or_init(|| {
            let mut all: BTreeMap<LabelSet, Vec<&'a NamedPort>> = BTreeMap::new();
            for (address, claims) in &self.claims {
                let owner = self.who(*address);
                if owner.side != Side::Workload {
                    continue;
                }
                let ports = all.entry(owner.labels).or_default();
                for (_, object) in claims {
                    match object {
                        Object::Pod(pod) => ports.extend(&pod.named_ports),
                        Object::Endpoint(endpoint) => ports.extend(&endpoint.named_ports),
                        _ => {}
                    }
                }
            }
            all
        });
        all.get(&who.labels).map_or(&[], Vec::as_slice)
    }
}
