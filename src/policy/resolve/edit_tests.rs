//! Random edits of rules, through the repository: a resolver that follows them
//! and one that has seen nothing give the same tables, bit for bit.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{HOST, agree, tcp, udp};
use super::{Resolver, resolve};
use crate::events::{RepositoryChange, SourceName};
use crate::policy::Direction::{Egress, Ingress};
use crate::policy::Repository;
use crate::policy::repository::tests::{node, options, policy};

const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.3.1", "192.0.2.1", "10.9.0.1"];

/// One item, as text: its section and what it says.
type Line = (usize, String);

#[derive(Clone, Debug)]
enum Edit {
    /// One rule more in a policy, or another one at its place.
    Put(u8, usize, Line),
    /// One rule less.
    Cut(u8, usize),
    Delete(u8),
    /// A rule for each of so many ports from one on.
    Fill(u8, u16, u16),
    /// Another node has so many addresses.
    Node(u8),
}

fn peers() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        1 => Just(None),
        1 => proptest::sample::select(&["world", "cluster", "all", "remote-node"][..])
            .prop_map(|entity| Some(format!("Entities: [{entity}]"))),
        6 => proptest::collection::vec(0..6u8, 1..3).prop_map(|list| {
            let list: Vec<_> = list.iter().map(|net| format!("\"10.0.{net}.0/24\"")).collect();
            Some(format!("CIDR: [{}]", list.join(", ")))
        }),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let protocol = proptest::sample::select(&["TCP", "TCP", "UDP", "ANY"][..]);
    let port = (
        1..120u16,
        prop_oneof![3 => Just(0), 1 => 0..90u16],
        protocol,
    );
    let ports = proptest::option::weighted(0.9, port);
    let sections = proptest::sample::select(&[0usize, 0, 0, 1, 2, 3][..]);
    (sections, peers(), ports).prop_map(|(section, peers, ports)| {
        let side = if section < 2 { "from" } else { "to" };
        let mut parts: Vec<String> = peers.iter().map(|peers| format!("{side}{peers}")).collect();
        parts.extend(ports.map(|(first, more, protocol)| {
            format!(
                "toPorts: [{{ports: [{{port: {first}, endPort: {}, protocol: {protocol}}}]}}]",
                first + more
            )
        }));
        (section, format!("{{{}}}", parts.join(", ")))
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = || 0..4u8;
    prop_oneof![
        8 => (name(), 0..5usize, line()).prop_map(|(name, at, line)| Edit::Put(name, at, line)),
        3 => (name(), 0..5usize).prop_map(|(name, at)| Edit::Cut(name, at)),
        1 => name().prop_map(Edit::Delete),
        2 => (name(), 1..200u16, 1..50u16).prop_map(|(name, first, count)| {
            Edit::Fill(name, first, count)
        }),
        1 => (0..4u8).prop_map(Edit::Node),
    ]
}

#[derive(Default)]
struct Policies(BTreeMap<u8, Vec<Line>>);

impl Policies {
    fn take(&mut self, edit: &Edit) -> RepositoryChange {
        let (Edit::Put(name, ..) | Edit::Cut(name, _) | Edit::Delete(name) | Edit::Fill(name, ..)) =
            edit
        else {
            let Edit::Node(count) = edit else {
                unreachable!("all others name a policy");
            };
            let addresses: Vec<String> = (1..=*count).map(|at| format!("10.0.{at}.1")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            return node("other", "", &addresses);
        };
        let lines = self.0.entry(*name).or_default();
        match edit {
            Edit::Put(_, at, line) if *at < lines.len() => lines[*at] = line.clone(),
            Edit::Put(_, _, line) => lines.push(line.clone()),
            Edit::Cut(_, at) if *at < lines.len() => drop(lines.remove(*at)),
            Edit::Cut(..) | Edit::Node(_) => {}
            Edit::Delete(_) => lines.clear(),
            Edit::Fill(_, first, count) => lines.extend((0..*count).map(|more| {
                let port = first + 3 * more;
                let peer = format!("10.0.{}.0/24", more % 6);
                let ports = format!("[{{ports: [{{port: {port}, protocol: TCP}}]}}]");
                (0, format!("{{fromCIDR: [\"{peer}\"], toPorts: {ports}}}"))
            })),
        }
        let key = format!("p{name}");
        if lines.is_empty() {
            self.0.remove(name);
            let RepositoryChange::Upsert(resource) = policy(&key, "nodeSelector: {}") else {
                unreachable!("a policy is brought");
            };
            return RepositoryChange::Delete {
                key: resource.key,
                source: SourceName::Manifests,
            };
        }
        let mut spec = "nodeSelector: {}\n".to_owned();
        for (number, section) in ["ingress", "ingressDeny", "egress", "egressDeny"]
            .iter()
            .enumerate()
        {
            let own = lines.iter().filter(|(section, _)| *section == number);
            let own: Vec<&str> = own.map(|(_, text)| text.as_str()).collect();
            if !own.is_empty() {
                spec.push_str(&format!("{section}: [{}]\n", own.join(", ")));
            }
        }
        policy(&key, &spec)
    }
}

fn check(edits: &[(Edit, bool)]) -> Result<(), TestCaseError> {
    let mut repository = Repository::new(options());
    repository.apply(&node("self", "", &["10.9.0.9"]));
    let (mut policies, mut resolver) = (Policies::default(), Resolver::new(HOST));
    let mut latest = None;
    for (edit, looks) in edits {
        repository.apply(&policies.take(edit));
        if !looks {
            continue;
        }
        let snapshot = repository.snapshot();
        let followed = resolver.resolve(&snapshot, false).expect("fits");
        let fresh = resolve(&snapshot, HOST, false).expect("fits");
        for direction in [Ingress, Egress] {
            let (followed, fresh) = (followed.direction(direction), fresh.direction(direction));
            prop_assert!(followed == fresh, "{:?} {:?}", direction, edit);
        }
        latest = Some((snapshot, followed));
    }
    let Some((snapshot, followed)) = latest else {
        return Ok(());
    };
    for direction in [Ingress, Egress] {
        for address in ADDRESSES {
            for port in (0..150).step_by(7) {
                for packet in [tcp(port), udp(port)] {
                    agree(&snapshot, &followed, direction, address, packet)
                        .map_err(TestCaseError::fail)?;
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn edited_rules_give_the_tables_of_rules_written_so(
        edits in proptest::collection::vec((edit(), proptest::bool::weighted(0.8)), 1..40)
    ) {
        check(&edits)?;
    }
}
