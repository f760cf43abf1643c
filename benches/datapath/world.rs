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

/// How much of everything there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Size {
    pub(crate) rules: usize,
    /// Of IPv4.
    pub(crate) prefixes: usize,
}

impl Size {
    fn peers(self) -> usize {
        self.rules.div_ceil(PORTS_OF_PEER)
    }
    /// The peer of the cases with one flow.
    fn middle(self) -> usize {
        self.peers() / 2
    }
    pub(crate) fn peer(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => peer4(self.middle()).into(),
            Family::V6 => peer6(self.middle()).into(),
        }
    }
    /// TCP ports that rules of their own open for that peer.
    pub(crate) fn peer_ports(self) -> [u16; 2] {
        [1, PORTS_OF_PEER - 1].map(|place| port(self.middle(), place))
    }
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
    pub(crate) cells: usize,
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
        let report = datapath.stage(&generation)?;
        datapath.commit()?;
        Ok(Self {
            size,
            datapath,
            prefixes4,
            prefixes6,
            ipcache4,
            ipcache6,
            cells: report.cells,
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

/// IPv6 prefixes at most: the figures of more are IPv4's.
const PREFIXES6_MAX: usize = 10_000;

/// Exactly `size.prefixes` prefixes: the host, the peer of the one flow, the
/// other prefixes of the policy as far as there is room, then random networks
/// that have the identities of the policy's peers.
fn ipcache4(
    snapshot: &PolicySnapshot,
    size: Size,
) -> (OrdMap<Ipv4Net, IpcacheEntry>, Vec<Ipv4Net>) {
    let own = |address: IpAddr| match address {
        IpAddr::V4(address) => Ipv4Net::from(address),
        IpAddr::V6(address) => panic!("{address} is no IPv4 address"),
    };
    let must = [own(Family::V4.host()), own(size.peer(Family::V4))];
    let peers = (0..size.peers()).map(|peer| Ipv4Net::from(peer4(peer)));
    let more = networks4(&mut Random(4), size.prefixes);
    ipcache(&snapshot.ipcache4, &must, peers.collect(), more, size)
}

fn ipcache6(
    snapshot: &PolicySnapshot,
    size: Size,
) -> (OrdMap<Ipv6Net, IpcacheEntry>, Vec<Ipv6Net>) {
    let own = |address: IpAddr| match address {
        IpAddr::V6(address) => Ipv6Net::from(address),
        IpAddr::V4(address) => panic!("{address} is no IPv6 address"),
    };
    let must = [own(Family::V6.host()), own(size.peer(Family::V6))];
    let peers = (0..size.peers()).map(|peer| Ipv6Net::from(peer6(peer)));
    let size = Size {
        prefixes: size.prefixes.min(PREFIXES6_MAX),
        ..size
    };
    let more = networks6(&mut Random(6), size.prefixes);
    ipcache(&snapshot.ipcache6, &must, peers.collect(), more, size)
}

/// The map, and the random networks in it.
fn ipcache<N: Ord + Copy>(
    known: &OrdMap<N, IpcacheEntry>,
    must: &[N],
    peers: Vec<N>,
    more: Vec<N>,
    size: Size,
) -> (OrdMap<N, IpcacheEntry>, Vec<N>) {
    let mut out = OrdMap::new();
    for prefix in must.iter().chain(&peers) {
        if out.len() < size.prefixes {
            out.insert(*prefix, known[prefix]);
        }
    }
    let mut random = Vec::new();
    for (prefix, peer) in more.into_iter().zip(peers.iter().cycle()) {
        if out.len() == size.prefixes {
            break;
        }
        out.insert(prefix, known[peer]);
        random.push(prefix);
    }
    assert_eq!(out.len(), size.prefixes);
    (out, random)
}
