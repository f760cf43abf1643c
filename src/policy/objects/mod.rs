//! Context objects: what rules talk about, as read from manifests or an API.
//!
//! Plain data. Unknown fields are ignored: these objects are others' words, and
//! only the parts below matter here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::language::{NamedPort, NodeObject};
use crate::identity::LabelSet;

/// A context object, by kind. Name and namespace are those of its resource key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// Node or CiliumNode.
    Node(NodeObject),
    Namespace(NamespaceObject),
    Pod(PodObject),
    Service(ServiceObject),
    EndpointSlice(EndpointSliceObject),
    Identity(IdentityObject),
    Endpoint(EndpointObject),
    CidrGroup(CidrGroupObject),
}

/// A Namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceObject {
    /// They stand on its pods as `io.cilium.k8s.namespace.labels.<key>`.
    pub labels: BTreeMap<String, String>,
}

/// A Pod.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodObject {
    pub labels: BTreeMap<String, String>,
    /// `status.podIPs` (or `podIP`), sorted; empty for pods in the host's network
    /// and for those that have ended, whose addresses may be another's by now.
    pub addresses: Vec<IpAddr>,
    /// `default` where none is written.
    pub service_account: String,
    /// `ports[]` with names, of all containers; sorted.
    pub named_ports: Vec<NamedPort>,
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceObject {
    pub labels: BTreeMap<String, String>,
    /// Empty: its EndpointSlices are made by hand.
    pub selector: BTreeMap<String, String>,
}

/// An EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointSliceObject {
    /// Label `kubernetes.io/service-name`; the service stands in its namespace.
    pub service: Option<String>,
    /// Sorted, without duplicates.
    pub addresses: Vec<IpAddr>,
}

/// A CiliumIdentity; its name is the number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityObject {
    /// `security-labels`
    pub labels: LabelSet,
}

/// A CiliumEndpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointObject {
    /// `status.networking.addressing`, sorted.
    pub addresses: Vec<IpAddr>,
    /// `status.identity.id`; None while Cilium has not assigned one.
    pub identity: Option<u32>,
    /// `status.identity.labels`; a CiliumIdentity of that number knows better.
    pub labels: LabelSet,
    /// `status.named-ports`, sorted.
    pub named_ports: Vec<NamedPort>,
}

/// A CiliumCIDRGroup.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CidrGroupObject {
    pub labels: BTreeMap<String, String>,
    /// `spec.externalCIDRs`, masked, sorted, without duplicates.
    pub cidrs: Vec<IpNet>,
}
