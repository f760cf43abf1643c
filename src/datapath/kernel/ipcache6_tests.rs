//! The IPv6 ipcache against a plain reading of its prefixes, searched as the
//! programs search it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::Ipv6Net;
use palisade_abi::ipcache6::{CHUNK_ENTRIES, CHUNKS, Chunk, Meaning, Range, chunk_key};
use proptest::prelude::*;

use super::ranges::{self, Want};
use super::{COUNT, Chunks, HEAD, Known, Slot, WORDS};
use crate::datapath::DatapathError;
use crate::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};

/// One slot without a kernel.
struct Memory {
    index: Vec<AtomicU64>,
    chunks: Elements,
    slot: u32,
}

#[derive(Default)]
struct Elements {
    held: RefCell<BTreeMap<u32, Chunk>>,
    puts: Cell<usize>,
    /// Writes after which they fail.
    fail_after: Cell<Option<usize>>,
}

impl Elements {
    fn may_write(&self) -> Result<(), DatapathError> {
        match self.fail_after.get() {
            Some(0) => Err(DatapathError::Other("no".to_owned())),
            left => {
                self.fail_after.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

impl Chunks for Elements {
    fn get(&self, key: u32) -> Result<Option<Chunk>, DatapathError> {
        Ok(self.held.borrow().get(&key).copied())
    }
    fn put(&self, key: u32, chunk: &Chunk) -> Result<(), DatapathError> {
        self.may_write()?;
        self.puts.set(self.puts.get() + 1);
        self.held.borrow_mut().insert(key, *chunk);
        Ok(())
    }
    fn remove(&self, key: u32) -> Result<(), DatapathError> {
        self.may_write()?;
        self.held.borrow_mut().remove(&key);
        Ok(())
    }
    fn keys(&self) -> Result<Vec<u32>, DatapathError> {
        Ok(self.held.borrow().keys().copied().collect())
    }
}

impl Memory {
    fn new(slot: u32) -> Self {
        let words = HEAD + WORDS * CHUNKS;
        Self {
            index: (0..words).map(|_| AtomicU64::new(0)).collect(),
            chunks: Elements::default(),
            slot,
        }
    }

    fn slot(&self) -> Slot<'_, Elements> {
        Slot {
            index: &self.index,
            chunks: &self.chunks,
            number: self.slot,
        }
    }

    /// What the programs find: `bpf-prog/src/ipcache6.rs`.
    fn answer(&self, address: Ipv6Addr) -> (u32, u32) {
        let load = |word: usize| self.index[word].load(Ordering::Relaxed);
        let entry = |at: usize| {
            let at = HEAD + WORDS * at;
            Range {
                network: load(at),
                host: load(at + 1),
                word: load(at + 2),
            }
        };
        let window = usize::try_from(load(0)).expect("a window");
        let piece = search(window, address, entry);
        let key = chunk_key(self.slot, u32::try_from(piece).expect("a chunk"));
        let Some(chunk) = self.chunks.get(key).expect("a map") else {
            return (0, 0);
        };
        let meaning = Meaning(search(CHUNK_ENTRIES, address, |at| chunk.0[at]));
        (meaning.identity(), meaning.index())
    }
}

fn search(window: usize, address: Ipv6Addr, entry: impl Fn(usize) -> Range) -> u64 {
    let (mut at, mut stride) = (0, window);
    while stride > 1 {
        stride /= 2;
        if ranges::begin_of(&entry(at + stride)) <= address.to_bits() {
            at += stride;
        }
    }
    entry(at).word
}

fn entry(number: u32) -> IpcacheEntry {
    IpcacheEntry {
        identity: IdentityNumber(u32::MAX - number),
        index: IdentityIndex(number),
    }
}

fn naive(want: &Want, address: Ipv6Addr) -> (u32, u32) {
    let around = (0..=128u8).rev().find_map(|length| {
        let prefix = Ipv6Net::new(address, length).expect("a length").trunc();
        want.get(&prefix)
    });
    around.map_or((0, 0), |entry| (entry.identity.0, entry.index.0))
}

/// First parts that the addresses of the tests have.
const NETWORKS: [u64; 6] = [
    0,
    0x2001_0db8_0000_0000,
    0x2001_0db8_0000_0001,
    0x2001_0db8_0001_0000,
    0x8000_0000_0000_0000,
    u64::MAX,
];
const HOSTS: [u64; 8] = [
    0,
    1,
    2,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x8000_0000_0000_0001,
    u64::MAX - 1,
    u64::MAX,
];

fn address(network: u64, host: u64) -> Ipv6Addr {
    Ipv6Addr::from((u128::from(network) << 64) | u128::from(host))
}

fn net(network: u64, host: u64, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address(network, host), length).trunc()
}

/// Where ranges begin and end.
fn edges() -> impl Iterator<Item = Ipv6Addr> {
    NETWORKS
        .into_iter()
        .flat_map(|network| HOSTS.map(|host| address(network, host)))
}

fn prefix() -> impl Strategy<Value = Ipv6Net> {
    let length = prop_oneof![0u8..=128, Just(64u8), Just(128u8), 62u8..=66, 126u8..=128];
    let (networks, hosts) = (
        proptest::sample::select(&NETWORKS[..]),
        proptest::sample::select(&HOSTS[..]),
    );
    (networks, hosts, length).prop_map(|(network, host, length)| net(network, host, length))
}

#[derive(Clone, Debug)]
struct Step {
    changes: Vec<(Ipv6Net, Option<u32>)>,
    /// So many hosts in one network, from nothing.
    crowd: Option<(u64, u16)>,
    /// A write fails.
    fails_after: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (prefix(), proptest::option::weighted(0.6, 1u32..4));
    let crowd = (proptest::sample::select(&NETWORKS[..]), 0u16..400);
    (
        proptest::collection::vec(change, 0..8),
        proptest::option::weighted(0.3, crowd),
        proptest::option::weighted(0.1, 0usize..3),
    )
        .prop_map(|(changes, crowd, fails_after)| Step {
            changes,
            crowd,
            fails_after,
        })
}

fn apply(want: &mut Want, step: &Step) {
    if let Some((network, count)) = step.crowd {
        for host in 0..400u64 {
            want.remove(&net(network, host << 20, 128));
        }
        for host in 0..u64::from(count) {
            want.insert(net(network, host << 20, 128), entry(7));
        }
    }
    for (prefix, number) in &step.changes {
        match number {
            Some(number) => drop(want.insert(*prefix, entry(*number))),
            None => drop(want.remove(prefix)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn after_any_changes_every_address_has_its_longest_prefix(
        steps in proptest::collection::vec(step(), 1..12)
    ) {
        let memory = Memory::new(1);
        let (mut known, mut want) = (Known::default(), Want::new());
        for step in steps {
            apply(&mut want, &step);
            memory.chunks.fail_after.set(step.fails_after);
            if known.write(&memory.slot(), &want).is_err() {
                prop_assert!(step.fails_after.is_some());
                memory.chunks.fail_after.set(None);
                known.write(&memory.slot(), &want).expect("write");
            }
            memory.chunks.fail_after.set(None);
            for address in edges() {
                prop_assert_eq!(memory.answer(address), naive(&want, address), "{}", address);
            }
            prop_assert_eq!(known.write(&memory.slot(), &want).expect("write"), 0, "nothing changed");
            // Nor does an agent that starts now write anything.
            let mut later = Known::default();
            prop_assert_eq!(later.write(&memory.slot(), &want).expect("write"), 0);
            let index = memory.slot().read_index().expect("an index");
            prop_assert_eq!(memory.chunks.keys().expect("keys").len(), index.len(), "none is left over");
        }
        let listed = memory.slot().prefixes().expect("prefixes");
        let is_wanted = |(net, view): (&Ipv6Net, &(u32, u32))| {
            let entry = want.get(net);
            entry.is_some_and(|it| (it.identity.0, it.index.0) == *view)
        };
        prop_assert!(listed.iter().all(is_wanted));
        let hidden = want.keys().filter(|net| !listed.contains_key(net));
        for net in hidden {
            let longer = want.keys().filter(|it| net.contains(*it) && it != &net);
            prop_assert!(longer.count() > 0, "{} is not listed", net);
        }
    }
}

/// A host in each of many networks.
fn hosts(count: u64) -> Want {
    let nets = (0..count).map(|number| net((0xfd00 << 48) | (number * 3), 9, 128));
    nets.zip((0..4).cycle().map(entry)).collect()
}

#[test]
fn an_index_of_any_size_is_searched() {
    for count in [1u64, 23, 24, 32, 33, 95, 96, 97, 1_000, 20_000] {
        let memory = Memory::new(0);
        let want = hosts(count);
        let writes = Known::default().write(&memory.slot(), &want);
        assert!(writes.expect("write") > 0);
        for number in (0..count).step_by(usize::try_from(count / 64).expect("few") + 1) {
            for (network, host) in [
                (number * 3, 9),
                (number * 3, 8),
                (number * 3, 10),
                (number * 3 + 1, 9),
            ] {
                let address = address((0xfd00 << 48) | network, host);
                assert_eq!(
                    memory.answer(address),
                    naive(&want, address),
                    "{count}: {address}"
                );
            }
        }
    }
}

#[test]
fn a_change_writes_only_the_chunks_that_it_touches() {
    let memory = Memory::new(1);
    let mut want = hosts(20_000);
    let mut known = Known::default();
    known.write(&memory.slot(), &want).expect("write");
    let mut puts = |prefix: Ipv6Net, number: Option<u32>| {
        let before = memory.chunks.puts.get();
        apply(
            &mut want,
            &Step {
                changes: vec![(prefix, number)],
                crowd: None,
                fails_after: None,
            },
        );
        known.write(&memory.slot(), &want).expect("write");
        for address in [prefix.network(), prefix.broadcast()] {
            assert_eq!(memory.answer(address), naive(&want, address), "{address}");
        }
        memory.chunks.puts.get() - before
    };
    let host = net((0xfd00 << 48) | 30_000, 77, 128);
    assert!(puts(host, Some(1)) <= 2, "a host comes");
    assert!(puts(host, Some(2)) <= 2, "changes");
    assert!(puts(host, None) <= 2, "and goes");
    assert!(
        puts(net((0xfd00 << 48) | 30_000, 0, 64), Some(3)) <= 2,
        "a link around one"
    );
    assert!(
        puts(net((0xfd00 << 48) | 30_000, 0, 56), Some(3)) <= 16,
        "256 links"
    );
}

#[test]
fn a_slot_that_makes_no_sense_is_written_anew() {
    let want = hosts(1_000);
    let edits: [(&str, usize, u64); 6] = [
        ("too many chunks", COUNT, u64::MAX),
        ("a chunk fewer", COUNT, 3),
        ("another window", 0, 4),
        ("a gap at the beginning", HEAD + 1, 1),
        ("a chunk twice", HEAD + WORDS + 2, 0),
        ("another beginning", HEAD + WORDS, 5),
    ];
    for (what, word, value) in edits {
        let memory = Memory::new(0);
        Known::default()
            .write(&memory.slot(), &want)
            .expect("write");
        memory.index[word].store(value, Ordering::Relaxed);
        assert!(
            memory.slot().holding(&want).expect("compare").is_none(),
            "{what}"
        );
        let writes = Known::default().write(&memory.slot(), &want);
        assert!(writes.expect("write") > 0, "{what}");
        assert!(
            memory.slot().holding(&want).expect("compare").is_some(),
            "{what}"
        );
    }
    let memory = Memory::new(0);
    Known::default()
        .write(&memory.slot(), &want)
        .expect("write");
    let keys = memory.chunks.keys().expect("keys");
    memory.chunks.held.borrow_mut().remove(&keys[2]);
    assert!(
        memory.slot().holding(&want).expect("compare").is_none(),
        "a chunk is gone"
    );
}
