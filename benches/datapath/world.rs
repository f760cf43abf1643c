//! A host with a policy of some size and an ipcache of some size, in force in
//! the real datapath.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::{Ipv4Net, Ipv6Net};
use palisade::datapath::kernel::{KernelDatapath, KernelOptions};
use palisade::datapath::{
    Datapath as _, DatapathError, DatapathSettings, Generation, IpcacheEntry,
};
use palisade::events::{EndpointId, RepositoryChange, SourceName};
use palisade::policy::{
    Applied, PolicyOptions, PolicySnapshot, Repository, Resolver, Subject, documents,
};
use serde_json::{Value, json};

use crate::frames::Family;
use crate::random::{Random, networks4, networks6};

/// TCP ports that each peer may reach, and how many ports there are in all.
const PORTS_OF_PEER: usize = 10;
const PORTS: usize = 1_000;
const FIRST_PORT: usize = 1_000;
/// Rule items of one policy.
const ITEMS_MAX: usize = 100;
/// Ports that everybody may reach, and one that nobody may.
pub(crate) const OPEN: u16 = 443;
pub(crate) const OPEN_TOO: u16 = 8_443;
pub(crate) const CLOSED: u16 = 23;

/// How much of everything there is, of each family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Size {
    pub(crate) rules: usize,
    pub(crate) prefixes: usize,
}

impl Size {
    fn peers(self) -> usize {
        self.rules.div_ceil(PORTS_OF_PEER)
    }
}

/// The random networks of every world: those of a smaller one come first.
pub(crate) fn all4(count: usize) -> Vec<Ipv4Net> {
    networks4(&mut Random(4), count)
}

pub(crate) fn all6(count: usize) -> Vec<Ipv6Net> {
    networks6(&mut Random(6), count)
}

/// Where the peer of the cases with one flow lives: an early network of usual
/// length, so that its address is known alike in every world.
fn home4() -> Ipv4Net {
    let mut nets = all4(100).into_iter();
    nets.find(|net| net.prefix_len() == 24).expect("a /24")
}

fn home6() -> Ipv6Net {
    let mut nets = all6(100).into_iter();
    nets.find(|net| net.prefix_len() == 64).expect("a /64")
}

/// The peer of the cases with one flow; it is the first of the policy's.
pub(crate) fn peer(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(home4().network()) + 0x77).into(),
        Family::V6 => Ipv6Addr::from(u128::from(home6().network()) + 0x77).into(),
    }
}

/// TCP ports that rules of their own open for that peer.
pub(crate) fn peer_ports() -> [u16; 2] {
    [1, PORTS_OF_PEER - 1].map(|place| port(0, place))
}

/// What is in force, and the prefixes it knows.
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) datapath: KernelDatapath,
    /// The random networks.
    pub(crate) prefixes4: Vec<Ipv4Net>,
    pub(crate) prefixes6: Vec<Ipv6Net>,
    /// All prefixes.
    pub(crate) ipcache4: OrdMap<Ipv4Net, IpcacheEntry>,
    pub(crate) ipcache6: OrdMap<Ipv6Net, IpcacheEntry>,
    pub(crate) blocks: usize,
}

impl World {
    /// Builds the policy from its documents and puts it in force.
    pub(crate) fn new(bpffs: &Path, size: Size) -> Result<Self, DatapathError> {
        let options = KernelOptions {
            bpffs: bpffs.to_owned(),
            ..KernelOptions::default()
        };
        let snapshot = snapshot(size)?;
        let (mut datapath, _) = KernelDatapath::open(&options)?;
        let mut resolver = Resolver::new(Subject::Host(EndpointId(1)));
        let policy = resolver
            .resolve(&snapshot, false)
            .map_err(|error| DatapathError::Other(error.to_string()))?;
        let (ipcache4, prefixes4) = ipcache4(&snapshot, size);
        let (ipcache6, prefixes6) = ipcache6(&snapshot, size);
        let generation = Generation {
            revision: snapshot.revision,
            endpoints: vec![Arc::new(policy)],
            ipcache4: ipcache4.clone(),
            ipcache6: ipcache6.clone(),
            settings: Arc::new(settings()),
        };
        datapath.stage(&generation)?;
        datapath.commit()?;
        let directions = &generation.endpoints[0].directions;
        Ok(Self {
            size,
            datapath,
            prefixes4,
            prefixes6,
            ipcache4,
            ipcache6,
            blocks: directions.iter().map(|of| of.table.block_count()).sum(),
        })
    }
}

/// As shipped, but for lifetimes that outlast the benchmark.
fn settings() -> DatapathSettings {
    DatapathSettings {
        other_s: 8_000,
        tcp_syn_s: 8_000,
        ..DatapathSettings::default()
    }
}

fn peer4(number: usize) -> Ipv4Addr {
    Ipv4Addr::from((60 << 24) + u32::try_from(number).expect("few peers"))
}

fn peer6(number: usize) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8_u128 << 96) + number as u128)
}

fn port(peer: usize, place: usize) -> u16 {
    let port = FIRST_PORT + (peer * 7 + place * 97) % PORTS;
    u16::try_from(port).expect("a port")
}

fn policy(name: &str, spec: &Value) -> RepositoryChange {
    let document = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    });
    let text = document.to_string();
    let reading = documents::read("bench", text.as_bytes(), SourceName::Manifests);
    let [document] = &reading.documents[..] else {
        panic!("not read: {reading:?}");
    };
    RepositoryChange::Upsert(document.resource.clone())
}

fn tcp(port: u16) -> Value {
    json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}])
}

/// Two ports from everybody (TCP and UDP), echo requests, everything out; and
/// the rules: each opens one port for one peer of each family.
fn policies(size: Size) -> Vec<RepositoryChange> {
    let open = json!({
        "nodeSelector": {},
        "ingress": [
            {"toPorts": tcp(OPEN)},
            {"toPorts": tcp(OPEN_TOO)},
            {"toPorts": [{"ports": [{"port": OPEN.to_string(), "protocol": "UDP"}]}]},
            {"icmps": [{"fields": [
                {"family": "IPv4", "type": 8},
                {"family": "IPv6", "type": 128},
            ]}]},
        ],
        "egress": [{"toEntities": ["all"]}],
    });
    let item = |number: usize| {
        let peer = number / PORTS_OF_PEER;
        json!({
            "fromCIDR": [format!("{}/32", peer4(peer)), format!("{}/128", peer6(peer))],
            "toPorts": tcp(port(peer, number % PORTS_OF_PEER)),
        })
    };
    let mut all = vec![policy("open", &open)];
    for first in (0..size.rules).step_by(ITEMS_MAX) {
        let end = size.rules.min(first + ITEMS_MAX);
        let items: Vec<Value> = (first..end).map(item).collect();
        let spec = json!({"nodeSelector": {}, "ingress": items});
        all.push(policy(&format!("rules-{first}"), &spec));
    }
    all
}

fn snapshot(size: Size) -> Result<Arc<PolicySnapshot>, DatapathError> {
    let options = PolicyOptions {
        node_name: "host".to_owned(),
        ..PolicyOptions::default()
    };
    let mut repository = Repository::new(options);
    let own = [Family::V4, Family::V6].map(Family::host);
    let local = RepositoryChange::LocalAddresses(own.to_vec());
    for change in std::iter::once(local).chain(policies(size)) {
        if let Applied::Refused(refusal) = repository.apply(&change) {
            let text = refusal.to_string();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            return Err(DatapathError::Other(lines.join("; ")));
        }
    }
    Ok(repository.snapshot())
}

/// Exactly `size.prefixes` prefixes: the host, the home of the one flow's peer,
/// and random networks that have the identities of the policy's peers in turn.
/// The prefixes do not depend on the rules, so that a world of more rules
/// differs by its verdict tables alone.
fn ipcache4(
    snapshot: &PolicySnapshot,
    size: Size,
) -> (OrdMap<Ipv4Net, IpcacheEntry>, Vec<Ipv4Net>) {
    let known = &snapshot.ipcache4;
    let IpAddr::V4(host) = Family::V4.host() else {
        panic!("the host's IPv4 address is one");
    };
    let peers = (0..size.peers()).map(|peer| known[&Ipv4Net::from(peer4(peer))]);
    let peers: Vec<IpcacheEntry> = peers.collect();
    let must = [
        (host.into(), known[&Ipv4Net::from(host)]),
        (home4(), peers[0]),
    ];
    ipcache(must, all4(size.prefixes), &peers, size.prefixes)
}

fn ipcache6(
    snapshot: &PolicySnapshot,
    size: Size,
) -> (OrdMap<Ipv6Net, IpcacheEntry>, Vec<Ipv6Net>) {
    let known = &snapshot.ipcache6;
    let IpAddr::V6(host) = Family::V6.host() else {
        panic!("the host's IPv6 address is one");
    };
    let peers = (0..size.peers()).map(|peer| known[&Ipv6Net::from(peer6(peer))]);
    let peers: Vec<IpcacheEntry> = peers.collect();
    let must = [
        (host.into(), known[&Ipv6Net::from(host)]),
        (home6(), peers[0]),
    ];
    ipcache(must, all6(size.prefixes), &peers, size.prefixes)
}

/// The map, and the random networks in it.
fn ipcache<N: Ord + Copy>(
    must: [(N, IpcacheEntry); 2],
    networks: Vec<N>,
    peers: &[IpcacheEntry],
    count: usize,
) -> (OrdMap<N, IpcacheEntry>, Vec<N>) {
    let mut out: OrdMap<N, IpcacheEntry> = must.into_iter().collect();
    let mut random = Vec::new();
    for (network, peer) in networks.into_iter().zip(peers.iter().cycle()) {
        if out.len() == count {
            break;
        }
        if !out.contains_key(&network) {
            out.insert(network, *peer);
            random.push(network);
        }
    }
    assert_eq!(out.len(), count);
    (out, random)
}
