//! Whose address is it? All that is known of an address decides, and only
//! addresses that a change touches are asked again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

use super::claims::identity_object;
use super::state::State;
use crate::events::{ResourceKey, ResourceKind, SourceName};
use crate::identity::{
    IdentityIndex, IdentityKey, IpcacheSource, Label, LabelSet, Reserved, is_identity_label,
};
use crate::policy::language::{NamedPort, PortProtocol};
use crate::policy::objects::{EndpointObject, Object, PodObject};
use crate::policy::selections::{CLUSTER_KEY, NAMESPACE_KEY};

/// Key prefix of the labels of a Namespace on its pods.
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
const SERVICE_ACCOUNT_KEY: &str = "io.cilium.k8s.policy.serviceaccount";

/// Who speaks of an address, strongest first: this node, custom resources,
/// Kubernetes' own objects; among equals this host, other nodes, pods.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Strength {
    Local,
    OwnCiliumNode,
    CiliumNode,
    CiliumEndpoint,
    OwnNode,
    Node,
    Pod,
    /// Says no more than that the Kubernetes API is there.
    KubernetesService,
}

/// One word on an address.
pub(super) type Fact = (Strength, Option<ResourceKey>);

/// What is known of addresses, and what followed from it.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    facts: OrdMap<IpAddr, OrdSet<Fact>>,
    pub(super) known: OrdMap<IpAddr, Arc<Owner>>,
    /// Addresses of each identity of nodes and pods.
    pub(super) members: OrdSet<(IdentityIndex, IpAddr)>,
    /// Where the Kubernetes API is.
    apiservers: OrdSet<IpAddr>,
    /// Whether nodes were told apart by their labels.
    pub(super) nodes_apart: bool,
    /// How many addresses of pods with these labels have a named port.
    pub(super) ports: OrdMap<(Arc<LabelSet>, NamedPort), u32>,
    /// Prefixes of failsafe entries, the longest first: whoever is within has
    /// an identity of its own there.
    failsafe: Arc<[IpNet]>,
}

/// Who has an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::policy) struct Owner {
    /// None: it is outside of the cluster and serves the Kubernetes API.
    pub(in crate::policy) key: Option<IdentityKey>,
    pub(in crate::policy) source: IpcacheSource,
    /// Named ports of the pods there.
    pub(in crate::policy) ports: Vec<NamedPort>,
}

impl Addresses {
    pub(super) fn new(failsafe: &[IpNet]) -> Self {
        let mut failsafe = failsafe.to_vec();
        failsafe.sort_by_key(|prefix| std::cmp::Reverse(prefix.prefix_len()));
        Self {
            facts: OrdMap::new(),
            known: OrdMap::new(),
            members: OrdSet::new(),
            apiservers: OrdSet::new(),
            nodes_apart: false,
            ports: OrdMap::new(),
            failsafe: failsafe.into(),
        }
    }

    pub(super) fn add(&mut self, address: IpAddr, fact: Fact) {
        if fact.0 == Strength::KubernetesService {
            self.apiservers.insert(address);
        }
        self.facts.entry(address).or_default().insert(fact);
    }

    pub(super) fn remove(&mut self, address: IpAddr, fact: &Fact) {
        let Some(facts) = self.facts.get_mut(&address) else {
            return;
        };
        facts.remove(fact);
        // The weakest word sorts last.
        let weakest = facts.get_max().map(|(strength, _)| *strength);
        if weakest != Some(Strength::KubernetesService) {
            self.apiservers.remove(&address);
        }
        if weakest.is_none() {
            self.facts.remove(&address);
        }
    }

    /// Whether an identity of nodes or pods has an address.
    pub(super) fn has_members(&self, index: IdentityIndex) -> bool {
        self.members_of(index).next().is_some()
    }
    /// The addresses of an identity of nodes or pods.
    pub(super) fn members_of(&self, index: IdentityIndex) -> impl Iterator<Item = IpAddr> {
        // The least address sorts first.
        let first = (index, IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        self.members
            .range(first..)
            .take_while(move |(found, _)| *found == index)
            .map(|(_, address)| *address)
    }
    /// Addresses of other nodes.
    pub(super) fn of_nodes(&self) -> impl Iterator<Item = IpAddr> {
        let is_node = |fact: &Fact| matches!(fact.0, Strength::Node | Strength::CiliumNode);
        self.facts
            .iter()
            .filter(move |(_, facts)| facts.iter().any(is_node))
            .map(|(address, _)| *address)
    }
    /// Named ports of pods with these labels.
    pub(super) fn ports_of(&self, labels: &Arc<LabelSet>) -> impl Iterator<Item = &NamedPort> {
        let least = NamedPort {
            name: String::new(),
            protocol: PortProtocol::Tcp,
            port: 0,
        };
        let labels = Arc::clone(labels);
        self.ports
            .range((Arc::clone(&labels), least)..)
            .take_while(move |((found, _), _)| *found == labels)
            .map(|((_, port), _)| port)
    }
    fn failsafe_around(&self, address: IpAddr) -> Option<IpNet> {
        let mut around = self.failsafe.iter();
        around.find(|prefix| prefix.contains(&address)).copied()
    }
}

impl State {
    /// Whether the Kubernetes API is on this host.
    pub(super) fn host_serves_api(&self) -> bool {
        let mut addresses = self.addresses.apiservers.iter();
        addresses.any(|address| {
            let owner = self.owner(*address).and_then(|owner| owner.key);
            owner == Some(IdentityKey::Reserved(Reserved::Host))
        })
    }

    /// How strong the word of an object is.
    pub(super) fn strength(&self, key: &ResourceKey) -> Strength {
        let own = key.name == self.options.node_name;
        match key.kind {
            ResourceKind::CiliumNode if own => Strength::OwnCiliumNode,
            ResourceKind::CiliumNode => Strength::CiliumNode,
            ResourceKind::CiliumEndpoint => Strength::CiliumEndpoint,
            ResourceKind::Node if own => Strength::OwnNode,
            ResourceKind::Node => Strength::Node,
            ResourceKind::EndpointSlice => Strength::KubernetesService,
            ResourceKind::Pod
            | ResourceKind::CiliumClusterwideNetworkPolicy
            | ResourceKind::CiliumNetworkPolicy
            | ResourceKind::CiliumCIDRGroup
            | ResourceKind::Namespace
            | ResourceKind::Service
            | ResourceKind::CiliumIdentity => Strength::Pod,
        }
    }

    /// Who has an address; None: nobody who is known.
    pub(super) fn owner(&self, address: IpAddr) -> Option<Owner> {
        let facts = self.addresses.facts.get(&address)?;
        let serves_api = self.addresses.apiservers.contains(&address);
        let (strength, key) = facts.get_min()?;
        let (key, source) = match (strength, key) {
            (Strength::Local, _) => (
                Some(IdentityKey::Reserved(Reserved::Host)),
                IpcacheSource::Local,
            ),
            (Strength::OwnCiliumNode, _) => (
                Some(IdentityKey::Reserved(Reserved::Host)),
                IpcacheSource::CustomResource,
            ),
            (Strength::OwnNode, _) => (
                Some(IdentityKey::Reserved(Reserved::Host)),
                IpcacheSource::K8s,
            ),
            (Strength::CiliumNode, Some(key)) => (
                Some(self.node_key(&key.name, address, serves_api)),
                self.custom_source(key),
            ),
            (Strength::Node, Some(key)) => (
                Some(self.node_key(&key.name, address, serves_api)),
                IpcacheSource::K8s,
            ),
            // The word about the Kubernetes API is stronger than that of pods.
            (Strength::CiliumEndpoint, Some(key)) => (
                self.pod_key(key, address).filter(|_| !serves_api),
                self.custom_source(key),
            ),
            (Strength::Pod, Some(key)) => (
                self.pod_key(key, address).filter(|_| !serves_api),
                IpcacheSource::K8s,
            ),
            (Strength::KubernetesService, _) | (_, None) => (None, IpcacheSource::KubeApiserver),
        };
        let of_pods = key.as_ref().and_then(IdentityKey::labels_of_pods);
        let ports = of_pods.map_or_else(Vec::new, |_| self.ports_of(facts));
        Some(Owner {
            key,
            source: if serves_api {
                IpcacheSource::KubeApiserver
            } else {
                source
            },
            ports,
        })
    }

    /// Who speaks through a custom resource: etcd's keys are read as such too.
    fn custom_source(&self, key: &ResourceKey) -> IpcacheSource {
        let stored = self.objects.get(key);
        if stored.is_some_and(|stored| stored.resource.source == SourceName::Etcd) {
            IpcacheSource::Kvstore
        } else {
            IpcacheSource::CustomResource
        }
    }

    fn node_key(&self, name: &str, address: IpAddr, serves_api: bool) -> IdentityKey {
        let reserved = if serves_api {
            Reserved::KubeApiserver
        } else {
            Reserved::RemoteNode
        };
        let mut labels = reserved.labels();
        if self.addresses.nodes_apart {
            let mut written: BTreeMap<&str, &str> = BTreeMap::new();
            // Where both objects have a label, the Node's counts.
            for kind in [ResourceKind::CiliumNode, ResourceKind::Node] {
                let key = ResourceKey {
                    kind,
                    namespace: None,
                    name: name.to_owned(),
                };
                if let Some(Object::Node(node)) = self.object(&key) {
                    let of_object = node.labels.iter();
                    written.extend(of_object.map(|(key, value)| (key.as_str(), value.as_str())));
                }
            }
            for (key, value) in written {
                labels.insert(Label::new("node", key, value));
            }
        }
        let within = if self.options.cidr_match_nodes {
            Some(IpNet::from(address))
        } else {
            self.addresses.failsafe_around(address)
        };
        IdentityKey::node(Arc::new(labels), within)
    }

    fn pod_key(&self, key: &ResourceKey, address: IpAddr) -> Option<IdentityKey> {
        let labels = match self.object(key)? {
            Object::Pod(pod) => self.pod_labels(key, pod),
            Object::Endpoint(endpoint) => self.endpoint_labels(endpoint),
            Object::Node(_)
            | Object::Namespace(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Identity(_)
            | Object::CidrGroup(_) => return None,
        };
        let within = self.addresses.failsafe_around(address);
        Some(IdentityKey::workload(Arc::new(labels), within))
    }

    fn pod_labels(&self, key: &ResourceKey, pod: &PodObject) -> LabelSet {
        let namespace = key.namespace.as_deref().unwrap_or("default");
        let mut written: BTreeMap<String, &str> = BTreeMap::new();
        for (key, value) in &pod.labels {
            // What Cilium says of a namespace, no pod can say of itself.
            if !key.starts_with(NAMESPACE_LABELS) {
                written.insert(key.clone(), value);
            }
        }
        let of_namespace = ResourceKey {
            kind: ResourceKind::Namespace,
            namespace: None,
            name: namespace.to_owned(),
        };
        if let Some(Object::Namespace(object)) = self.object(&of_namespace) {
            for (key, value) in &object.labels {
                written.insert(format!("{NAMESPACE_LABELS}.{key}"), value);
            }
        }
        written.insert(NAMESPACE_KEY.to_owned(), namespace);
        written.insert(CLUSTER_KEY.to_owned(), &self.options.cluster_name);
        written.insert(SERVICE_ACCOUNT_KEY.to_owned(), &pod.service_account);
        written
            .into_iter()
            .filter(|(key, _)| is_identity_label(key))
            .map(|(key, value)| Label::new("k8s", key, value))
            .collect()
    }

    /// The CiliumIdentity of the number knows best.
    fn endpoint_labels(&self, endpoint: &EndpointObject) -> LabelSet {
        let identity = endpoint.identity.map(identity_object);
        match identity.and_then(|key| self.object(&key)) {
            Some(Object::Identity(identity)) => identity.labels.clone(),
            _ => endpoint.labels.clone(),
        }
    }

    fn ports_of(&self, facts: &OrdSet<Fact>) -> Vec<NamedPort> {
        let mut ports = Vec::new();
        for key in facts.iter().filter_map(|(_, key)| key.as_ref()) {
            match self.object(key) {
                Some(Object::Pod(pod)) => ports.extend(pod.named_ports.iter().cloned()),
                Some(Object::Endpoint(endpoint)) => {
                    ports.extend(endpoint.named_ports.iter().cloned());
                }
                _ => {}
            }
        }
        ports.sort();
        ports.dedup();
        ports
    }

    pub(super) fn object(&self, key: &ResourceKey) -> Option<&Object> {
        self.objects.get(key).map(|stored| &stored.object)
    }
}
