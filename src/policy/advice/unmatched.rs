//! Selectors and names that match no object of the run.

use super::known::Known;
use super::{Advice, rule_path};
use crate::events::ResourceKey;
use crate::identity::LabelSet;
use crate::policy::language::{
    CidrGroups, FieldError, Item, L4Match, LabelSelector, NamedPort, Peer, Peers, Policy,
    PortProtocol, Ports, RuleSubject, ServiceBy, ServiceReference,
};
use crate::policy::objects::Object;
use crate::policy::{Direction, PolicyOptions};

pub(super) fn find(
    policies: &[(&ResourceKey, &Policy)],
    objects: &[(&ResourceKey, &Object)],
    options: &PolicyOptions,
) -> Vec<Advice> {
    let known = Known::new(objects, options);
    let mut advice = Vec::new();
    for (key, policy) in policies {
        let mut tell = |path: String, reason: String, suggestion: Option<&str>| {
            advice.push(Advice {
                resource: ResourceKey::clone(key),
                warning: FieldError {
                    path,
                    reason,
                    suggestion: suggestion.map(str::to_owned),
                    ..FieldError::default()
                },
            });
        };
        for rule in &policy.rules {
            let RuleSubject::Node(selector) = &rule.subject else {
                continue;
            };
            if let Some(item) = rule.items.first()
                && none_matches(known.hosts.as_deref(), selector)
            {
                let path = format!("{}.nodeSelector", rule_path(&item.path));
                tell(path, "matches no known node".to_owned(), None);
            }
            for item in &rule.items {
                for reason in of_peers(&known, item) {
                    tell(item.path.clone(), reason, None);
                }
                for (reason, suggestion) in of_ports(&known, item, options) {
                    tell(item.path.clone(), reason, Some(suggestion));
                }
            }
        }
    }
    advice
}

fn none_matches(sets: Option<&[LabelSet]>, selector: &LabelSelector) -> bool {
    sets.is_some_and(|sets| !sets.iter().any(|labels| selector.matches(labels)))
}

fn of_peers(known: &Known<'_>, item: &Item) -> Vec<String> {
    let Peers::Select(peers) = &item.peers else {
        return Vec::new();
    };
    let reason = |peer: &Peer| {
        let (unmatched, what) = match peer {
            // Reserved identities are not objects.
            Peer::Endpoints(selector) if has_reserved(selector) => return None,
            Peer::Endpoints(selector) => (none_matches(known.pods.as_deref(), selector), "pod"),
            Peer::Nodes(selector) => {
                let nodes = known.other_nodes.as_deref();
                (none_matches(nodes, selector), "other node")
            }
            Peer::CidrGroup { groups, .. } => (no_group(known, groups), "CiliumCIDRGroup"),
            Peer::Services(reference) => (no_service(known, reference), "Service"),
            Peer::Entity(_) | Peer::Cidr { .. } => return None,
        };
        unmatched.then(|| format!("{peer}: matches no known {what}"))
    };
    peers.iter().filter_map(reason).collect()
}

fn has_reserved(selector: &LabelSelector) -> bool {
    let mut requirements = selector.requirements.iter();
    requirements.any(|requirement| requirement.source.as_deref() == Some("reserved"))
}

fn no_group(known: &Known<'_>, groups: &CidrGroups) -> bool {
    known.groups.as_ref().is_some_and(|all| {
        !all.iter().any(|(name, labels)| match groups {
            CidrGroups::Named(wanted) => wanted == name,
            CidrGroups::Labelled(selector) => selector.matches(labels),
        })
    })
}

fn no_service(known: &Known<'_>, reference: &ServiceReference) -> bool {
    known.services.as_ref().is_some_and(|all| {
        !all.iter().any(|(namespace, name, labels)| {
            let wanted = reference.namespace.as_deref();
            wanted.is_none_or(|wanted| wanted == *namespace)
                && match &reference.by {
                    ServiceBy::Name(wanted) => wanted == name,
                    ServiceBy::Labels(selector) => selector.matches(labels),
                }
        })
    })
}

fn of_ports(
    known: &Known<'_>,
    item: &Item,
    options: &PolicyOptions,
) -> Vec<(String, &'static str)> {
    let Ports::Some(matches) = &item.ports else {
        return Vec::new();
    };
    let ingress = item.section.direction() == Some(Direction::Ingress);
    let is = |port: &NamedPort, name: &str, protocol: PortProtocol| {
        port.name == name && port.protocol == protocol
    };
    let mut found: Vec<(String, &'static str)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for entry in matches {
        let L4Match::Named { name, .. } = entry else {
            continue;
        };
        // `ANY` is three protocols, of which one is enough.
        if seen.contains(&&name[..]) {
            continue;
        }
        seen.push(name);
        let mut protocols = matches.iter().filter_map(|entry| match entry {
            L4Match::Named {
                protocol,
                name: other,
            } if other == name => Some(*protocol),
            L4Match::Named { .. }
            | L4Match::Ports { .. }
            | L4Match::Protocol(_)
            | L4Match::Icmp(_)
            | L4Match::Icmpv6(_) => None,
        });
        let matched = protocols.any(|protocol| {
            if ingress {
                options
                    .named_ports
                    .iter()
                    .any(|port| is(port, name, protocol))
            } else {
                known.pod_ports.iter().any(|port| is(port, name, protocol))
            }
        });
        if matched {
            continue;
        }
        if ingress {
            let reason =
                format!("{name:?}: this host has no port of this name: it matches nothing");
            found.push((reason, "name it with --named-ports, or write the number"));
        } else if known.pods.is_some() {
            let reason = format!("{name:?}: no known pod has a port of this name");
            found.push((reason, "write the number"));
        }
    }
    found
}
