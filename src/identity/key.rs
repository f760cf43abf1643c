//! What an identity stands for.

use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IdentityIndex, IdentityNumber, Label, LabelSet, Reserved};

/// What an identity stands for. Equal keys are one identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IdentityKey {
    /// One of the fixed ones, except world-ipv4 and world-ipv6: those are the
    /// prefixes 0.0.0.0/0 and ::/0.
    Reserved(Reserved),
    /// What is outside of the cluster, within a prefix that is listed and
    /// within none longer that is.
    Cidr(IpNet),
    /// Other nodes with these labels; the plain ones are reserved identities.
    /// `within`: only those with addresses in the prefix.
    Node {
        labels: Arc<LabelSet>,
        within: Option<IpNet>,
    },
    /// Pods with these labels.
    Workload {
        labels: Arc<LabelSet>,
        within: Option<IpNet>,
    },
}

/// Reserved identities that endpoints of Cilium can have.
const OF_ENDPOINTS: [Reserved; 4] = [
    Reserved::Unmanaged,
    Reserved::Health,
    Reserved::Init,
    Reserved::Ingress,
];

impl IdentityKey {
    /// Other nodes, of which nothing more is known or asked.
    #[must_use]
    pub fn node(labels: Arc<LabelSet>, within: Option<IpNet>) -> Self {
        let plain = |reserved: Reserved| within.is_none() && *labels == reserved.labels();
        if plain(Reserved::RemoteNode) {
            Self::Reserved(Reserved::RemoteNode)
        } else if plain(Reserved::KubeApiserver) {
            Self::Reserved(Reserved::KubeApiserver)
        } else {
            Self::Node { labels, within }
        }
    }

    /// Pods; those that have nothing but a reserved label are a reserved identity.
    #[must_use]
    pub fn workload(labels: Arc<LabelSet>, within: Option<IpNet>) -> Self {
        let plain = |reserved: &Reserved| within.is_none() && *labels == reserved.labels();
        match OF_ENDPOINTS.into_iter().find(plain) {
            Some(reserved) => Self::Reserved(reserved),
            None => Self::Workload { labels, within },
        }
    }

    /// The labels of the pods that have it; None for identities that no pod has.
    #[must_use]
    pub fn labels_of_pods(&self) -> Option<Arc<LabelSet>> {
        match self {
            Self::Workload { labels, .. } => Some(Arc::clone(labels)),
            Self::Reserved(reserved) => OF_ENDPOINTS
                .contains(reserved)
                .then(|| Arc::new(reserved.labels())),
            Self::Cidr(_) | Self::Node { .. } => None,
        }
    }

    /// The prefix that all its addresses are in, if it is about one.
    #[must_use]
    pub fn prefix(&self) -> Option<IpNet> {
        match self {
            Self::Reserved(_) => None,
            Self::Cidr(prefix) => Some(*prefix),
            Self::Node { within, .. } | Self::Workload { within, .. } => *within,
        }
    }

    /// Identities whose number and index are fixed.
    pub(super) fn fixed(&self) -> Option<Allocated> {
        let reserved = match self {
            Self::Reserved(reserved) => *reserved,
            Self::Cidr(prefix) if prefix.prefix_len() > 0 => return None,
            Self::Cidr(IpNet::V4(_)) => Reserved::WorldIpv4,
            Self::Cidr(IpNet::V6(_)) => Reserved::WorldIpv6,
            Self::Node { .. } | Self::Workload { .. } => return None,
        };
        Some(Allocated::reserved(reserved))
    }
}

/// Number and index of a live identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocated {
    pub number: IdentityNumber,
    pub index: IdentityIndex,
}

impl Allocated {
    /// Those of a reserved identity: both are its fixed number.
    #[must_use]
    pub fn reserved(reserved: Reserved) -> Self {
        let number = reserved.number();
        Self {
            number,
            index: IdentityIndex(number.0),
        }
    }
}

/// A key as the journal's snapshot holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeyRecord {
    Cidr(IpNet),
    /// Layout 1: nodes within the prefix of a failsafe entry.
    RemoteNode(IpNet),
    Node {
        labels: LabelSet,
        within: Option<IpNet>,
    },
    Workload {
        labels: LabelSet,
        within: Option<IpNet>,
    },
}

impl KeyRecord {
    /// None for identities whose number is fixed anyway.
    pub(super) fn of(key: &IdentityKey) -> Option<Self> {
        match key {
            IdentityKey::Reserved(_) => None,
            IdentityKey::Cidr(prefix) => (prefix.prefix_len() > 0).then_some(Self::Cidr(*prefix)),
            IdentityKey::Node { labels, within } => Some(Self::Node {
                labels: LabelSet::clone(labels),
                within: *within,
            }),
            IdentityKey::Workload { labels, within } => Some(Self::Workload {
                labels: LabelSet::clone(labels),
                within: *within,
            }),
        }
    }

    pub(super) fn key(&self) -> IdentityKey {
        match self {
            Self::Cidr(prefix) => IdentityKey::Cidr(*prefix),
            Self::RemoteNode(prefix) => IdentityKey::Node {
                labels: Arc::new(Reserved::RemoteNode.labels()),
                within: Some(*prefix),
            },
            Self::Node { labels, within } => IdentityKey::Node {
                labels: Arc::new(labels.clone()),
                within: *within,
            },
            Self::Workload { labels, within } => IdentityKey::Workload {
                labels: Arc::new(labels.clone()),
                within: *within,
            },
        }
    }
}

impl Reserved {
    /// The labels of an identity that has no others.
    #[must_use]
    pub fn labels(self) -> LabelSet {
        let own = Label::reserved(self.name());
        let more = match self {
            Self::KubeApiserver => Some(Self::RemoteNode),
            Self::WorldIpv4 | Self::WorldIpv6 => Some(Self::World),
            Self::Unknown
            | Self::Host
            | Self::World
            | Self::Unmanaged
            | Self::Health
            | Self::Init
            | Self::RemoteNode
            | Self::Ingress => None,
        };
        let more = more.map(|reserved| Label::reserved(reserved.name()));
        std::iter::once(own).chain(more).collect()
    }

    /// The same, made once: each of 100,000 prefixes is asked for them.
    #[must_use]
    pub fn shared_labels(self) -> Arc<LabelSet> {
        static MADE: LazyLock<[Arc<LabelSet>; Reserved::ALL.len()]> =
            LazyLock::new(|| Reserved::ALL.map(|reserved| Arc::new(reserved.labels())));
        Arc::clone(&MADE[self as usize])
    }
}
