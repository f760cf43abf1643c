//! Input of the pipeline: one change of one resource.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::body::Body;

/// Kinds of objects that Palisade reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ResourceKind {
    CiliumClusterwideNetworkPolicy,
    CiliumNetworkPolicy,
    CiliumCIDRGroup,
    Node,
    CiliumNode,
    Namespace,
    Pod,
    Service,
    EndpointSlice,
    CiliumIdentity,
    CiliumEndpoint,
}

impl ResourceKind {
    /// The `kind:` field of the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumCIDRGroup => "CiliumCIDRGroup",
            Self::Node => "Node",
            Self::CiliumNode => "CiliumNode",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::CiliumIdentity => "CiliumIdentity",
            Self::CiliumEndpoint => "CiliumEndpoint",
        }
    }

    /// Whether the object holds rules; the others are what rules talk about.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::CiliumClusterwideNetworkPolicy | Self::CiliumNetworkPolicy
        )
    }

    /// Whether an object of the kind lives in a namespace.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        matches!(
            self,
            Self::CiliumNetworkPolicy
                | Self::Pod
                | Self::Service
                | Self::EndpointSlice
                | Self::CiliumEndpoint
        )
    }
}

/// Name of one resource, whatever source it comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ResourceKey {
    pub kind: ResourceKind,
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub name: String,
}

impl std::fmt::Display for ResourceKey {
    /// `Kind/name` or `Kind/namespace/name`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{}/{}", self.kind.as_str(), self.name),
        }
    }
}

/// Where a resource came from. The first source to own a key keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceName {
    Manifests,
    Kubernetes,
    Etcd,
    Api,
    /// This node itself: netlink and the agent's configuration.
    Local,
}

impl SourceName {
    /// The word in messages and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Api => "api",
            Self::Local => "local",
        }
    }
}

/// Place of a document, for messages: file (or URL), document, line.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    pub file: String,
    /// Zero-based number of the document in the file.
    pub document: usize,
    /// One-based line at which the document begins.
    pub line: usize,
    /// Of a policy: the one-based line of each rule item, by its path
    /// (`spec.ingress[0]`, `specs[1].egressDeny[2]`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub item_lines: BTreeMap<String, usize>,
}

/// One object as its source gave it: well-formed, not yet validated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Resource {
    pub key: ResourceKey,
    pub source: SourceName,
    pub origin: Origin,
    pub body: Body,
}

/// An event of the RepositoryChangeQueue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum RepositoryChange {
    /// The resource is new or replaces the one of the same key: one revision.
    Upsert(Resource),
    /// The resource is gone. Deleting an unknown one changes nothing.
    Delete {
        key: ResourceKey,
        source: SourceName,
    },
    /// The unicast addresses of this node as netlink tells them, all at once.
    LocalAddresses(Vec<IpAddr>),
    /// The labels of `--node-labels`, all at once.
    NodeLabels(BTreeMap<String, String>),
}

impl RepositoryChange {
    /// The resource that changes; None for what the node itself says.
    #[must_use]
    pub fn key(&self) -> Option<&ResourceKey> {
        match self {
            Self::Upsert(resource) => Some(&resource.key),
            Self::Delete { key, .. } => Some(key),
            Self::LocalAddresses(_) | Self::NodeLabels(_) => None,
        }
    }
    /// The source that says so.
    #[must_use]
    pub fn source(&self) -> SourceName {
        match self {
            Self::Upsert(resource) => resource.source,
            Self::Delete { source, .. } => *source,
            Self::LocalAddresses(_) | Self::NodeLabels(_) => SourceName::Local,
        }
    }
    /// What changes, in words, for logs and history.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Upsert(resource) => resource.key.to_string(),
            Self::Delete { key, .. } => key.to_string(),
            Self::LocalAddresses(_) => "local addresses".to_owned(),
            Self::NodeLabels(_) => "node labels".to_owned(),
        }
    }
}
