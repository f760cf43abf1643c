//! The rules, as validated.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::LabelSelector;
use crate::policy::{Direction, Section};

/// A validated policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// `spec` first, then `specs`.
    pub rules: Vec<Rule>,
    /// Annotation `palisade.io/enforcement: audit`: what it denies, by a rule or
    /// by default, is reported and passes; what it allows grants nothing.
    pub audit: bool,
}

/// One rule: a subject and its items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub subject: RuleSubject,
    /// `enableDefaultDeny`, by [`Direction`]; None where it is not written.
    pub default_deny: [Option<bool>; 2],
    /// All sections, in the order ingress, ingressDeny, egress, egressDeny.
    pub items: Vec<Item>,
    /// `log.value`: carried by the events of this rule.
    pub log: Option<String>,
}

impl Rule {
    /// Whether the rule has an item for the direction.
    #[must_use]
    pub fn has_items(&self, direction: Direction) -> bool {
        self.items
            .iter()
            .any(|item| item.section.direction() == Some(direction))
    }
}

/// Whom a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleSubject {
    /// `nodeSelector`: host endpoints.
    Node(LabelSelector),
    /// `endpointSelector`: workload endpoints; held, never selects the host.
    Endpoint(LabelSelector),
}

/// One item of a section: peers AND ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub section: Section,
    /// Zero-based, over all rules of the policy.
    pub index: usize,
    /// Where it stands in the object: `specs[1].ingressDeny[0]`.
    pub path: String,
    pub peers: Peers,
    pub ports: Ports,
}

impl Item {
    /// Whether it means the same to everyone: any peer, and no port whose number
    /// is the peer's. Of items that allow, or deny, these decide last.
    #[must_use]
    pub fn is_for_everyone(&self) -> bool {
        let of_peers = self.section.direction() == Some(Direction::Egress);
        self.peers.are_everyone() && !(of_peers && self.ports.have_names())
    }
}

/// The peers of an item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peers {
    /// No peer field is written, but ports are: everyone.
    Any,
    /// Any of these; empty selects nothing.
    Select(Vec<Peer>),
}

impl Peers {
    /// Whether they are everyone there is.
    #[must_use]
    pub fn are_everyone(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Select(peers) => peers.contains(&Peer::Entity(Entity::All)),
        }
    }
}

/// One peer selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    Entity(Entity),
    /// What is in `cidr` and in none of `except`.
    Cidr {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// What is in a prefix of the groups and in none of `except`.
    CidrGroup {
        groups: CidrGroups,
        except: Vec<IpNet>,
    },
    /// `fromEndpoints`, `toEndpoints`: whom the selector matches, by identity
    /// labels. What the namespace defaults add is part of the selector.
    Endpoints(LabelSelector),
    /// `fromNodes`, `toNodes`: other nodes, by their labels of source `node`.
    Nodes(LabelSelector),
    /// `toServices`: what stands behind services.
    Services(ServiceReference),
}

/// The CiliumCIDRGroups that a rule means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CidrGroups {
    /// `cidrGroupRef`
    Named(String),
    /// `cidrGroupSelector`, over the labels of the groups (source `k8s`).
    Labelled(LabelSelector),
}

/// The Services that a rule means. A service with a selector stands for the
/// pods that it selects in its namespace, one without for the addresses of its
/// EndpointSlices, as CIDRs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceReference {
    /// None: of any namespace.
    pub namespace: Option<String>,
    pub by: ServiceBy,
}

/// How services are named.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServiceBy {
    /// `k8sService.serviceName`
    Name(String),
    /// `k8sServiceSelector.selector`, over the labels of the services.
    Labels(LabelSelector),
}

/// Peers with names (REFERENCE.md of Cilium's entities).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entity {
    All,
    World,
    WorldIpv4,
    WorldIpv6,
    Cluster,
    ClusterMesh,
    Host,
    RemoteNode,
    KubeApiserver,
    Health,
    Init,
    Ingress,
    Unmanaged,
    None,
}

impl Entity {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::All,
        Self::World,
        Self::WorldIpv4,
        Self::WorldIpv6,
        Self::Cluster,
        Self::ClusterMesh,
        Self::Host,
        Self::RemoteNode,
        Self::KubeApiserver,
        Self::Health,
        Self::Init,
        Self::Ingress,
        Self::Unmanaged,
        Self::None,
    ];

    /// The word in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
            Self::Cluster => "cluster",
            Self::ClusterMesh => "cluster-mesh",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::KubeApiserver => "kube-apiserver",
            Self::Health => "health",
            Self::Init => "init",
            Self::Ingress => "ingress",
            Self::Unmanaged => "unmanaged",
            Self::None => "none",
        }
    }
}

impl Entity {
    /// The prefix that an entity is another name of: world-ipv4, world-ipv6.
    #[must_use]
    pub fn prefix(self) -> Option<IpNet> {
        match self {
            Self::WorldIpv4 => Some(IpNet::V4(Ipv4Net::default())),
            Self::WorldIpv6 => Some(IpNet::V6(Ipv6Net::default())),
            Self::All
            | Self::World
            | Self::Cluster
            | Self::ClusterMesh
            | Self::Host
            | Self::RemoteNode
            | Self::KubeApiserver
            | Self::Health
            | Self::Init
            | Self::Ingress
            | Self::Unmanaged
            | Self::None => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entity(entity) => write!(f, "entity {}", entity.as_str()),
            Self::Cidr { cidr, except } => {
                write!(f, "cidr {cidr}")?;
                write_except(f, except)
            }
            Self::CidrGroup { groups, except } => {
                match groups {
                    CidrGroups::Named(name) => write!(f, "cidr group {name}")?,
                    CidrGroups::Labelled(labels) => write!(f, "cidr groups {labels}")?,
                }
                write_except(f, except)
            }
            Self::Endpoints(selector) => write!(f, "endpoints {selector}"),
            Self::Nodes(selector) => write!(f, "nodes {selector}"),
            Self::Services(ServiceReference { namespace, by }) => {
                let namespace = namespace.as_deref().unwrap_or("*");
                match by {
                    ServiceBy::Name(name) => write!(f, "service {namespace}/{name}"),
                    ServiceBy::Labels(labels) => write!(f, "services {namespace}/{labels}"),
                }
            }
        }
    }
}

fn write_except(f: &mut std::fmt::Formatter<'_>, except: &[IpNet]) -> std::fmt::Result {
    for (number, prefix) in except.iter().enumerate() {
        let before = if number == 0 { " except " } else { ", " };
        write!(f, "{before}{prefix}")?;
    }
    Ok(())
}

/// The ports of an item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ports {
    /// Neither `toPorts` nor `icmps`: every protocol.
    All,
    /// Any of these; empty matches nothing.
    Some(Vec<L4Match>),
}

impl Ports {
    /// Whether a port is told by its name.
    #[must_use]
    pub fn have_names(&self) -> bool {
        match self {
            Self::All => false,
            Self::Some(matches) => matches.iter().any(|l4| matches!(l4, L4Match::Named { .. })),
        }
    }
}

/// Protocols with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    Tcp,
    Udp,
    Sctp,
}

impl PortProtocol {
    /// All of them: what `ANY` stands for.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
    /// The protocol of a word, in any case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word.to_ascii_uppercase().as_str() {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// One thing that `toPorts` or `icmps` can match.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum L4Match {
    /// Destination ports, both ends included.
    Ports {
        protocol: PortProtocol,
        first: u16,
        last: u16,
    },
    /// A port by its name, lower-case. Ingress: a named port of this host, from
    /// configuration. Egress: a named port of the peer's pods.
    Named {
        protocol: PortProtocol,
        name: String,
    },
    /// A protocol without ports, by IP protocol number.
    Protocol(u8),
    /// An ICMP type.
    Icmp(u8),
    /// An ICMPv6 type.
    Icmpv6(u8),
}

/// A port with a name: of a pod, or of this host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NamedPort {
    /// Lower-case.
    pub name: String,
    pub protocol: PortProtocol,
    pub port: u16,
}
