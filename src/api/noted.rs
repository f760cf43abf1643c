//! Which policies in force there is something to say about, kept up with what
//! changes: who polls the status does not walk over all of them each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::events::ResourceKey;
use crate::policy::language::{Item, L4Match, NamedPort, Ports};
use crate::policy::{Direction, PolicySnapshot, StoredPolicy};

/// A policy with warnings, or with names of ports that this host does not have:
/// what they stand in matches nothing.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) stored: Arc<StoredPolicy>,
    /// Path of the item, and the name.
    pub(super) nameless: Vec<(String, String)>,
}

/// All of these, as of the snapshot that was looked at last.
#[derive(Debug, Default)]
pub struct NotedPolicies {
    seen: OrdMap<ResourceKey, Arc<StoredPolicy>>,
    named_ports: Vec<NamedPort>,
    noted: BTreeMap<ResourceKey, Noted>,
}

impl NotedPolicies {
    /// Looks at what is new in `snapshot`.
    pub(super) fn look_at(&mut self, snapshot: &PolicySnapshot) {
        if self.named_ports != snapshot.options.named_ports {
            *self = Self {
                named_ports: snapshot.options.named_ports.clone(),
                ..Self::default()
            };
        }
        let before = std::mem::replace(&mut self.seen, snapshot.policies.clone());
        for item in before.diff(&snapshot.policies) {
            match item {
                DiffItem::Remove(key, _) => drop(self.noted.remove(key)),
                DiffItem::Add(key, stored)
                | DiffItem::Update {
                    new: (key, stored), ..
                } => match note(stored, &self.named_ports) {
                    Some(noted) => drop(self.noted.insert(key.clone(), noted)),
                    None => drop(self.noted.remove(key)),
                },
            }
        }
    }

    /// By key.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Noted> {
        self.noted.values()
    }
}

fn note(stored: &Arc<StoredPolicy>, known: &[NamedPort]) -> Option<Noted> {
    let items = stored.policy.rules.iter().flat_map(|rule| &rule.items);
    let nameless: Vec<_> = items
        .filter(|_| stored.selects_host)
        .flat_map(|item| {
            let names = unknown_names(item, known).into_iter();
            names.map(|name| (item.path.clone(), name.to_owned()))
        })
        .collect();
    let is_worth_it = !nameless.is_empty() || !stored.warnings.is_empty();
    is_worth_it.then(|| Noted {
        stored: Arc::clone(stored),
        nameless,
    })
}

/// The named ports of an item for ingress that `known` does not hold, each once.
fn unknown_names<'a>(item: &'a Item, known: &[NamedPort]) -> Vec<&'a str> {
    let mut unknown = Vec::new();
    let Ports::Some(matches) = &item.ports else {
        return unknown;
    };
    if item.section.direction() != Some(Direction::Ingress) {
        return unknown;
    }
    // With no protocol written a name stands for each; one of them is enough.
    let is_known = |wanted: &str| {
        matches.iter().any(|entry| {
            let L4Match::Named { protocol, name } = entry else {
                return false;
            };
            let same = |port: &NamedPort| port.name == *name && port.protocol == *protocol;
            name == wanted && known.iter().any(same)
        })
    };
    for entry in matches {
        if let L4Match::Named { name, .. } = entry
            && !is_known(name)
            && !unknown.contains(&name.as_str())
        {
            unknown.push(name.as_str());
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{RepositoryChange, SourceName};
    use crate::policy::documents;
    use crate::policy::language::{Peers, PortProtocol};
    use crate::policy::{PolicyOptions, Repository, Section};

    #[test]
    fn what_changes_is_noted_and_nothing_else_is_looked_at() {
        let policy = |name: &str, port: &str| {
            let text = format!(
                "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: \
                 {name}}}\nspec:\n  nodeSelector: {{}}\n  ingress: [{{toPorts: [{{ports: [{{port: \
                 '{port}', protocol: TCP}}]}}]}}]\n"
            );
            let reading = documents::read("f.yaml", text.as_bytes(), SourceName::Manifests);
            let document = reading.documents.into_iter().next().expect("a policy");
            RepositoryChange::Upsert(document.resource)
        };
        let mut repository = Repository::new(PolicyOptions::default());
        for change in [policy("a", "web"), policy("b", "80"), policy("c", "web")] {
            repository.apply(&change);
        }
        let mut noted = NotedPolicies::default();
        let names = |noted: &NotedPolicies| -> Vec<String> {
            let policies = noted.policies();
            policies
                .map(|it| it.stored.resource.key.name.clone())
                .collect()
        };
        noted.look_at(&repository.snapshot());
        assert_eq!(names(&noted), ["a", "c"]);
        let first = Arc::clone(&noted.noted.values().next().expect("a").stored);
        let key = |name: &str| {
            let RepositoryChange::Upsert(resource) = policy(name, "web") else {
                unreachable!("a policy is an upsert");
            };
            resource.key
        };
        repository.apply(&policy("b", "web"));
        repository.apply(&RepositoryChange::Delete {
            key: key("c"),
            source: SourceName::Manifests,
        });
        noted.look_at(&repository.snapshot());
        assert_eq!(names(&noted), ["a", "b"]);
        assert!(Arc::ptr_eq(&first, &noted.noted[&key("a")].stored));
        // With a port of that name there is nothing to say.
        let mut options = PolicyOptions::default();
        options.named_ports.push(NamedPort {
            name: "web".to_owned(),
            protocol: PortProtocol::Tcp,
            port: 8_080,
        });
        let repository = Repository::import(repository.export(), options).expect("imports");
        noted.look_at(&repository.snapshot());
        assert_eq!(names(&noted), [""; 0]);
    }

    #[test]
    fn a_named_port_that_the_host_does_not_have_is_told_once() {
        let port = |name: &str, protocol| L4Match::Named {
            protocol,
            name: name.to_owned(),
        };
        let item = |section| Item {
            section,
            index: 0,
            path: "spec.ingress[0]".to_owned(),
            peers: Peers::Any,
            ports: Ports::Some(vec![
                port("ssh", PortProtocol::Tcp),
                port("web", PortProtocol::Tcp),
                port("web", PortProtocol::Udp),
                L4Match::Protocol(47),
            ]),
        };
        let known = [NamedPort {
            name: "ssh".to_owned(),
            protocol: PortProtocol::Tcp,
            port: 22,
        }];
        assert_eq!(unknown_names(&item(Section::Ingress), &known), ["web"]);
        assert_eq!(
            unknown_names(&item(Section::IngressDeny), &[]),
            ["ssh", "web"]
        );
        assert_eq!(
            unknown_names(&item(Section::Egress), &[]),
            [""; 0],
            "the peers'"
        );
    }
}
