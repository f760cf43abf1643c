//! Numbers of identities.

use serde::{Deserialize, Serialize};

use super::DenseKey;

/// The number of an identity (Cilium's numeric space).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct IdentityNumber(pub u32);

impl IdentityNumber {
    /// First number that others may give to something that is not reserved.
    pub const GIVEN_FIRST: Self = Self(11);
    /// First and last number of pods that nobody else has numbered.
    pub const CLUSTER_FIRST: Self = Self(256);
    pub const CLUSTER_LAST: Self = Self(65_535);
    /// Where the numbers that others may give end.
    pub const GIVEN_END: Self = Self(1 << 24);
    /// First node-local CIDR identity (Cilium: scope 0x01).
    pub const LOCAL_FIRST: Self = Self((1 << 24) + 1);
    /// First node-local identity of remote nodes (Cilium: scope 0x02).
    pub const NODE_FIRST: Self = Self((2 << 24) + 1);
    /// First node-local number of pods that a cluster will number: until then no
    /// number of the cluster stands for them.
    pub const UNSHARED_FIRST: Self = Self((3 << 24) + 1);
}

impl std::fmt::Display for IdentityNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Dense number of a live identity on this node: its key in the verdict tables.
/// Index 0 is the unknown identity.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct IdentityIndex(pub u32);

impl DenseKey for IdentityNumber {
    fn number(self) -> u32 {
        self.0
    }
    fn of_number(number: u32) -> Self {
        Self(number)
    }
}

impl DenseKey for IdentityIndex {
    fn number(self) -> u32 {
        self.0
    }
    fn of_number(number: u32) -> Self {
        Self(number)
    }
}

/// Identities with fixed numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reserved {
    Unknown,
    Host,
    World,
    Unmanaged,
    Health,
    Init,
    RemoteNode,
    KubeApiserver,
    Ingress,
    WorldIpv4,
    WorldIpv6,
}

impl Reserved {
    /// All of them, by rising number: the number is the position.
    pub const ALL: [Self; 11] = [
        Self::Unknown,
        Self::Host,
        Self::World,
        Self::Unmanaged,
        Self::Health,
        Self::Init,
        Self::RemoteNode,
        Self::KubeApiserver,
        Self::Ingress,
        Self::WorldIpv4,
        Self::WorldIpv6,
    ];

    /// Its fixed number.
    #[must_use]
    pub fn number(self) -> IdentityNumber {
        IdentityNumber(self as u32)
    }

    /// Its name, as in the label `reserved:<name>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Host => "host",
            Self::World => "world",
            Self::Unmanaged => "unmanaged",
            Self::Health => "health",
            Self::Init => "init",
            Self::RemoteNode => "remote-node",
            Self::KubeApiserver => "kube-apiserver",
            Self::Ingress => "ingress",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
        }
    }
}
