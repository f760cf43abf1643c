//! The identity of each address: prefix -> identity. Who wins among those that
//! speak of one address, the repository decides.

use std::net::IpAddr;

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{IdentityIndex, IdentityNumber, LiveIdentity};

/// Identity of one prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpcacheEntry {
    pub identity: IdentityNumber,
    pub index: IdentityIndex,
}

impl From<&LiveIdentity> for IpcacheEntry {
    fn from(identity: &LiveIdentity) -> Self {
        Self {
            identity: identity.number,
            index: identity.index,
        }
    }
}

/// Writers, strongest first (Cilium's precedence).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpcacheSource {
    KubeApiserver,
    /// Addresses of this machine, from netlink.
    Local,
    Kvstore,
    /// CiliumNode objects.
    CustomResource,
    /// Node objects.
    K8s,
    Clustermesh,
    Directory,
    Api,
    /// Prefixes that rules name.
    Generated,
    Restored,
    /// The world.
    Unspec,
}

impl IpcacheSource {
    /// Cilium's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::Local => "local",
            Self::Kvstore => "kvstore",
            Self::CustomResource => "custom-resource",
            Self::K8s => "k8s",
            Self::Clustermesh => "clustermesh",
            Self::Directory => "directory",
            Self::Api => "api",
            Self::Generated => "generated",
            Self::Restored => "restored",
            Self::Unspec => "default",
        }
    }
}

/// The entries that the datapath is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ipcache {
    v4: OrdMap<Ipv4Net, IpcacheEntry>,
    v6: OrdMap<Ipv6Net, IpcacheEntry>,
    changes: u64,
}

impl Ipcache {
    /// IPv4 entries.
    #[must_use]
    pub fn v4(&self) -> OrdMap<Ipv4Net, IpcacheEntry> {
        self.v4.clone()
    }
    /// IPv6 entries.
    #[must_use]
    pub fn v6(&self) -> OrdMap<Ipv6Net, IpcacheEntry> {
        self.v6.clone()
    }
    /// Rises with each change of an entry.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Makes the entry of a prefix what it shall be.
    pub fn set(&mut self, prefix: IpNet, entry: Option<IpcacheEntry>) {
        let changed = match prefix {
            IpNet::V4(prefix) => put(&mut self.v4, prefix, entry),
            IpNet::V6(prefix) => put(&mut self.v6, prefix, entry),
        };
        self.changes += u64::from(changed);
    }
}

/// Sets or removes an entry; whether that changed anything.
fn put<P: Copy + Ord>(
    entries: &mut OrdMap<P, IpcacheEntry>,
    prefix: P,
    entry: Option<IpcacheEntry>,
) -> bool {
    if entries.get(&prefix).copied() == entry {
        return false;
    }
    match entry {
        Some(entry) => entries.insert(prefix, entry),
        None => entries.remove(&prefix),
    };
    true
}

/// The entry of the longest prefix that holds an address.
#[must_use]
pub fn longest_match(
    v4: &OrdMap<Ipv4Net, IpcacheEntry>,
    v6: &OrdMap<Ipv6Net, IpcacheEntry>,
    address: IpAddr,
) -> Option<(IpNet, IpcacheEntry)> {
    match address {
        IpAddr::V4(address) => (0..=32).rev().find_map(|length| {
            let prefix = Ipv4Net::new(address, length).ok()?.trunc();
            let entry = v4.get(&prefix)?;
            Some((IpNet::V4(prefix), *entry))
        }),
        IpAddr::V6(address) => (0..=128).rev().find_map(|length| {
            let prefix = Ipv6Net::new(address, length).ok()?.trunc();
            let entry = v6.get(&prefix)?;
            Some((IpNet::V6(prefix), *entry))
        }),
    }
}
