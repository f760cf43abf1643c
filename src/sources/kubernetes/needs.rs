//! What the policies for a node need to know of the cluster, and how much of each
//! kind is asked for because of it. No I/O.
//!
//! A policy that takes all peers alike needs nothing. One that tells peers apart
//! needs to know who is who; also where it names addresses or `world`, for what
//! belongs to a pod or a node is neither.

use tokio::sync::watch;

use crate::events::ResourceKind;
use crate::identity::LabelSet;
use crate::policy::Direction;
use crate::policy::language::{
    Entity, Item, L4Match, LabelSelector, Peer, Peers, Policy, Ports, RuleSubject,
};

/// How much of a kind is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Scope {
    #[default]
    Nothing,
    /// What is needed whatever the policies are: the node itself, the API servers.
    Own,
    All,
}

/// What a feed is to ask for. Another number is another order, also where the
/// scope is the same: what was heard by the one before does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Order {
    pub(super) scope: Scope,
    pub(super) number: u32,
}

/// An order for everything, for feeds that need not be told.
pub(super) fn all() -> watch::Receiver<Order> {
    let scope = Scope::All;
    watch::channel(Order { scope, number: 0 }).1
}

/// What somebody needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Needs {
    /// Which addresses are nodes, and their labels.
    nodes: bool,
    /// Which addresses are pods, their labels and named ports.
    pods: bool,
    services: bool,
    groups: bool,
    /// Where the API servers are; asked for in any case.
    servers: bool,
}

/// A rule that needs something on the nodes that it selects.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    nodes: LabelSelector,
    needs: Needs,
}

impl Claim {
    /// What is needed where a node has these labels.
    pub(super) fn on(&self, labels: &LabelSet) -> Needs {
        if self.nodes.matches(labels) {
            self.needs
        } else {
            Needs::default()
        }
    }
}

/// The rules of a policy that need something somewhere.
pub(super) fn claims(policy: &Policy) -> Vec<Claim> {
    let rules = policy.rules.iter().filter_map(|rule| {
        let RuleSubject::Node(nodes) = &rule.subject else {
            return None;
        };
        let needs = rule.items.iter().map(of_item);
        let needs = needs.fold(Needs::default(), Needs::and);
        (needs != Needs::default()).then(|| Claim {
            nodes: nodes.clone(),
            needs,
        })
    });
    rules.collect()
}

impl Needs {
    const NODES: Self = Self {
        nodes: true,
        pods: false,
        services: false,
        groups: false,
        servers: false,
    };
    const PEERS: Self = Self {
        pods: true,
        ..Self::NODES
    };

    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes || other.nodes,
            pods: self.pods || other.pods,
            services: self.services || other.services,
            groups: self.groups || other.groups,
            servers: self.servers || other.servers,
        }
    }

    /// How much of a kind must be known before anything is judged by it. Whatever
    /// else is asked for may come later.
    pub(super) fn must_know(self, kind: ResourceKind) -> Scope {
        match (kind, self.scope(kind)) {
            (ResourceKind::EndpointSlice, Scope::Own) if self.servers => Scope::Own,
            (kind, Scope::All) if !kind.is_policy() => Scope::All,
            _ => Scope::Nothing,
        }
    }

    /// How much of a kind is asked for.
    pub(super) fn scope(self, kind: ResourceKind) -> Scope {
        let where_needed = |is_needed: bool, otherwise: Scope| {
            if is_needed { Scope::All } else { otherwise }
        };
        match kind {
            ResourceKind::CiliumClusterwideNetworkPolicy | ResourceKind::CiliumNetworkPolicy => {
                Scope::All
            }
            ResourceKind::Node | ResourceKind::CiliumNode => where_needed(self.nodes, Scope::Own),
            ResourceKind::Namespace
            | ResourceKind::Pod
            | ResourceKind::CiliumIdentity
            | ResourceKind::CiliumEndpoint => where_needed(self.pods, Scope::Nothing),
            ResourceKind::Service => where_needed(self.services, Scope::Nothing),
            ResourceKind::EndpointSlice => where_needed(self.services, Scope::Own),
            ResourceKind::CiliumCIDRGroup => where_needed(self.groups, Scope::Nothing),
        }
    }
}

fn of_item(item: &Item) -> Needs {
    let of_peers = match &item.peers {
        Peers::Any => Needs::default(),
        Peers::Select(peers) => peers.iter().map(of_peer).fold(Needs::default(), Needs::and),
    };
    let names_ports = match &item.ports {
        Ports::All => false,
        Ports::Some(ports) => ports
            .iter()
            .any(|port| matches!(port, L4Match::Named { .. })),
    };
    // Ports of this host have their names from its configuration.
    if names_ports && item.section.direction() == Some(Direction::Egress) {
        of_peers.and(Needs::PEERS)
    } else {
        of_peers
    }
}

fn of_peer(peer: &Peer) -> Needs {
    match peer {
        Peer::Entity(entity) => of_entity(*entity),
        Peer::Cidr { .. } | Peer::Endpoints(_) => Needs::PEERS,
        Peer::CidrGroup { .. } => Needs {
            groups: true,
            ..Needs::PEERS
        },
        Peer::Nodes(_) => Needs::NODES,
        Peer::Services(_) => Needs {
            services: true,
            ..Needs::PEERS
        },
    }
}

fn of_entity(entity: Entity) -> Needs {
    match entity {
        // Everyone, no one, this host.
        Entity::All | Entity::None | Entity::Host => Needs::default(),
        Entity::KubeApiserver => Needs {
            servers: true,
            ..Needs::default()
        },
        Entity::RemoteNode => Needs::NODES,
        Entity::World
        | Entity::WorldIpv4
        | Entity::WorldIpv6
        | Entity::Cluster
        | Entity::ClusterMesh
        | Entity::Health
        | Entity::Init
        | Entity::Ingress
        | Entity::Unmanaged => Needs::PEERS,
    }
}
