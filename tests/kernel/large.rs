//! Policies as large as they may get, from the documents to the packets.

use std::net::Ipv4Addr;
use std::sync::Arc;

use palisade::datapath::kernel::{KernelDatapath, TestPacket};
use palisade::datapath::{Datapath, DatapathSettings, Generation, StageReport};
use palisade::events::{EndpointId, RepositoryChange, SourceName};
use palisade::policy::{
    Applied, Direction, PolicyOptions, Repository, Resolver, Subject, documents,
};
use palisade_abi::table::BLOCKS_MAX;

use super::guard::{World, in_world};

/// Items of one policy.
const ITEMS: u32 = 500;

/// One node: its policies and what the kernel holds of them.
struct Node {
    repository: Repository,
    resolver: Resolver,
    datapath: KernelDatapath,
}

impl Node {
    fn new(world: &World) -> Self {
        Self {
            repository: Repository::new(PolicyOptions::default()),
            resolver: Resolver::new(Subject::Host(EndpointId(1))),
            datapath: world.open().0,
        }
    }

    /// A policy of these ingress items.
    fn apply(&mut self, name: &str, items: &[String]) {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: \
             {name}}}\nspec:\n  nodeSelector: {{}}\n  ingress:\n{}",
            items.concat()
        );
        let reading = documents::read("large", text.as_bytes(), SourceName::Manifests);
        let [document] = &reading.documents[..] else {
            panic!("not read: {reading:?}");
        };
        let change = RepositoryChange::Upsert(document.resource.clone());
        let applied = self.repository.apply(&change);
        assert!(matches!(applied, Applied::Changed(_)), "{applied:?}");
    }

    /// Stages what the policies say now.
    fn stage(&mut self) -> StageReport {
        let snapshot = self.repository.snapshot();
        let policy = self.resolver.resolve(&snapshot, false).expect("fits");
        let generation = Generation {
            revision: snapshot.revision,
            endpoints: vec![Arc::new(policy)],
            ipcache4: snapshot.ipcache4.clone(),
            ipcache6: snapshot.ipcache6.clone(),
            settings: Arc::new(DatapathSettings::default()),
        };
        self.datapath.stage(&generation).expect("staged")
    }

    /// Makes both slots what the policies say now; of the last one, the writes.
    fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..2 {
            writes = self.stage().writes;
            self.datapath.commit().expect("committed");
        }
        assert_eq!(self.stage().writes, 0, "both slots hold it");
        writes
    }

    /// Whether the first packet of a connection passes.
    fn passes(&self, from: Ipv4Addr, port: u16) -> bool {
        let packet = TestPacket {
            direction: Direction::Ingress,
            frame: &syn(from, port),
            ingress_ifindex: 0,
            mark: 0,
            repeat: 1,
        };
        self.datapath.test_run(&packet).expect("the run").passes
    }
}

/// An Ethernet frame with a TCP SYN to this host.
fn syn(from: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![0u8; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend([127, 0, 0, 1]);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn peer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a64_0000 + number)
}

fn item(from: Ipv4Addr, port: u32) -> String {
    format!(
        "  - {{fromCIDR: [{from}/32], toPorts: [{{ports: [{{port: {port}, protocol: TCP}}]}}]}}\n"
    )
}

fn name(first: u32) -> String {
    format!("p{first:05}")
}

/// Each peer may reach a port of its own.
fn pairs(first: u32) -> Vec<String> {
    let numbers = first..first + ITEMS;
    numbers
        .map(|number| item(peer(number), number + 1))
        .collect()
}

#[test]
fn ten_thousand_peers_with_a_port_of_their_own() {
    in_world(|world| {
        let mut node = Node::new(world);
        for first in (0..10_000).step_by(ITEMS as usize) {
            node.apply(&name(first), &pairs(first));
        }
        let report = node.stage();
        assert!(report.rows > 10_000, "{report:?}");
        assert!(report.blocks < BLOCKS_MAX as usize / 6, "{report:?}");
        node.settle();
        for number in [0, 1, 777, 5_000, 9_999] {
            let own = u16::try_from(number + 1).expect("a port");
            assert!(node.passes(peer(number), own), "{number}");
            assert!(!node.passes(peer(number), own + 1), "{number}");
            assert!(!node.passes(peer(number), 60_000), "{number}");
            assert!(!node.passes(peer(20_000), own), "a stranger, {own}");
        }
        // One rule for another peer: its row moves to another identity.
        let mut items = pairs(500);
        items[7] = item(peer(30_000), 508);
        node.apply(&name(500), &items);
        let writes = node.settle();
        assert!((1..=8).contains(&writes), "{writes} writes");
        assert!(node.passes(peer(30_000), 508) && !node.passes(peer(507), 508));
        // One peer may reach two more ports: a few blocks of its row.
        items[8] = item(peer(508), 509).replace(
            "{port: 509,",
            "{port: 8000, protocol: TCP}, {port: 2000, protocol: TCP}, {port: 509,",
        );
        node.apply(&name(500), &items);
        let writes = node.settle();
        assert!((1..=16).contains(&writes), "{writes} writes");
        assert!(node.passes(peer(508), 2_000) && node.passes(peer(508), 8_000));
        assert!(node.passes(peer(1_999), 2_000) && !node.passes(peer(508), 2_001));
        // The checksum that followed the writes is that of a look at everything.
        let problems = node.datapath.inspector().verify().expect("verify");
        assert_eq!(problems, [""; 0]);
        // A new agent finds all of it, wherever its blocks stand.
        node.datapath.commit().expect("what was staged last");
        let Node {
            repository,
            datapath,
            ..
        } = node;
        drop(datapath);
        let mut node = Node {
            repository,
            ..Node::new(world)
        };
        assert_eq!(node.stage().writes, 0);
    });
}

#[test]
fn a_port_of_its_own_for_every_rule() {
    in_world(|world| {
        let mut node = Node::new(world);
        for first in (1..=65_535).step_by(1_000) {
            let ports = first..(first + 1_000).min(65_536);
            let item = |port: u32| {
                let (one, other) = (port, (port + 7).min(65_535));
                format!(
                    "  - {{toPorts: [{{ports: [{{port: {one}, endPort: {other}, protocol: \
                     TCP}}]}}]}}\n"
                )
            };
            let items: Vec<String> = ports.map(item).collect();
            node.apply(&name(first), &items);
        }
        node.settle();
        for port in [1, 8, 30_000, 65_535] {
            assert!(node.passes(peer(1), port), "{port}");
        }
        assert!(!node.passes(peer(1), 0));
    });
}
