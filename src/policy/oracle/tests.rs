//! The plain reading of objects, peers, named ports and policies in audit, on
//! snapshots made by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Book, Judgement, Outcome, Term, judge, misses};
use crate::events::{EndpointId, Origin, Resource, ResourceKey, ResourceKind, SourceName};
use crate::identity::{Label, LabelSet};
use crate::policy::language::{
    CidrGroups, Entity, Item, L4Match, LabelSelector, NamedPort, Operator, Peer, Peers, Policy,
    PortProtocol, Ports, Requirement, Rule, RuleSubject, ServiceBy, ServiceReference,
};
use crate::policy::objects::{
    CidrGroupObject, EndpointObject, EndpointSliceObject, IdentityObject, NamespaceObject,
    NodeObject, Object, PodObject, ServiceObject,
};
use crate::policy::{
    Direction, EnforcementMode, Packet, PolicyOptions, PolicySnapshot, Repository, Section,
    StoredObject, StoredPolicy, Subject,
};

pub(in crate::policy) const HOST: Subject = Subject::Host(EndpointId(1));
const PORT_80: Packet = Packet::Port { proto: 6, port: 80 };

pub(in crate::policy) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| address(text)).collect()
}

fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = list.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn resource(kind: ResourceKind, namespace: Option<&str>, name: &str) -> Arc<Resource> {
    Arc::new(Resource {
        key: ResourceKey {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        },
        source: SourceName::Manifests,
        origin: Origin::default(),
        body: serde_json::Value::Null.into(),
    })
}

/// A cluster: this host, two nodes, pods, services, an external API server.
pub(in crate::policy) fn cluster(options: PolicyOptions) -> PolicySnapshot {
    let options = PolicyOptions {
        node_name: "self".to_owned(),
        ..options
    };
    let mut snapshot = PolicySnapshot::clone(&Repository::new(options).snapshot());
    let mut put = |kind, namespace, name: &str, object| {
        let resource = resource(kind, namespace, name);
        let stored = StoredObject {
            resource: Arc::clone(&resource),
            object,
        };
        snapshot
            .objects
            .insert(resource.key.clone(), Arc::new(stored));
    };
    for (name, of_node, at) in [
        ("self", &[][..], "10.0.0.1"),
        ("db", &[("role", "db")][..], "10.0.0.2"),
        ("web", &[("role", "web")][..], "10.0.0.3"),
    ] {
        let node = NodeObject {
            labels: labels(of_node),
            addresses: addresses(&[at]),
        };
        put(ResourceKind::Node, None, name, Object::Node(node));
    }
    let team = NamespaceObject {
        labels: labels(&[("team", "a")]),
    };
    put(
        ResourceKind::Namespace,
        None,
        "shop",
        Object::Namespace(team),
    );
    for (name, app, at, port) in [
        ("cart", "cart", "10.2.0.1", 80),
        ("blog", "blog", "10.2.0.2", 81),
    ] {
        let pod = PodObject {
            labels: labels(&[("app", app), ("pod-template-hash", "x")]),
            addresses: addresses(&[at]),
            service_account: "default".to_owned(),
            named_ports: vec![NamedPort {
                name: "http".to_owned(),
                protocol: PortProtocol::Tcp,
                port,
            }],
        };
        put(ResourceKind::Pod, Some("shop"), name, Object::Pod(pod));
    }
    let strange: LabelSet = [Label::new("k8s", "app", "strange")].into_iter().collect();
    let endpoint = EndpointObject {
        addresses: addresses(&["10.2.0.2"]),
        identity: Some(4711),
        ..EndpointObject::default()
    };
    let identity = IdentityObject { labels: strange };
    let kind = ResourceKind::CiliumIdentity;
    put(kind, None, "4711", Object::Identity(identity));
    let kind = ResourceKind::CiliumEndpoint;
    put(kind, Some("shop"), "blog", Object::Endpoint(endpoint));
    for (name, selector) in [("cart", &[("app", "cart")][..]), ("outside", &[])] {
        let service = ServiceObject {
            labels: labels(&[("public", "yes")]),
            selector: labels(selector),
        };
        put(
            ResourceKind::Service,
            Some("shop"),
            name,
            Object::Service(service),
        );
    }
    for (namespace, service, at) in [
        ("shop", "outside", "192.0.2.10"),
        ("default", "kubernetes", "192.0.2.1"),
        ("default", "kubernetes", "10.0.0.2"),
    ] {
        let slice = EndpointSliceObject {
            service: Some(service.to_owned()),
            addresses: addresses(&[at]),
        };
        let kind = ResourceKind::EndpointSlice;
        put(kind, Some(namespace), at, Object::EndpointSlice(slice));
    }
    let group = CidrGroupObject {
        labels: labels(&[("kind", "office")]),
        cidrs: vec!["192.0.2.0/28".parse().expect("a prefix")],
    };
    let kind = ResourceKind::CiliumCIDRGroup;
    put(kind, None, "office", Object::CidrGroup(group));
    snapshot
}

pub(in crate::policy) fn item(section: Section, peers: Peers, ports: Ports) -> Item {
    Item {
        section,
        index: 0,
        path: String::new(),
        peers,
        ports,
    }
}

pub(in crate::policy) fn add(
    snapshot: &mut PolicySnapshot,
    name: &str,
    audit: bool,
    items: Vec<Item>,
) {
    let kind = ResourceKind::CiliumClusterwideNetworkPolicy;
    let resource = resource(kind, None, name);
    let rule = Rule {
        subject: RuleSubject::Node(LabelSelector::default()),
        default_deny: [None; 2],
        items,
        log: None,
    };
    let stored = StoredPolicy {
        resource: Arc::clone(&resource),
        policy: Policy {
            rules: vec![rule],
            audit,
        },
        warnings: Vec::new(),
        selects_host: true,
        numbers: Vec::new(),
    };
    snapshot
        .policies
        .insert(resource.key.clone(), Arc::new(stored));
}

pub(in crate::policy) fn selector(list: &[(&str, &str, Operator, &[&str])]) -> LabelSelector {
    let requirements = list
        .iter()
        .map(|(source, key, operator, values)| Requirement {
            source: Some((*source).to_owned()).filter(|source| source != "any"),
            key: (*key).to_owned(),
            operator: *operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        });
    LabelSelector {
        requirements: requirements.collect(),
    }
}

pub(in crate::policy) const PEERS: [&str; 8] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.2.0.1",
    "10.2.0.2",
    "192.0.2.1",
    "192.0.2.10",
    "203.0.113.9",
];

/// Which of [`PEERS`] a peer selector selects, by their position.
#[track_caller]
fn selects(options: PolicyOptions, peer: Peer, expected: &[usize]) {
    let mut snapshot = cluster(options);
    let peers = Peers::Select(vec![peer.clone()]);
    let items = vec![item(Section::Egress, peers, Ports::All)];
    add(&mut snapshot, "a", false, items);
    let found: Vec<usize> = (0..PEERS.len())
        .filter(|index| {
            let at = address(PEERS[*index]);
            let told = judge(&snapshot, HOST, Direction::Egress, at, PORT_80);
            told.outcome == Outcome::Allowed
        })
        .collect();
    assert_eq!(found, expected, "{peer}");
}

#[test]
fn entities_are_questions_about_labels() {
    let cases: [(Entity, &[usize]); 9] = [
        (Entity::All, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (Entity::World, &[5, 6, 7]),
        (Entity::WorldIpv6, &[]),
        // The identity that a CiliumEndpoint gives has no cluster's label here.
        (Entity::Cluster, &[0, 1, 2, 3, 5]),
        (Entity::Host, &[0]),
        (Entity::RemoteNode, &[1, 2]),
        (Entity::KubeApiserver, &[1, 5]),
        (Entity::Health, &[]),
        (Entity::None, &[]),
    ];
    for (entity, expected) in cases {
        selects(PolicyOptions::default(), Peer::Entity(entity), expected);
    }
    let other = PolicyOptions {
        cluster_name: "east".to_owned(),
        ..PolicyOptions::default()
    };
    selects(other, Peer::Entity(Entity::Cluster), &[0, 1, 2, 3, 5]);
}

#[test]
fn peers_of_every_kind() {
    use Operator::{Exists, In, NotIn};
    let plain = PolicyOptions::default;
    let cidr = |text: &str, except: &[&str]| Peer::Cidr {
        cidr: text.parse().expect("a prefix"),
        except: except
            .iter()
            .map(|text| text.parse().expect("a prefix"))
            .collect(),
    };
    selects(plain(), cidr("0.0.0.0/0", &["192.0.2.0/28"]), &[7]);
    let nodes = PolicyOptions {
        cidr_match_nodes: true,
        ..plain()
    };
    selects(nodes, cidr("10.0.0.0/8", &["10.0.0.3/32"]), &[1]);
    let named = |name: &str| Peer::CidrGroup {
        groups: CidrGroups::Named(name.to_owned()),
        except: vec!["192.0.2.10/32".parse().expect("a prefix")],
    };
    selects(plain(), named("office"), &[5]);
    selects(plain(), named("nobody"), &[]);
    let labelled = CidrGroups::Labelled(selector(&[("any", "kind", In, &["office"])]));
    let labelled = Peer::CidrGroup {
        groups: labelled,
        except: Vec::new(),
    };
    selects(plain(), labelled, &[5, 6]);
    let endpoints = |list: &[(&str, &str, Operator, &[&str])]| Peer::Endpoints(selector(list));
    selects(
        plain(),
        endpoints(&[("any", "app", In, &["cart", "blog"])]),
        &[3],
    );
    selects(
        plain(),
        endpoints(&[("k8s", "app", In, &["strange"])]),
        &[4],
    );
    let team = "io.cilium.k8s.namespace.labels.team";
    selects(plain(), endpoints(&[("k8s", team, Exists, &[])]), &[3]);
    selects(
        plain(),
        endpoints(&[("any", "pod-template-hash", Exists, &[])]),
        &[],
    );
    selects(
        plain(),
        endpoints(&[("reserved", "remote-node", Exists, &[])]),
        &[1, 2],
    );
    let others = [
        ("reserved", "remote-node", Exists, &[][..]),
        ("any", "role", NotIn, &["db"]),
    ];
    selects(plain(), Peer::Nodes(selector(&others)), &[2]);
    let service = |by| {
        Peer::Services(ServiceReference {
            namespace: Some("shop".to_owned()),
            by,
        })
    };
    selects(plain(), service(ServiceBy::Name("cart".to_owned())), &[3]);
    selects(
        plain(),
        service(ServiceBy::Name("outside".to_owned())),
        &[6],
    );
    let public = selector(&[("any", "public", In, &["yes"])]);
    selects(plain(), service(ServiceBy::Labels(public)), &[3, 6]);
}

#[test]
fn named_ports_are_those_of_the_peer_or_of_this_host() {
    let http = || {
        Ports::Some(vec![L4Match::Named {
            protocol: PortProtocol::Tcp,
            name: "http".to_owned(),
        }])
    };
    let own = NamedPort {
        name: "http".to_owned(),
        protocol: PortProtocol::Tcp,
        port: 8080,
    };
    let mut snapshot = cluster(PolicyOptions {
        named_ports: vec![own],
        ..PolicyOptions::default()
    });
    let items = vec![
        item(Section::Ingress, Peers::Any, http()),
        item(Section::Egress, Peers::Any, http()),
    ];
    add(&mut snapshot, "a", false, items);
    let allowed = |direction, peer, port| {
        let packet = Packet::Port { proto: 6, port };
        let told = judge(&snapshot, HOST, direction, address(peer), packet);
        told.outcome == Outcome::Allowed
    };
    assert!(allowed(Direction::Ingress, "203.0.113.9", 8080));
    assert!(!allowed(Direction::Ingress, "10.2.0.1", 80));
    assert!(allowed(Direction::Egress, "10.2.0.1", 80));
    assert!(!allowed(Direction::Egress, "10.2.0.1", 8080));
    assert!(!allowed(Direction::Egress, "10.2.0.1", 81));
    assert!(!allowed(Direction::Egress, "203.0.113.9", 80));
}

/// The items of one policy: enforced allow, enforced deny, audited allow,
/// audited deny; each for TCP 80 from everyone or absent.
#[test]
fn policies_in_audit_are_an_overlay() {
    let cases = [
        // Enforced, audited: outcome, audited, enforced, watched.
        ("", "", "NotEnforced false false false"),
        ("", "allow", "NotEnforced false false true"),
        ("", "deny", "Denied true false true"),
        ("", "other", "NotAllowed true false true"),
        ("allow", "", "Allowed false true false"),
        ("allow", "deny", "Denied true true false"),
        ("allow", "other", "Allowed false true false"),
        ("deny", "allow", "Denied false true false"),
        ("other", "allow", "NotAllowed false true false"),
        ("other", "deny", "NotAllowed false true false"),
    ];
    for (enforced, audited, expected) in cases {
        let mut snapshot = cluster(PolicyOptions::default());
        for (name, what, audit) in [("e", enforced, false), ("a", audited, true)] {
            let port = |port| {
                Ports::Some(vec![L4Match::Ports {
                    protocol: PortProtocol::Tcp,
                    first: port,
                    last: port,
                }])
            };
            let item = match what {
                "allow" => item(Section::Ingress, Peers::Any, port(80)),
                "deny" => item(Section::IngressDeny, Peers::Any, port(80)),
                "other" => item(Section::Ingress, Peers::Any, port(81)),
                _ => continue,
            };
            add(&mut snapshot, name, audit, vec![item]);
        }
        let peer = address("203.0.113.9");
        let told = judge(&snapshot, HOST, Direction::Ingress, peer, PORT_80);
        let Judgement {
            outcome,
            audited: of_audit,
            enforced: is_enforced,
            watched,
            ..
        } = &told;
        let found = format!("{outcome:?} {of_audit} {is_enforced} {watched}");
        assert_eq!(found, expected, "enforced {enforced}, audited {audited}");
        assert_eq!(told.enforcing.len(), usize::from(!enforced.is_empty()));
        assert_eq!(told.auditing.len(), usize::from(!audited.is_empty()));
        snapshot.options = Arc::new(PolicyOptions {
            enforcement: EnforcementMode::Never,
            ..PolicyOptions::default()
        });
        let never = judge(&snapshot, HOST, Direction::Ingress, peer, PORT_80);
        assert_eq!(never, Judgement::default());
    }
}

#[test]
fn what_is_missed_is_told_in_words_nearest_first() {
    let mut snapshot = cluster(PolicyOptions::default());
    let ssh = Ports::Some(vec![L4Match::Ports {
        protocol: PortProtocol::Tcp,
        first: 22,
        last: 22,
    }]);
    let ten = Peers::Select(vec![Peer::Cidr {
        cidr: "10.0.0.0/8".parse().expect("a prefix"),
        except: Vec::new(),
    }]);
    let policies = [
        ("both", ten.clone(), ssh.clone()),
        ("peers", ten, Ports::All),
        ("ports", Peers::Any, ssh),
    ];
    for (name, peers, ports) in policies {
        add(
            &mut snapshot,
            name,
            false,
            vec![item(Section::Ingress, peers, ports)],
        );
    }
    let book = Book::new(&snapshot);
    let who = book.who(address("10.0.0.3"));
    let told = misses(&book, Direction::Ingress, &who, PORT_80, None, 10);
    let told: Vec<(&str, Term, &str)> = told
        .iter()
        .map(|miss| {
            let key = miss.rule.resource.as_ref().expect("of a policy");
            (key.name.as_str(), miss.term, miss.reason.as_str())
        })
        .collect();
    let node = "10.0.0.3 is reserved:remote-node (a node), CIDR rules do not match nodes";
    assert_eq!(
        told,
        [
            ("ports", Term::Ports, "TCP 80, the rule has TCP 22"),
            ("peers", Term::Peers, node),
            ("both", Term::Peers, node),
        ]
    );
}
