//! Random sequences of snapshots: a resolver that follows them, one that has
//! seen nothing, and a plain reading of the items say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::{Resolver, Subject, Work, resolve};
use crate::events::{EndpointId, Origin, Resource, ResourceKey, ResourceKind, SourceName};
use crate::identity::{IdentityIndex, LabelSet};
use crate::policy::language::{
    Entity, Item, L4Match, LabelSelector, NamedPort, Peer, Peers, Policy, PortProtocol, Ports,
    Rule, RuleSubject,
};
use crate::policy::{
    Direction, EndpointPolicy, EnforcementMode, FailsafeEntry, PolicyOptions, PolicySnapshot,
    Repository, RuleEntry, RuleNumber, Section, Selections, Selector, SelectorId, SelectorIds,
    StoredPolicy,
};

#[path = "follow_model.rs"]
mod model;
use model::{Model, Probe};

const HOST: Subject = Subject::Host(EndpointId(1));
/// Identities have indexes below.
const INDEXES: u32 = 9;
/// Policies have numbers below.
const POLICIES: u8 = 3;
const PEERS: [Entity; 5] = [
    Entity::World,
    Entity::Cluster,
    Entity::Host,
    Entity::Init,
    Entity::Health,
];
const NAMES: [&str; 2] = ["http", "dns"];
/// The prefix of failsafe entries; its selector is the one after those of peers.
const SAFE: &str = "10.0.0.0/8";

/// Everything that a snapshot is made from.
#[derive(Clone, Debug, Default)]
struct World {
    policies: BTreeMap<u8, Policy>,
    /// Selectors of each live identity.
    identities: BTreeMap<u32, BTreeSet<u32>>,
    named: BTreeMap<u32, Vec<NamedPort>>,
    options: PolicyOptions,
    audit: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Policy(u8, Option<Policy>),
    Identity(u32, Option<BTreeSet<u32>>),
    Named(u32, Vec<NamedPort>),
    Mode(EnforcementMode),
    HostPorts(Vec<NamedPort>),
    Audit(bool),
}

fn named_port() -> impl Strategy<Value = NamedPort> {
    (protocol(), 0..NAMES.len(), 0..4u16).prop_map(|(protocol, name, port)| NamedPort {
        name: NAMES[name].to_owned(),
        protocol,
        port,
    })
}

fn protocol() -> impl Strategy<Value = PortProtocol> {
    proptest::sample::select(&PortProtocol::ALL[..2])
}

fn ports() -> impl Strategy<Value = Ports> {
    let l4 = prop_oneof![
        3 => (protocol(), 0..4u16, 0..3u16).prop_map(|(protocol, first, more)| L4Match::Ports {
            protocol,
            first,
            last: first + more,
        }),
        3 => (protocol(), 0..NAMES.len()).prop_map(|(protocol, name)| L4Match::Named {
            protocol,
            name: NAMES[name].to_owned(),
        }),
        1 => Just(L4Match::Protocol(47)),
        1 => (0..2u8).prop_map(L4Match::Icmp),
    ];
    prop_oneof![
        1 => Just(Ports::All),
        4 => proptest::collection::vec(l4, 0..3).prop_map(Ports::Some),
    ]
}

fn peers() -> impl Strategy<Value = Peers> {
    let some = proptest::collection::vec(proptest::sample::select(&PEERS[..]), 0..3);
    prop_oneof![
        1 => Just(Peers::Any),
        4 => some.prop_map(|list| Peers::Select(list.into_iter().map(Peer::Entity).collect())),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let item = (0..4usize, peers(), ports()).prop_map(|(section, peers, ports)| Item {
        section: Section::OF_RULES[section],
        index: 0,
        path: String::new(),
        peers,
        ports,
    });
    let deny = || proptest::option::of(any::<bool>());
    (proptest::collection::vec(item, 0..4), deny(), deny()).prop_map(|(items, ingress, egress)| {
        Rule {
            subject: RuleSubject::Node(LabelSelector::default()),
            default_deny: [ingress, egress],
            items,
            log: None,
        }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = proptest::collection::vec(rule(), 0..3);
    (rules, any::<bool>()).prop_map(|(mut rules, audit)| {
        let mut counts = [0; 4];
        for item in rules.iter_mut().flat_map(|rule| &mut rule.items) {
            let count = &mut counts[item.section as usize];
            item.index = *count;
            *count += 1;
        }
        for rule in &mut rules {
            rule.items.sort_by_key(|item| (item.section, item.index));
        }
        Policy { rules, audit }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let selectors = || proptest::collection::btree_set(0..6u32, 0..4);
    let mode = proptest::sample::select(
        &[
            EnforcementMode::Default,
            EnforcementMode::Always,
            EnforcementMode::Never,
        ][..],
    );
    let ports = || proptest::collection::vec(named_port(), 0..3);
    prop_oneof![
        4 => (0..POLICIES, proptest::option::weighted(0.8, policy()))
            .prop_map(|(key, policy)| Step::Policy(key, policy)),
        8 => (0..INDEXES, proptest::option::weighted(0.8, selectors()))
            .prop_map(|(index, selectors)| Step::Identity(index, selectors)),
        5 => (0..INDEXES, ports()).prop_map(|(index, ports)| Step::Named(index, ports)),
        1 => mode.prop_map(Step::Mode),
        1 => ports().prop_map(Step::HostPorts),
        1 => any::<bool>().prop_map(Step::Audit),
    ]
}

impl World {
    fn new() -> Self {
        let entry = |proto, port, peer: Option<&str>| FailsafeEntry {
            direction: 0,
            proto,
            port,
            peer: peer.map(|peer| peer.parse().expect("a prefix")),
        };
        Self {
            options: PolicyOptions {
                failsafe: vec![entry(6, 2, Some(SAFE)), entry(17, 1, None)],
                ..PolicyOptions::default()
            },
            ..Self::default()
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Policy(key, Some(policy)) => drop(self.policies.insert(key, policy)),
            Step::Policy(key, None) => drop(self.policies.remove(&key)),
            Step::Identity(index, Some(selectors)) => {
                drop(self.identities.insert(index, selectors));
            }
            Step::Identity(index, None) => drop(self.identities.remove(&index)),
            Step::Named(index, ports) => drop(self.named.insert(index, ports)),
            Step::Mode(mode) => self.options.enforcement = mode,
            Step::HostPorts(ports) => self.options.named_ports = ports,
            Step::Audit(audit) => self.audit = audit,
        }
    }

    /// The next snapshot: what stays is shared with the one before.
    fn snapshot(&self, before: &PolicySnapshot) -> PolicySnapshot {
        let mut next = before.clone();
        next.revision = before.revision.next();
        next.options = Arc::new(self.options.clone());
        next.host_labels = Arc::new(LabelSet::default());
        next.rules = (0..self.options.failsafe.len())
            .map(|place| (failsafe_number(place), Arc::new(RuleEntry::failsafe(place))))
            .collect();
        for number in 0..POLICIES {
            if !self.policies.contains_key(&number) {
                next.policies.remove(&policy_key(number));
            }
        }
        for (number, policy) in &self.policies {
            let stored = stored(*number, policy);
            if next.policies.get(&stored.resource.key).map(AsRef::as_ref) != Some(&stored) {
                next.policies.insert(policy_key(*number), Arc::new(stored));
            }
        }
        let selections = &mut next.selections;
        selections.ids = ids();
        for index in 0..INDEXES {
            let place = IdentityIndex(index);
            match self.identities.get(&index) {
                Some(selectors) => {
                    let signature = selectors.iter().copied().map(SelectorId).collect();
                    selections.by_identity.insert(place, signature);
                }
                None => drop(selections.by_identity.remove(&place)),
            }
            match self.named.get(&index) {
                Some(ports) => drop(
                    selections
                        .named_ports
                        .insert(place, ports.as_slice().into()),
                ),
                None => drop(selections.named_ports.remove(&place)),
            }
        }
        next
    }
}

fn ids() -> SelectorIds {
    let peers = PEERS.map(|entity| Selector::Peer(Peer::Entity(entity)));
    let safe = Selector::Address(SAFE.parse().expect("a prefix"));
    let all = peers.into_iter().chain([safe]);
    all.zip((0..).map(SelectorId)).collect()
}

fn failsafe_number(place: usize) -> RuleNumber {
    RuleNumber(u32::try_from(place).expect("small") + 1)
}

fn policy_key(number: u8) -> ResourceKey {
    ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: format!("p{number}"),
    }
}

fn item_number(policy: u8, item: &Item) -> RuleNumber {
    let section = item.section as u32;
    let index = u32::try_from(item.index).expect("small");
    RuleNumber(1_000 + u32::from(policy) * 1_000 + section * 100 + index)
}

fn stored(number: u8, policy: &Policy) -> StoredPolicy {
    let of_rule = |rule: &Rule| {
        let items = rule.items.iter();
        items.map(|item| item_number(number, item)).collect()
    };
    StoredPolicy {
        resource: Arc::new(Resource {
            key: policy_key(number),
            source: SourceName::Manifests,
            origin: Origin::default(),
            body: Default::default(),
        }),
        numbers: policy.rules.iter().map(of_rule).collect(),
        policy: policy.clone(),
        warnings: Vec::new(),
        selects_host: true,
    }
}

fn agrees(world: &World, policy: &EndpointPolicy) -> Result<(), TestCaseError> {
    for direction in Direction::BOTH {
        let of = policy.direction(direction);
        let has_items = |audit: bool| {
            let policies = world
                .policies
                .values()
                .filter(|policy| policy.audit == audit);
            let mut rules = policies.flat_map(|policy| &policy.rules);
            rules.any(|rule| rule.has_items(direction))
        };
        let mode = world.options.enforcement;
        let enforced = mode == EnforcementMode::Always || has_items(false);
        let never = mode == EnforcementMode::Never;
        prop_assert_eq!(of.enforced, enforced && !never);
        prop_assert_eq!(of.watched, has_items(true) && !enforced && !never);
        if !of.enforced && !of.watched {
            continue;
        }
        for index in 0..INDEXES + 1 {
            for probe in Probe::all() {
                // Who is not live is the unknown identity.
                let index = if world.identities.contains_key(&index) {
                    index
                } else {
                    0
                };
                let live = world.identities.get(&index);
                let model = Model {
                    world,
                    direction,
                    selectors: live.cloned().unwrap_or_default(),
                    named: live
                        .and_then(|_| world.named.get(&index))
                        .map_or(&[], Vec::as_slice),
                    probe,
                };
                let (class, key) = probe.class_and_key();
                let found = of.table.lookup(IdentityIndex(index), class, key);
                prop_assert_eq!(
                    found,
                    model.cell(of.enforced),
                    "{:?} {} {:?}",
                    direction,
                    index,
                    probe
                );
                prop_assert!(of.enforced || found.passes(), "a watched direction drops");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn following_equals_beginning_anew(
        steps in proptest::collection::vec((step(), proptest::bool::weighted(0.8)), 1..24)
    ) {
        let mut world = World::new();
        let mut snapshot = PolicySnapshot::clone(&Repository::new(PolicyOptions::default()).snapshot());
        snapshot.selections = Selections::default();
        let mut resolver = Resolver::new(HOST);
        for (step, looks) in steps {
            world.take(step);
            snapshot = world.snapshot(&snapshot);
            if !looks {
                // Several changes at once.
                continue;
            }
            let followed = resolver.resolve(&snapshot, world.audit).expect("fits");
            let fresh = resolve(&snapshot, HOST, world.audit).expect("fits");
            prop_assert_eq!(&followed, &fresh);
            agrees(&world, &followed)?;
        }
    }
}

fn select(selectors: &[u32]) -> BTreeSet<u32> {
    selectors.iter().copied().collect()
}

/// The work is counted, not timed: the way of following cannot rot unseen.
#[test]
fn what_is_done_is_what_changed() {
    let mut world = World::new();
    let allow = |peer: Entity, port| Item {
        section: Section::Ingress,
        index: usize::from(port),
        path: String::new(),
        peers: Peers::Select(vec![Peer::Entity(peer)]),
        ports: Ports::Some(vec![L4Match::Ports {
            protocol: PortProtocol::Tcp,
            first: port,
            last: port,
        }]),
    };
    let policy = |items: Vec<Item>| Policy {
        rules: vec![Rule {
            subject: RuleSubject::Node(LabelSelector::default()),
            default_deny: [None, None],
            items,
            log: None,
        }],
        audit: false,
    };
    let both = [allow(Entity::World, 0), allow(Entity::Cluster, 1)];
    world.take(Step::Policy(0, Some(policy(both.to_vec()))));
    for index in 0..INDEXES {
        world.take(Step::Identity(index, Some(select(&[index % 2]))));
    }
    let mut snapshot = PolicySnapshot::clone(&Repository::new(PolicyOptions::default()).snapshot());
    snapshot.selections = Selections::default();
    let mut resolver = Resolver::new(HOST);
    let mut work = |world: &World| {
        snapshot = world.snapshot(&snapshot);
        resolver.resolve(&snapshot, world.audit).expect("fits");
        resolver.work()
    };
    let done = |directions, identities, rows, given| Work {
        directions,
        identities,
        rows,
        given,
    };
    // Egress is not enforced: it has no table, and no identities.
    assert_eq!(work(&world), done(2, INDEXES as usize, 2, INDEXES as usize));
    assert_eq!(work(&world), done(0, 0, 0, 0));
    // To a row that is known, to one that is not, back, and away.
    world.take(Step::Identity(3, Some(select(&[0]))));
    assert_eq!(work(&world), done(0, 1, 0, 1));
    world.take(Step::Identity(4, Some(select(&[0, 1]))));
    assert_eq!(work(&world), done(0, 1, 1, 1));
    world.take(Step::Identity(4, Some(select(&[0]))));
    assert_eq!(work(&world), done(0, 1, 0, 1));
    world.take(Step::Identity(5, None));
    assert_eq!(work(&world), done(0, 1, 0, 1));
    // Names of ports matter to nobody here.
    let named = NamedPort {
        name: NAMES[0].to_owned(),
        protocol: PortProtocol::Tcp,
        port: 1,
    };
    world.take(Step::Named(6, vec![named]));
    assert_eq!(work(&world), done(0, 1, 0, 0));
    // A rule that goes touches those whom it held, and one that comes too.
    let [first, second] = both;
    world.take(Step::Policy(0, Some(policy(vec![first.clone()]))));
    let held = world
        .identities
        .values()
        .filter(|selectors| selectors.contains(&1));
    let held = held.count();
    assert!(held > 0 && held < INDEXES as usize / 2);
    let without = work(&world);
    assert_eq!((without.directions, without.identities), (0, held));
    world.take(Step::Policy(0, Some(policy(vec![first, second]))));
    let with = work(&world);
    assert_eq!((with.directions, with.identities), (0, held));
}
