//! The identity of each address: prefix -> identity, by source precedence.
//!
//! Several writers may claim one prefix; the strongest source wins, and the
//! next one takes over when it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Allocated, IdentityIndex, IdentityNumber, Reserved};

/// Identity of one prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpcacheEntry {
    pub identity: IdentityNumber,
    pub index: IdentityIndex,
}

impl From<Allocated> for IpcacheEntry {
    fn from(allocated: Allocated) -> Self {
        Self {
            identity: allocated.number,
            index: allocated.index,
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

/// One writer's word on one prefix. Its order is the precedence; the lower
/// identity wins among equal sources.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IpcacheClaim {
    pub source: IpcacheSource,
    pub identity: IdentityNumber,
    pub index: IdentityIndex,
    /// Who says so, where several of one source may: `Node/a`.
    pub owner: Arc<str>,
}

/// All claims, and the entries that follow from them.
#[derive(Clone, Debug)]
pub struct Ipcache {
    claims: BTreeMap<IpNet, BTreeSet<IpcacheClaim>>,
    v4: OrdMap<Ipv4Net, IpcacheEntry>,
    v6: OrdMap<Ipv6Net, IpcacheEntry>,
    changes: u64,
}

impl Default for Ipcache {
    /// Everything is world.
    fn default() -> Self {
        let mut ipcache = Self {
            claims: BTreeMap::new(),
            v4: OrdMap::new(),
            v6: OrdMap::new(),
            changes: 0,
        };
        let world = Allocated::reserved(Reserved::World);
        for prefix in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            ipcache.claim(
                prefix,
                IpcacheClaim {
                    source: IpcacheSource::Unspec,
                    identity: world.number,
                    index: world.index,
                    owner: Arc::from(""),
                },
            );
        }
        ipcache
    }
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

    /// Adds a claim.
    pub fn claim(&mut self, prefix: IpNet, claim: IpcacheClaim) {
        self.claims.entry(prefix).or_default().insert(claim);
        self.settle(prefix);
    }

    /// Withdraws a claim.
    pub fn withdraw(&mut self, prefix: IpNet, claim: &IpcacheClaim) {
        if let Some(claims) = self.claims.get_mut(&prefix) {
            claims.remove(claim);
            if claims.is_empty() {
                self.claims.remove(&prefix);
            }
            self.settle(prefix);
        }
    }

    /// Makes the entry of a prefix what its strongest claim says.
    fn settle(&mut self, prefix: IpNet) {
        let entry = self
            .claims
            .get(&prefix)
            .and_then(BTreeSet::first)
            .map(|claim| IpcacheEntry {
                identity: claim.identity,
                index: claim.index,
            });
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

#[cfg(test)]
mod tests {
    use super::{
        IdentityIndex, IdentityNumber, Ipcache, IpcacheClaim, IpcacheSource, longest_match,
    };

    fn claim(source: IpcacheSource, identity: u32, owner: &str) -> IpcacheClaim {
        IpcacheClaim {
            source,
            identity: IdentityNumber(identity),
            index: IdentityIndex(identity),
            owner: owner.into(),
        }
    }

    #[test]
    fn the_strongest_claim_wins_and_the_next_takes_over() {
        use IpcacheSource::{CustomResource, Generated, K8s, Local};
        let mut ipcache = Ipcache::default();
        let prefix = "10.0.0.5/32".parse().expect("a prefix");
        let who = |ipcache: &Ipcache, address: &str| {
            let address = address.parse().expect("an address");
            longest_match(&ipcache.v4(), &ipcache.v6(), address).map(|(_, entry)| entry.identity.0)
        };
        assert_eq!(who(&ipcache, "10.0.0.5"), Some(2));
        assert_eq!(who(&ipcache, "2001:db8::1"), Some(2));
        let steps = [
            (claim(Generated, 16_777_217, ""), 16_777_217),
            (claim(K8s, 6, "Node/b"), 6),
            (claim(K8s, 6, "Node/c"), 6),
            (claim(CustomResource, 6, "CiliumNode/b"), 6),
            (claim(Local, 1, ""), 1),
        ];
        for (claim, expected) in &steps {
            ipcache.claim(prefix, claim.clone());
            assert_eq!(who(&ipcache, "10.0.0.5"), Some(*expected), "{claim:?}");
        }
        let before = ipcache.changes();
        for (claim, expected) in [(&steps[4].0, 6), (&steps[3].0, 6), (&steps[1].0, 6)] {
            ipcache.withdraw(prefix, claim);
            assert_eq!(who(&ipcache, "10.0.0.5"), Some(expected), "{claim:?}");
        }
        assert_eq!(ipcache.changes(), before + 1);
        ipcache.withdraw(prefix, &steps[2].0);
        ipcache.withdraw(prefix, &steps[0].0);
        assert_eq!(who(&ipcache, "10.0.0.5"), Some(2));
    }
}
