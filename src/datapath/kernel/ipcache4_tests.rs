//! The IPv4 ipcache against a naive longest-prefix match, over memory of the
//! process instead of the kernel's; read as the programs read it.

use std::net::Ipv4Addr;

use palisade_abi::ipcache::{ENTRIES_MAX, Entry, ROUNDS_MAX, Strides};
use proptest::prelude::*;

use super::*;
use crate::identity::{IdentityIndex, IdentityNumber};

/// A slot of our own.
struct Memory {
    buckets: Vec<AtomicU64>,
    pool: Vec<AtomicU64>,
}

impl Memory {
    /// With so many words for chunks.
    fn new(words: usize) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            buckets: zeros(BUCKETS + 1),
            pool: zeros(words),
        }
    }

    /// Of a new agent.
    fn known(&self) -> Known {
        Known {
            want: None,
            space: self.slot().space(),
        }
    }

    fn slot(&self) -> Slot<'_> {
        Slot {
            buckets: &self.buckets,
            pool: &self.pool,
        }
    }

    /// The lookup of bpf-prog/src/ipcache4.rs.
    fn answer(&self, address: Ipv4Addr) -> (u32, u32) {
        let address = u32::from(address);
        let word = load(&self.buckets[(address >> 16) as usize]);
        let mut meaning = Meaning(word);
        if Place::is_one(word) {
            let place = Place(word);
            let low = half(address & 0xffff);
            meaning = self.search(place, low).meaning();
            if meaning.is_open() {
                meaning = Meaning(load(&self.pool[place.base()]));
            }
        }
        if meaning.is_open() {
            meaning = Meaning(load(&self.buckets[DEFAULT]));
        }
        if meaning.is_open() {
            return (0, 0);
        }
        (meaning.identity(), meaning.index())
    }

    fn search(&self, place: Place, low: u16) -> Entry {
        let entry = |at: u64| {
            let word = usize::try_from(at / 8).expect("a word");
            Entry(load(&self.pool[word]))
        };
        let mut at = place.base() as u64 * 8 + 8;
        let (mut stride, mut window) = (place.first_stride(), place.window());
        for _ in 0..ROUNDS_MAX {
            let begun = (1..=3).filter(|step| entry(at + step * stride).first() <= low);
            at += begun.map(|_| stride).sum::<u64>();
            window >>= 2;
            stride = window;
            if stride < 8 {
                break;
            }
        }
        entry(at)
    }

    /// The chunks, by the number of their bucket; without where they stand.
    fn content(&self) -> Vec<(u16, Words)> {
        let all = (0..=u16::MAX).map(|number| (number, self.slot().words(number)));
        all.filter(|(_, words)| *words != Words::Whole(Meaning::OPEN))
            .collect()
    }
}

const ADDRESSES: u32 = 65_536;

fn half(address: u32) -> u16 {
    u16::try_from(address).expect("half an address")
}

fn entry(number: u32) -> IpcacheEntry {
    IpcacheEntry {
        identity: IdentityNumber((2 << 24) + number),
        index: IdentityIndex(number),
    }
}

fn naive(want: &Want, address: Ipv4Addr) -> (u32, u32) {
    let around = (0..=32u8).rev().find_map(|length| {
        let prefix = Ipv4Net::new(address, length).expect("a length").trunc();
        want.get(&prefix)
    });
    around.map_or((0, 0), |entry| (entry.identity.0, entry.index.0))
}

/// First halves that short prefixes tell apart in more than one way.
const HIGHS: [u32; 5] = [0x0000, 0x0a00, 0x0a01, 0x0aff, 0xffff];

/// Addresses where ranges begin and end.
fn edges() -> impl Iterator<Item = Ipv4Addr> {
    let lows = [
        0u32, 1, 2, 3, 0x7f, 0x80, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff,
    ];
    HIGHS
        .into_iter()
        .chain([0x0b00, 0x8000])
        .flat_map(move |high| lows.map(|low| Ipv4Addr::from(high << 16 | low)))
}

fn prefix() -> impl Strategy<Value = Ipv4Net> {
    let low = prop_oneof![0u32..4, 0x7ffe_u32..0x8002, 0xfffd_u32..0x1_0000];
    let length = prop_oneof![0u8..=32, 15u8..=18, 30u8..=32];
    (proptest::sample::select(&HIGHS[..]), low, length).prop_map(|(high, low, length)| {
        let net = Ipv4Net::new(Ipv4Addr::from(high << 16 | low), length);
        net.expect("a length").trunc()
    })
}

type Change = (Ipv4Net, Option<u32>);

fn change(want: &mut Want, (prefix, number): Change) {
    match number {
        Some(number) => drop(want.insert(prefix, entry(number))),
        None => drop(want.remove(&prefix)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn after_any_changes_every_address_has_its_longest_prefix(
        steps in proptest::collection::vec(
            proptest::collection::vec((prefix(), proptest::option::weighted(0.6, 1u32..4)), 0..8),
            1..16,
        )
    ) {
        // Hardly more words than needed, so that they are often in pieces.
        let memory = Memory::new(2 * 128 + 4 * HIGHS.len());
        let mut known = memory.known();
        let mut want = Want::new();
        for changes in steps {
            for one in changes {
                change(&mut want, one);
            }
            known.write(memory.slot(), &want).expect("write");
            for address in edges() {
                prop_assert_eq!(memory.answer(address), naive(&want, address), "{}", address);
            }
            prop_assert_eq!(&memory.slot().space(), &known.space);
            let again = known.write(memory.slot(), &want).expect("write");
            prop_assert_eq!(again, 0, "nothing changed");
        }
        prop_assert!(memory.slot().holds_all(&want));
        // The path to it leaves no trace: a slot written at once is the same.
        let other = Memory::new(memory.pool.len());
        other.known().write(other.slot(), &want).expect("write");
        prop_assert_eq!(memory.content(), other.content());
        // Nor does one that a later agent takes over.
        prop_assert_eq!(memory.known().write(memory.slot(), &want).expect("write"), 0);
        // What is listed means the same.
        let listed = prefixes(memory.slot());
        let listed: Want = listed.into_iter().map(|(net, (identity, index))| {
            (net, IpcacheEntry { identity: IdentityNumber(identity), index: IdentityIndex(index) })
        }).collect();
        for address in edges() {
            prop_assert_eq!(naive(&listed, address), naive(&want, address), "{}", address);
        }
        prop_assert!(listed.iter().all(|(net, entry)| want.get(net) == Some(entry)));
    }
}

#[test]
fn a_search_finds_its_range_in_a_chunk_of_any_size() {
    let memory = Memory::new(ENTRIES_MAX + 1);
    let sizes = (1..300).chain([1023, 1024, 1025, 4096, 16_385, 40_000, 65_535, 65_536]);
    for count in sizes {
        let step = ADDRESSES / count;
        let meaning = |place: u32| Meaning::new(7, place, 32);
        let bucket = Bucket {
            cover: Meaning::OPEN,
            ranges: (0..count)
                .map(|place| Entry::new(half(place * step), meaning(place)))
                .collect(),
        };
        let (strides, _) = bucket.chunk().expect("a chunk");
        assert_eq!(strides, Strides::of(count));
        assert!((count..count + 3).contains(&strides.entries()), "{count}");
        let mut space = Space::empty(memory.pool.len(), SEGMENT_WORDS);
        store(&memory.buckets[9], 0);
        assert!(memory.slot().put(&mut space, 9, &bucket).is_some());
        for low in (0..ADDRESSES).step_by(7).chain([65_535]) {
            let (_, place) = memory.answer(Ipv4Addr::from(9 << 16 | low));
            assert_eq!(place, (low / step).min(count - 1), "{count} ranges, {low}");
        }
    }
}

#[test]
fn a_pool_in_pieces_is_written_anew() {
    let hosts = |high: u32, count: u32| {
        let hosts = (0..count).map(move |low| Ipv4Addr::from(high << 16 | low << 1 | 1));
        hosts.map(|host| (Ipv4Net::from(host), entry(1)))
    };
    // Five chunks of 68 words; then the second and the fourth are free.
    let memory = Memory::new(5 * 68);
    let mut known = memory.known();
    let mut want: Want = (0..5).flat_map(|high| hosts(high, 32)).collect();
    known.write(memory.slot(), &want).expect("write");
    let even = |(net, _): &(Ipv4Net, IpcacheEntry)| ranges::bucket_of(net).is_multiple_of(2);
    want = want.into_iter().filter(even).collect();
    known.write(memory.slot(), &want).expect("write");
    want.extend(hosts(6, 64));
    let mut space = known.space.clone().expect("an account");
    assert_eq!(space.take(131), None, "in pieces");
    known.write(memory.slot(), &want).expect("write");
    assert!(memory.slot().holds_all(&want));
    assert_eq!(memory.slot().space(), known.space);
    // Nor do places that make no sense keep a slot from being written.
    let outside = Place::new(5 * 68 - 1, Strides::of(9));
    store(&memory.buckets[3], outside.0);
    let mut later = memory.known();
    assert!(later.space.is_none());
    later.write(memory.slot(), &want).expect("write");
    assert!(memory.slot().holds_all(&want));
}

#[test]
fn a_change_writes_only_what_it_touches() {
    let memory = Memory::new(1 << 16);
    let mut known = memory.known();
    let hosts = (0..20_000u32).map(|host| {
        (
            Ipv4Net::from(Ipv4Addr::from(0x0a00_0000 + host * 64)),
            entry(host),
        )
    });
    let mut want: Want = hosts.collect();
    known.write(memory.slot(), &want).expect("write");
    let mut writes = |changes: &[(&str, Option<u32>)]| {
        for (prefix, number) in changes {
            change(&mut want, (prefix.parse().expect("a prefix"), *number));
        }
        known.write(memory.slot(), &want).expect("write")
    };
    assert_eq!(writes(&[("10.3.0.9/32", Some(7))]), 1, "a bucket");
    assert_eq!(writes(&[("0.0.0.0/0", Some(8))]), 1, "a word");
    assert_eq!(writes(&[("10.2.0.0/15", Some(9))]), 2, "its buckets");
    assert_eq!(
        writes(&[("10.0.0.0/13", Some(9))]),
        6,
        "but for those below a longer one"
    );
    assert_eq!(writes(&[("10.2.0.0/15", None), ("10.3.0.9/32", None)]), 3);
}

/// All stretches of a slot, by parts of so many prefixes, joined where a part ended
/// within a bucket; the most prefixes of one part.
fn by_parts(want: &Want, prefixes_max: usize) -> (Vec<(u16, Bucket)>, usize) {
    let mut all: Vec<(u16, Bucket)> = Vec::new();
    let (mut next, mut most) = (Some(Ipv4Addr::UNSPECIFIED), 0);
    while let Some(from) = next {
        let part = parts::part(want, from, prefixes_max, 512);
        most = most.max(part.prefixes);
        for Stretch {
            number,
            cover,
            from,
            ranges,
            ..
        } in part.stretches
        {
            match all.last_mut() {
                Some((last, bucket)) if *last == number => {
                    assert!(from > 0 && bucket.cover == cover);
                    bucket.ranges.extend(ranges);
                }
                _ => all.push((number, Bucket { cover, ranges })),
            }
        }
        assert!(part.next > next || part.next.is_none(), "it goes on");
        next = part.next;
    }
    (all, most)
}

/// What differs in one bucket, looked at in small pieces.
fn changed(memory: &Memory, want: &Want, prefixes_max: usize, number: u16) -> usize {
    let mut next = Some(Ipv4Addr::from(u32::from(number) << 16));
    let mut changed = 0;
    while let Some(from) = next.filter(|from| ranges::high(*from) == number) {
        let compared = memory.slot().compare(want, from, (prefixes_max, 1));
        changed += compared.changed;
        next = compared.next;
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn parts_of_any_size_are_as_the_whole_and_find_every_word_that_changed(
        list in proptest::collection::vec((prefix(), 1u32..4), 1..24),
        prefixes_max in 1usize..5,
        bit in 0u32..64,
    ) {
        let want: Want = list.into_iter().map(|(net, number)| (net, entry(number))).collect();
        let (found, most) = by_parts(&want, prefixes_max);
        prop_assert!(found == ranges::all(&want).collect::<Vec<_>>());
        // Those of one first address stay together: at most one of each length.
        prop_assert!(most <= prefixes_max + 32);
        let memory = Memory::new(2 * 128 + 4 * HIGHS.len());
        memory.known().write(memory.slot(), &want).expect("write");
        // Whatever word of a chunk or of its bucket is edited, it is found.
        for high in HIGHS.map(half) {
            let number = usize::from(high);
            prop_assert_eq!(changed(&memory, &want, prefixes_max, high), 0);
            let word = load(&memory.buckets[number]);
            let edited = |cell: &AtomicU64| {
                let was = load(cell);
                store(cell, was ^ 1 << bit);
                let found = changed(&memory, &want, prefixes_max, high);
                store(cell, was);
                found
            };
            prop_assert!(edited(&memory.buckets[number]) > 0, "bucket {number:#x}");
            if Place::is_one(word) {
                let place = Place(word);
                for at in place.base()..place.base() + place.words() {
                    prop_assert!(edited(&memory.pool[at]) > 0, "word {at}");
                }
            }
        }
    }
}

#[test]
fn a_part_of_crowded_buckets_is_no_more_work_than_any_other() {
    let hosts = (0..100_000u32).map(|host| {
        let address = Ipv4Addr::from(0x0a00_0000 + host);
        (Ipv4Net::from(address), entry(host % 1_000))
    });
    let want: Want = hosts.collect();
    let bound = crate::limits::AUDIT_PREFIXES_MAX;
    let (found, most) = by_parts(&want, bound);
    assert!(most <= bound + 32, "{most} prefixes in one part");
    assert!(found == ranges::all(&want).collect::<Vec<_>>());
}
