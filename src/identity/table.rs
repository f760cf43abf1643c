//! The live identities of one revision, ordered so that whatever lies within
//! a prefix stands together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{
    Allocated, IdentityAllocator, IdentityIndex, IdentityKey, IdentityNumber, Label, LabelSet,
    Reserved,
};

/// A live identity, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Identity {
    pub number: IdentityNumber,
    pub index: IdentityIndex,
    pub labels: Arc<LabelSet>,
}

/// What a live identity is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityKind {
    /// One of the fixed ones, except the two below.
    Reserved(Reserved),
    /// Outside of the cluster, within the prefix and within none longer that is
    /// listed. 0.0.0.0/0 and ::/0 are world-ipv4 and world-ipv6.
    Cidr(IpNet),
    /// Nodes within the prefix of a failsafe entry.
    RemoteNode(IpNet),
}

/// A live identity, for machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveIdentity {
    pub kind: IdentityKind,
    pub number: IdentityNumber,
    pub index: IdentityIndex,
}

/// All live identities; immutable, part of a policy snapshot.
///
/// Order: reserved ones by number, then world-ipv4 and the IPv4 prefixes by
/// address and length, then the same for IPv6, then nodes by prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityTable {
    identities: Vec<LiveIdentity>,
    /// Where IPv4, IPv6 and nodes begin.
    starts: [usize; 3],
    by_number: HashMap<IdentityNumber, usize>,
    /// Whether a rule names 0.0.0.0/0, ::/0.
    all_listed: [bool; 2],
    host_labels: Arc<LabelSet>,
}

impl Default for IdentityTable {
    fn default() -> Self {
        Self::new(&IdentityAllocator::default(), Arc::default())
    }
}

impl IdentityTable {
    /// The reserved identities and those of the allocator.
    #[must_use]
    pub fn new(allocator: &IdentityAllocator, host_labels: Arc<LabelSet>) -> Self {
        let live = |kind, allocated: Allocated| LiveIdentity {
            kind,
            number: allocated.number,
            index: allocated.index,
        };
        let mut identities = Vec::new();
        for reserved in Reserved::ALL {
            match reserved {
                Reserved::WorldIpv4 | Reserved::WorldIpv6 => {}
                Reserved::Unknown
                | Reserved::Host
                | Reserved::World
                | Reserved::Unmanaged
                | Reserved::Health
                | Reserved::Init
                | Reserved::RemoteNode
                | Reserved::KubeApiserver
                | Reserved::Ingress => identities.push(live(
                    IdentityKind::Reserved(reserved),
                    Allocated::reserved(reserved),
                )),
            }
        }
        let mut starts = [identities.len(), 0, 0];
        let families = [
            (IpNet::V4(Ipv4Net::default()), Reserved::WorldIpv4),
            (IpNet::V6(Ipv6Net::default()), Reserved::WorldIpv6),
        ];
        let mut nodes = Vec::new();
        let mut all_listed = [false; 2];
        for (family, (all, reserved)) in families.into_iter().enumerate() {
            starts[family] = identities.len();
            identities.push(live(IdentityKind::Cidr(all), Allocated::reserved(reserved)));
            for (key, allocated) in allocator.iter() {
                match key {
                    IdentityKey::Cidr(prefix)
                        if prefix.addr().is_ipv4() == all.addr().is_ipv4()
                            && prefix.prefix_len() > 0 =>
                    {
                        identities.push(live(IdentityKind::Cidr(prefix), allocated));
                    }
                    IdentityKey::Cidr(prefix) => all_listed[family] |= prefix == all,
                    IdentityKey::RemoteNode(prefix) if family == 0 => {
                        nodes.push(live(IdentityKind::RemoteNode(prefix), allocated));
                    }
                    IdentityKey::RemoteNode(_) => {}
                }
            }
        }
        starts[2] = identities.len();
        identities.extend(nodes);
        let by_number = identities
            .iter()
            .enumerate()
            .map(|(position, identity)| (identity.number, position))
            .collect();
        Self {
            identities,
            starts,
            by_number,
            all_listed,
            host_labels,
        }
    }

    /// All of them, in the table's order.
    #[must_use]
    pub fn live(&self) -> &[LiveIdentity] {
        &self.identities
    }

    /// Positions of all identities outside of the cluster (entity `world`),
    /// but for `reserved:world` itself.
    #[must_use]
    pub fn cidr_positions(&self) -> Range<usize> {
        self.starts[0]..self.starts[2]
    }

    /// Positions of the nodes that failsafe entries name.
    #[must_use]
    pub fn node_positions(&self) -> Range<usize> {
        self.starts[2]..self.identities.len()
    }

    /// Positions of the CIDR identities within a prefix.
    #[must_use]
    pub fn within(&self, prefix: IpNet) -> Range<usize> {
        let family = match prefix {
            IpNet::V4(_) => self.starts[0]..self.starts[1],
            IpNet::V6(_) => self.starts[1]..self.starts[2],
        };
        self.within_range(family, prefix)
    }

    /// Positions of the nodes within the prefix of a failsafe entry.
    #[must_use]
    pub fn nodes_within(&self, prefix: IpNet) -> Range<usize> {
        self.within_range(self.node_positions(), prefix)
    }

    /// Prefixes sort by address, then length: those within `prefix` stand
    /// between itself and the last address it holds.
    fn within_range(&self, range: Range<usize>, prefix: IpNet) -> Range<usize> {
        let part = &self.identities[range.clone()];
        let prefix_of = |identity: &LiveIdentity| match identity.kind {
            IdentityKind::Cidr(prefix) | IdentityKind::RemoteNode(prefix) => Some(prefix),
            IdentityKind::Reserved(_) => None,
        };
        let last: IpAddr = prefix.broadcast();
        let start = part.partition_point(|identity| prefix_of(identity) < Some(prefix));
        let end = part.partition_point(|identity| {
            prefix_of(identity).is_some_and(|other| {
                // Families do not compare by address in the nodes' part.
                match (other, prefix) {
                    (IpNet::V4(_), IpNet::V6(_)) => true,
                    (IpNet::V6(_), IpNet::V4(_)) => false,
                    (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)) => {
                        other.network() <= last
                    }
                }
            })
        });
        range.start + start..range.start + end.max(start)
    }

    /// All of them, in the table's order, with labels.
    pub fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        (0..self.identities.len()).map(|position| self.identity(position))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: IdentityNumber) -> Option<Identity> {
        self.by_number
            .get(&number)
            .map(|position| self.identity(*position))
    }

    /// How many are live, the reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len()
    }
    /// Never true: the reserved ones are always live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    fn identity(&self, position: usize) -> Identity {
        let live = self.identities[position];
        Identity {
            number: live.number,
            index: live.index,
            labels: self.labels(live),
        }
    }

    /// Labels are made when someone asks: a table of 100,000 prefixes is
    /// rebuilt on each change, and few of its labels are ever read.
    #[must_use]
    pub fn labels(&self, live: LiveIdentity) -> Arc<LabelSet> {
        let mut labels = LabelSet::default();
        match live.kind {
            IdentityKind::Reserved(Reserved::Host) => return Arc::clone(&self.host_labels),
            IdentityKind::Reserved(reserved) => {
                labels.insert(Label::reserved(reserved.name()));
                if reserved == Reserved::KubeApiserver {
                    labels.insert(Label::reserved(Reserved::RemoteNode.name()));
                }
            }
            IdentityKind::Cidr(prefix) => {
                labels.insert(Label::reserved(Reserved::World.name()));
                if live.number == Reserved::WorldIpv4.number() {
                    labels.insert(Label::reserved(Reserved::WorldIpv4.name()));
                } else if live.number == Reserved::WorldIpv6.number() {
                    labels.insert(Label::reserved(Reserved::WorldIpv6.name()));
                }
                if prefix.prefix_len() > 0 || self.all_listed[usize::from(prefix.addr().is_ipv6())]
                {
                    labels.insert(Label::new("cidr", prefix.to_string(), ""));
                }
                for around in self.around(prefix) {
                    labels.insert(Label::new("cidr", around.to_string(), ""));
                }
            }
            IdentityKind::RemoteNode(prefix) => {
                labels.insert(Label::reserved(Reserved::RemoteNode.name()));
                labels.insert(Label::new("cidr", prefix.to_string(), ""));
            }
        }
        Arc::new(labels)
    }

    /// The listed prefixes that contain `prefix`.
    fn around(&self, prefix: IpNet) -> impl Iterator<Item = IpNet> + '_ {
        let (family, all_listed) = match prefix {
            IpNet::V4(_) => (self.starts[0]..self.starts[1], self.all_listed[0]),
            IpNet::V6(_) => (self.starts[1]..self.starts[2], self.all_listed[1]),
        };
        // world-ipv4 and world-ipv6 stand first, listed or not.
        let first = if all_listed { 0 } else { 1 };
        let part = &self.identities[family.start + 1..family.end];
        (first..prefix.prefix_len()).filter_map(move |length| {
            let around = IpNet::new(prefix.addr(), length).ok()?.trunc();
            let found = part.binary_search_by(|identity| match identity.kind {
                IdentityKind::Cidr(other) => other.cmp(&around),
                IdentityKind::Reserved(_) | IdentityKind::RemoteNode(_) => std::cmp::Ordering::Less,
            });
            (found.is_ok() || length == 0 && all_listed).then_some(around)
        })
    }
}
