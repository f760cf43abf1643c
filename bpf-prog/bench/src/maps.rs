//! The maps of the floors: like those of the shipped programs, but apart.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use palisade_abi::{
    conntrack::{CtKey4, CtKey6},
    event::RING_BYTES,
    reason::Counter,
    table::{IPCACHE_MAX, IpcacheValue},
};

use crate::{
    floors::Entry,
    layout::{Tuple, Walk, calls},
};

/// Conntrack entries, as shipped.
const FLOWS: u32 = 524_288;
/// The loader sets what it needs.
const TUPLES_MAX: u32 = 1 << 16;

#[map(name = "b_walk")]
pub static WALK: Array<Walk> = Array::with_max_entries(1, 0);
#[map(name = "b_tuples")]
pub static TUPLES: Array<Tuple> = Array::with_max_entries(TUPLES_MAX, 0);
#[map(name = "b_calls")]
pub static CALLS: ProgramArray = ProgramArray::with_max_entries(calls::COUNT, 0);

#[map(name = "b_lpm4")]
pub static LPM4: LpmTrie<u32, IpcacheValue> =
    LpmTrie::with_max_entries(IPCACHE_MAX, BPF_F_NO_PREALLOC);
#[map(name = "b_lpm6")]
pub static LPM6: LpmTrie<[u32; 4], IpcacheValue> =
    LpmTrie::with_max_entries(IPCACHE_MAX, BPF_F_NO_PREALLOC);

#[map(name = "b_lru4")]
pub static LRU4: LruHashMap<CtKey4, Entry> = LruHashMap::with_max_entries(FLOWS, 0);
#[map(name = "b_lru6")]
pub static LRU6: LruHashMap<CtKey6, Entry> = LruHashMap::with_max_entries(FLOWS, 0);
/// Flows that are inserted: emptied between two runs.
#[map(name = "b_new4")]
pub static NEW4: LruHashMap<CtKey4, Entry> = LruHashMap::with_max_entries(FLOWS, 0);
#[map(name = "b_new6")]
pub static NEW6: LruHashMap<CtKey6, Entry> = LruHashMap::with_max_entries(FLOWS, 0);

#[map(name = "b_hash4")]
pub static HASH4: HashMap<CtKey4, Entry> = HashMap::with_max_entries(FLOWS, 0);
#[map(name = "b_counters")]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(512, 0);
#[map(name = "b_ring")]
pub static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
