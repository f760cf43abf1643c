//! Three policies of hundreds of rules that have nothing in common, and the
//! packets that tell a mix of any two of them from each.
//!
//! Each policy is resolved by a repository of its own, so the numbers of
//! identities, rows and rules mean something else in each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use palisade::datapath::{DatapathSettings, Generation, IpcacheEntry};
use palisade::events::{EndpointId, RepositoryChange, SourceName};
use palisade::lab::network::{Family, Place};
use palisade::policy::{
    Applied, Direction, PolicyOptions, Repository, Subject, documents, resolve,
};
use palisade_abi::table::{Cell, class};
use serde_json::{Value, json};

/// Policies; slots are two, so each flip writes a slot anew.
const POLICIES: usize = 3;
const ALLOWS: usize = 250;
const DENIALS: usize = 60;
const PEERS: u32 = 256;
const PORTS: u32 = 64;
const FIRST_PORT: u16 = 20_000;
/// Tuples of one class, direction and family.
const TUPLES: usize = 24;

/// Numbers that look random, the same in each run (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(end)) >> 32).expect("below the end")
    }
}

/// What a flow is to the policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Allowed by each policy; denied by most mixes.
    Always,
    /// Denied by each policy; allowed by most mixes.
    Never,
    /// Allowed by some.
    Toggling,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Always, Self::Never, Self::Toggling];
}

/// A peer and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tuple {
    pub(crate) direction: Direction,
    pub(crate) peer: IpAddr,
    pub(crate) port: u16,
}

/// The policies and the packets.
#[derive(Debug)]
pub(crate) struct Plan {
    generations: Vec<Generation>,
    /// Who each peer is in each of them.
    identities: HashMap<IpAddr, [IpcacheEntry; POLICIES]>,
    /// By class and direction, both families.
    pub(crate) tuples: [[Vec<Tuple>; 2]; 3],
    /// Kinds of mixes (direction, family, identities of one, tables of
    /// another), and how many tuples show the one that the fewest show.
    pub(crate) mixes: usize,
    pub(crate) shown_by_least: usize,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let generations: Vec<_> = (0..POLICIES as u64).map(generation).collect();
        let addresses = Family::BOTH.into_iter();
        let addresses = addresses.flat_map(|family| (0..PEERS).map(move |it| peer(family, it)));
        let who = |address| {
            let each = |policy: usize| identity(&generations[policy], address);
            (address, std::array::from_fn(each))
        };
        let mut plan = Self {
            identities: addresses.map(who).collect(),
            generations,
            tuples: std::array::from_fn(|_| [Vec::new(), Vec::new()]),
            mixes: 0,
            shown_by_least: usize::MAX,
        };
        for direction in Direction::BOTH {
            for family in Family::BOTH {
                plan.choose(direction, family);
            }
        }
        plan
    }

    /// What a generation is made from, by its number.
    pub(crate) fn of(&self, generation: u32) -> &Generation {
        &self.generations[policy_of(generation)]
    }

    /// What a generation says: the peer's identity and the verdict.
    pub(crate) fn verdict(&self, generation: u32, tuple: &Tuple) -> (u32, Cell) {
        let policy = policy_of(generation);
        let identity = self.identities[&tuple.peer][policy].identity.0;
        (identity, self.judge(policy, policy, tuple))
    }

    /// The verdict by the identities of one policy and the tables of another.
    fn judge(&self, identities: usize, tables: usize, tuple: &Tuple) -> Cell {
        let direction = self.generations[tables].endpoints[0].direction(tuple.direction);
        let index = self.identities[&tuple.peer][identities].index;
        direction.table.lookup(index, class::UDP, tuple.port)
    }

    fn choose(&mut self, direction: Direction, family: Family) {
        let mut candidates: [Vec<(usize, Tuple)>; 3] = Default::default();
        for number in 0..PEERS * PORTS {
            let tuple = Tuple {
                direction,
                peer: peer(family, number / PORTS),
                port: port(number % PORTS),
            };
            let allows = |policy: &usize| self.judge(*policy, *policy, &tuple).passes();
            let class = match (0..POLICIES).filter(allows).count() {
                0 => Class::Never,
                POLICIES => Class::Always,
                _ => Class::Toggling,
            };
            let shown = self.shown_by(&tuple, class);
            candidates[class as usize].push((shown.iter().filter(|it| **it).count(), tuple));
        }
        let mut least = vec![0; POLICIES * (POLICIES - 1)];
        for class in Class::ALL {
            let candidates = &mut candidates[class as usize];
            candidates.sort_by_key(|(shown, _)| std::cmp::Reverse(*shown));
            candidates.truncate(TUPLES);
            for (_, tuple) in candidates {
                for (count, shown) in least.iter_mut().zip(self.shown_by(tuple, class)) {
                    *count += usize::from(shown);
                }
                self.tuples[class as usize][direction as usize].push(*tuple);
            }
        }
        self.mixes += least.len();
        let least = least.into_iter().min().unwrap_or_default();
        self.shown_by_least = self.shown_by_least.min(least);
    }

    /// For each mix of two policies: whether the tuple shows it by passing or
    /// not passing.
    fn shown_by(&self, tuple: &Tuple, class: Class) -> Vec<bool> {
        let mut shown = Vec::new();
        for identities in 0..POLICIES {
            for tables in (0..POLICIES).filter(|tables| *tables != identities) {
                let passes = self.judge(identities, tables, tuple).passes();
                shown.push(match class {
                    Class::Always => !passes,
                    Class::Never => passes,
                    Class::Toggling => false,
                });
            }
        }
        shown
    }
}

fn policy_of(generation: u32) -> usize {
    generation as usize % POLICIES
}

/// Who an address is in a generation.
fn identity(generation: &Generation, address: IpAddr) -> IpcacheEntry {
    let found = match address {
        IpAddr::V4(address) => {
            let covers = generation.ipcache4.iter();
            let covers = covers.filter(|(net, _)| net.contains(&address));
            covers
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|it| *it.1)
        }
        IpAddr::V6(address) => {
            let covers = generation.ipcache6.iter();
            let covers = covers.filter(|(net, _)| net.contains(&address));
            covers
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|it| *it.1)
        }
    };
    found.expect("everything has an identity")
}

/// The networks of the peers, whole.
pub(crate) const PEER_NETWORKS: [&str; 2] = ["10.99.0.0/24", "fd99::/120"];

fn peer(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a63_0000 + number).into(),
        Family::V6 => Ipv6Addr::from((0xfd99_u128 << 112) + u128::from(number)).into(),
    }
}

fn port(number: u32) -> u16 {
    FIRST_PORT + u16::try_from(number).expect("a small number")
}

/// Resolves the policy of a seed.
fn generation(seed: u64) -> Generation {
    let options = PolicyOptions {
        node_name: "host".to_owned(),
        ..PolicyOptions::default()
    };
    let mut repository = Repository::new(options);
    let own = Family::BOTH.map(|family| Place::Host.address(family));
    repository.apply(&RepositoryChange::LocalAddresses(own.into()));
    let text = policy(seed).to_string();
    let reading = documents::read("flips.yaml", text.as_bytes(), SourceName::Manifests);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    for document in reading.documents {
        let applied = repository.apply(&RepositoryChange::Upsert(document.resource));
        assert!(matches!(applied, Applied::Changed(_)), "{applied:?}");
    }
    let snapshot = repository.snapshot();
    let host = resolve(&snapshot, Subject::Host(EndpointId(1)), false);
    Generation {
        revision: snapshot.revision,
        endpoints: vec![Arc::new(host.expect("it resolves"))],
        ipcache4: snapshot.ipcache4.clone(),
        ipcache6: snapshot.ipcache6.clone(),
        settings: Arc::new(DatapathSettings::default()),
    }
}

fn policy(seed: u64) -> Value {
    let mut random = Random::new(seed << 32 | 77);
    let mut section = |count: usize, cidrs: &str| -> Vec<Value> {
        (0..count).map(|_| rule(&mut random, cidrs)).collect()
    };
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "flips"},
        "spec": {
            "nodeSelector": {},
            "ingress": section(ALLOWS, "fromCIDR"),
            "ingressDeny": section(DENIALS, "fromCIDR"),
            "egress": section(ALLOWS, "toCIDR"),
            "egressDeny": section(DENIALS, "toCIDR"),
        },
    })
}

/// Some peers and three ports.
fn rule(random: &mut Random, cidrs: &str) -> Value {
    let free = random.below(7);
    let first = random.below(PEERS) >> free << free;
    let prefix = |family, bits| format!("{}/{}", peer(family, first), bits - free);
    let ports =
        (0..3).map(|_| json!({"port": port(random.below(PORTS)).to_string(), "protocol": "UDP"}));
    json!({
        cidrs: [prefix(Family::V4, 32), prefix(Family::V6, 128)],
        "toPorts": [{"ports": ports.collect::<Vec<_>>()}],
    })
}
