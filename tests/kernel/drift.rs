//! Drift: whatever somebody changes in the kernel is found by the audit, told
//! with its kind, and mended without opening anything.

use std::path::PathBuf;
use std::sync::Arc;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData};
use palisade::datapath::kernel::{
    AuditReport, Auditor, Finding, Guarded, Inspector, Mending, Part, Unwanted, detach,
};
use palisade::datapath::{
    ControlDoor as _, ControlEndpoint, ControlMark, Datapath, DatapathSettings, Generation,
};
use palisade::policy::{Direction, FailsafeEntry};
use palisade_abi::ABI_VERSION;
use palisade_abi::ipcache6::{Index, chunk_key};
use palisade_abi::table::{ROW_WORDS, blocks_element};

use super::build::{generation, prefixes4, prefixes6, tcp_ports};
use super::guard::{World, in_world, run};

/// Rows are large values, which go over the stack.
const STACK_BYTES: usize = 32 << 20;

/// A datapath that enforces a policy on one device.
struct Node {
    dir: PathBuf,
    datapath: Guarded,
    inspector: Inspector,
    auditor: Auditor,
}

fn policy() -> Generation {
    let mut policy = generation(3, Some(tcp_ports(&[22])), Some(tcp_ports(&[443])));
    let list = [
        ("::/0", 200, 1),
        ("fd00::/64", 201, 0),
        ("fd00::7/128", 202, 1),
    ];
    policy.ipcache6 = prefixes6(&list);
    let list = [
        ("0.0.0.0/0", 200, 1),
        ("10.1.0.0/16", 201, 0),
        ("10.1.2.3/32", 202, 1),
    ];
    policy.ipcache4 = prefixes4(&list);
    policy.settings = Arc::new(DatapathSettings {
        failsafe: vec![FailsafeEntry {
            direction: 0,
            proto: 6,
            port: 22,
            peer: None,
        }],
        vlan_allow: vec![100],
        ..DatapathSettings::default()
    });
    policy
}

/// Where the agent's own traffic may lead.
fn control_endpoints() -> Vec<ControlEndpoint> {
    let to = |address: &str| ControlEndpoint {
        address: address.parse().expect("an address"),
        proto: 6,
        unmarked_while_degraded: false,
    };
    vec![to("192.0.2.7:6443"), to("[fd00::7]:2379")]
}

impl Node {
    /// Two commits, so that both slots are known.
    fn new(world: &World) -> Self {
        let (mut datapath, _) = world.open();
        let device = world.veth("v0", "v1");
        let attachments = datapath.attachments();
        let sync = attachments.sync_devices(&[device], Unwanted::Keep);
        assert_eq!(sync.expect("sync").failed, []);
        for _ in 0..2 {
            datapath.stage(&policy()).expect("stage");
            datapath.commit().expect("commit");
        }
        let control = datapath.control();
        control.set_mark(ControlMark::DEFAULT).expect("the mark");
        control.replace(&control_endpoints()).expect("the list");
        let inspector = datapath.inspector();
        let datapath = Guarded::new(datapath);
        Self {
            dir: world.dir().to_owned(),
            auditor: Auditor::new(&datapath),
            datapath,
            inspector,
        }
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}_v{ABI_VERSION}"))
    }

    fn map(&self, name: &str) -> MapData {
        MapData::from_pin(self.pin(name)).expect("a pinned map")
    }

    fn array<V: Pod>(&self, name: &str) -> Array<MapData, V> {
        Array::try_from(Map::Array(self.map(name))).expect("an array")
    }
    fn trie<K: Pod, V: Pod>(&self, name: &str) -> LpmTrie<MapData, K, V> {
        LpmTrie::try_from(Map::LpmTrie(self.map(name))).expect("a trie")
    }

    fn slot(&self) -> u32 {
        self.inspector.commit_state().slot
    }

    /// Changes one element, as any root user could.
    fn edit<V: Pod>(&self, name: &str, element: u32, change: impl FnOnce(&mut V)) {
        let mut array = self.array::<V>(name);
        let mut value = array.get(&element, 0).expect("an element");
        change(&mut value);
        array.set(element, value, 0).expect("an edit");
    }

    fn commit(&mut self) {
        self.datapath.stage(&policy()).expect("stage");
        self.datapath.commit().expect("commit");
    }

    /// What the committer does when it is asked to renew.
    fn renew(&mut self) {
        assert!(
            !self.datapath.matches_current(&policy()).expect("compare"),
            "what was found wrong is not believed again"
        );
        self.commit();
    }

    /// The one finding of an audit.
    fn only(&mut self) -> Finding {
        let report = self.auditor.pass();
        assert_eq!(report.findings.len(), 1, "{report:?}");
        report.findings[0].clone()
    }

    fn is_mended(&mut self, part: Part) {
        let finding = self.only();
        assert_eq!(
            (finding.part, &finding.mending),
            (part, &Mending::Done),
            "{finding:?}"
        );
        self.is_clean();
    }

    #[track_caller]
    fn is_clean(&mut self) -> AuditReport {
        let report = self.auditor.pass();
        assert_eq!(report.findings, [], "{report:?}");
        report
    }
}

/// Runs the test with room for large values on its stack.
fn with_node(test: impl FnOnce(&mut Node) + Send) {
    in_world(|world| {
        std::thread::scope(|scope| {
            let body = || test(&mut Node::new(world));
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let ended = thread.spawn_scoped(scope, body).expect("a thread").join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}

#[test]
fn an_untouched_kernel_is_clean_and_every_part_is_compared() {
    with_node(|node| {
        let report = node.is_clean();
        for part in Part::ALL {
            assert!(
                report.compared.contains_key(&part),
                "{part:?} in {report:?}"
            );
        }
        let compared = |part| report.compared[&part];
        assert_eq!(compared(Part::IpcacheV4), 2 * 65_536, "both slots");
        assert_eq!(compared(Part::IpcacheV6), 2, "a chunk in each slot");
        assert_eq!(compared(Part::Blocks), 4, "two in each slot");
        assert_eq!(compared(Part::Attachment), 2);
    });
}

#[test]
fn an_edited_commit_word_is_stored_again_with_another_epoch() {
    with_node(|node| {
        let mut words = node.array::<u64>("pal_commit");
        let right = words.get(&0, 0).expect("the word");
        let epoch = 0x00ff_ffff << 8;
        // Nothing enforced, the other slot, nothing at all.
        for wrong in [right & !0b110, right ^ 1, 0] {
            let before = words.get(&0, 0).expect("the word");
            words.set(0, wrong, 0).expect("an edit");
            node.is_mended(Part::CommitWord);
            let after = words.get(&0, 0).expect("the word");
            assert_eq!(after & !epoch, right & !epoch, "all but the epoch");
            assert_ne!(after & epoch, before & epoch, "flows are judged again");
        }
    });
}

/// The current slot is replaced by a new generation, the inactive one written
/// anew before it is used again; either way both are right after that.
fn is_replaced(node: &mut Node, part: Part, current: bool) {
    let finding = node.only();
    assert_eq!(finding.part, part, "{finding:?}");
    let before = node.inspector.commit_state();
    if current {
        assert_eq!(finding.mending, Mending::NeedsGeneration);
        node.renew();
        let after = node.inspector.commit_state();
        assert_ne!((after.slot, after.epoch), (before.slot, before.epoch));
    } else {
        assert_eq!(finding.mending, Mending::Done);
        node.commit();
    }
    for _ in 0..2 {
        node.is_clean();
        node.commit();
    }
    assert_eq!(node.inspector.verify().expect("verify"), [""; 0]);
}

fn slot_of(node: &Node, current: bool) -> u32 {
    if current {
        node.slot()
    } else {
        1 - node.slot()
    }
}

#[test]
fn edited_rows_and_blocks_are_replaced() {
    with_node(|node| {
        for current in [true, false] {
            let rows = 2 * slot_of(node, current) + 1;
            node.edit::<[u32; ROW_WORDS]>("pal_rows", rows, |row| row[77] ^= 0x100);
            is_replaced(node, Part::Rows, current);

            let slot = node.slot();
            let table = node.inspector.table(Direction::Ingress).expect("a table");
            let place = *table.blocks.keys().next().expect("a block");
            if !current {
                // What was the current slot so far is the other one from now on.
                node.commit();
            }
            let element = blocks_element(slot, place);
            node.edit::<[u32; 16]>("pal_blocks", element, |block| block[0] ^= 0x200);
            is_replaced(node, Part::Blocks, current);
        }
    });
}

#[test]
fn edited_ipv4_ranges_are_replaced() {
    with_node(|node| {
        for current in [true, false] {
            // 10.1.0.0/16 is another identity, 10.9.0.0/16 has one suddenly.
            for bucket in [0x0a01, 0x0a09] {
                let slot = slot_of(node, current);
                let edit = |words: &mut [u64; 65_537]| words[bucket] = 0x0123_0000_0000_0001;
                node.edit("pal_buckets4", slot, edit);
                is_replaced(node, Part::IpcacheV4, current);
            }
        }
    });
}

/// A chunk of the IPv6 ipcache: 64 ranges, of which each is where it begins, in two
/// words, and what it means.
type Chunk = [u64; 3 * 64];

#[test]
fn an_edited_ipv6_ipcache_is_replaced() {
    with_node(|node| {
        let chunks = |node: &Node| -> HashMap<MapData, u32, Chunk> {
            HashMap::try_from(Map::HashMap(node.map("pal_ipcache6"))).expect("a hash")
        };
        for current in [true, false] {
            // All is another identity, and other ranges begin elsewhere.
            for (word, value) in [(2, 0x8123_0000_0000_0001), (3, 1), (3 * 63, 0)] {
                let key = chunk_key(slot_of(node, current), 0);
                let mut chunks = chunks(node);
                let mut chunk = chunks.get(&key, 0).expect("a chunk");
                chunk[word] = value;
                chunks.insert(key, chunk, 0).expect("an edit");
                is_replaced(node, Part::IpcacheV6, current);
            }
            let key = chunk_key(slot_of(node, current), 0);
            chunks(node).remove(&key).expect("an edit");
            is_replaced(node, Part::IpcacheV6, current);
            let slot = slot_of(node, current);
            let edit = |index: &mut [u64; size_of::<Index>() / 8]| index[1] = 7;
            node.edit("pal_index6", slot, edit);
            is_replaced(node, Part::IpcacheV6, current);
        }
    });
}

#[test]
fn small_parts_are_written_again() {
    with_node(|node| {
        let slot = node.slot();
        node.edit::<[u32; 8]>("pal_settings", slot, |settings| settings[0] = 1);
        node.is_mended(Part::Settings);

        node.edit::<[u64; 3]>("pal_meta", slot, |record| record[0] += 1);
        node.is_mended(Part::SlotRecord);

        let mut vlans: HashMap<_, u32, u32> =
            HashMap::try_from(Map::HashMap(node.map("pal_vlans"))).expect("a map");
        vlans.insert(7, 3, 0).expect("an edit");
        node.is_mended(Part::Vlans);
        let allowed_in = vlans.get(&7, 0).unwrap_or(0);
        assert_eq!(allowed_in >> slot & 1, 0, "id 7 is not allowed");
        vlans.remove(&100).expect("an edit");
        node.is_mended(Part::Vlans);

        let mut failsafe = node.trie::<[u32; 6], u32>("pal_failsafe");
        let keys: Vec<_> = failsafe.keys().collect::<Result<_, _>>().expect("keys");
        assert_eq!(keys.len(), 4, "both families in both slots");
        let is_current = |key: &&Key<[u32; 6]>| u32::from(key.data()[0].to_ne_bytes()[0]) == slot;
        let gone = keys.iter().find(is_current).expect("an entry");
        failsafe.remove(gone).expect("an edit");
        node.is_mended(Part::Failsafe);
        assert_eq!(failsafe.keys().count(), 4);

        for array in ["pal_calls_in", "pal_calls_eg"] {
            let (pin, entry) = (node.pin(array), 2 * slot);
            run(&format!(
                "bpftool map delete pinned {} key {entry} 0 0 0",
                pin.display()
            ));
            node.is_mended(Part::ProgramArray);
        }
    });
}

/// Who could edit them could let anything out, or cut the agent from its sources.
#[test]
fn the_agents_own_traffic_is_listed_as_it_was_said() {
    with_node(|node| {
        let epoch = |node: &Node| node.inspector.commit_state().epoch;
        let listed = |node: &Node| {
            let listed = node.inspector.control().expect("the list");
            listed.iter().map(|it| it.endpoint).collect::<Vec<_>>()
        };
        let before = epoch(node);
        node.edit::<[u32; 2]>("pal_mark", 0, |mark| mark[1] = 1);
        node.is_mended(Part::ControlMark);
        let mark = node.array::<[u32; 2]>("pal_mark").get(&0, 0).expect("it");
        let ControlMark(right) = ControlMark::DEFAULT;
        assert_eq!(mark, [right.value, right.mask]);
        assert_ne!(epoch(node), before, "flows are judged again");

        let mut map: HashMap<_, [u32; 5], [u64; 2]> =
            HashMap::try_from(Map::HashMap(node.map("pal_endpoints"))).expect("a map");
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>().expect("keys");
        // Removed, passing more than it should, and one that nobody said.
        map.remove(&keys[0]).expect("an edit");
        map.insert(keys[1], [1, 0], 0).expect("an edit");
        let mut stranger = keys[1];
        stranger[0] ^= 1;
        map.insert(stranger, [0, 0], 0).expect("an edit");
        let before = epoch(node);
        let finding = node.only();
        assert_eq!((finding.part, finding.count), (Part::ControlEndpoints, 3));
        assert_eq!(finding.mending, Mending::Done);
        node.is_clean();
        assert_ne!(epoch(node), before, "flows are judged again");
        assert_eq!(listed(node), control_endpoints());
    });
}

/// A wrong slot that looks right by the time it is replaced is replaced all the
/// same: flows were judged by it.
#[test]
fn what_was_wrong_for_a_while_is_judged_anew() {
    with_node(|node| {
        let rows = 2 * node.slot();
        let flip = |row: &mut [u32; ROW_WORDS]| row[5] ^= 0x100;
        node.edit("pal_rows", rows, flip);
        assert_eq!(node.only().mending, Mending::NeedsGeneration);
        node.edit("pal_rows", rows, flip);
        let before = node.inspector.commit_state();
        node.renew();
        assert_ne!(node.inspector.commit_state().epoch, before.epoch);
        node.is_clean();
    });
}

/// The audit goes on in pieces between commits.
#[test]
fn commits_between_the_pieces_are_no_drift() {
    with_node(|node| {
        let mut other = policy();
        other.ipcache6 = prefixes6(&[("::/0", 200, 1), ("fd01::/64", 203, 1)]);
        other.ipcache4 = prefixes4(&[("0.0.0.0/0", 200, 1), ("10.2.0.0/24", 203, 1)]);
        other.endpoints = generation(4, Some(tcp_ports(&[80])), None).endpoints;
        let mut passes = 0;
        for round in 0.. {
            if let Some(report) = node.auditor.step() {
                assert_eq!(report.findings, [], "{report:?}");
                passes += 1;
                if passes == 2 {
                    break;
                }
            }
            if round % 7 == 0 {
                let next = if round % 2 == 0 { &other } else { &policy() };
                node.datapath.stage(next).expect("stage");
                if round % 3 == 0 {
                    node.datapath.commit().expect("commit");
                }
            }
        }
    });
}

#[test]
fn detach_leaves_nothing_after_repairs() {
    in_world(|world| {
        let mut node = Node::new(world);
        let objects = super::guard::Objects::all(&node.inspector);
        std::fs::remove_file(node.pin("pal_ct4")).expect("a pin");
        node.edit::<[u32; 8]>("pal_settings", node.slot(), |settings| settings[0] = 1);
        assert_eq!(node.auditor.pass().findings.len(), 2);
        node.is_clean();
        drop(node);
        detach(world.dir()).expect("detach");
        assert_eq!(objects.left(), [""; 0]);
        assert!(!world.dir().exists());
    });
}
