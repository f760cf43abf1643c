//! All maps, in the order of a packet's way. Layouts: `palisade_abi`.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use palisade_abi::{
    SLOTS, calls,
    conntrack::{CtKey4, CtKey6, FragKey4, FragKey6, FragValue},
    control::{ENDPOINTS_MAX, EndpointKey, EndpointValue, Mark},
    event::{Budget, RING_BYTES, lost},
    flows::{Set, Space, evicted},
    ipcache::{Buckets, POOL_ELEMENTS, Segment},
    ipcache6,
    reason::{COUNTERS as COUNTERS_MAX, Counter},
    settings::{FAILSAFE_MAX, FailsafeKey, Settings, VLANS_MAX},
    table::{BLOCKS_ELEMENTS, Block, ROWS_ELEMENTS, RULES_MAX, Rows},
};

/// Sets of conntrack; the agent says how many there are.
const CT_SETS: u32 = 1;
/// Fragmented datagrams under way (Cilium's `bpf-fragments-map-max`).
const FRAGMENTS_MAX: u32 = 8_192;

#[map(name = "pal_commit")]
pub static COMMIT: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "pal_settings")]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);
#[map(name = "pal_vlans")]
pub static VLANS: HashMap<u32, u32> = HashMap::with_max_entries(VLANS_MAX, 0);

/// Values are only tested for presence.
#[map(name = "pal_failsafe")]
pub static FAILSAFE: LpmTrie<FailsafeKey, u32> =
    LpmTrie::with_max_entries(FAILSAFE_MAX, BPF_F_NO_PREALLOC);

/// The agent's own traffic: its mark, and where it may lead.
#[map(name = "pal_mark")]
pub static MARK: Array<Mark> = Array::with_max_entries(1, 0);
#[map(name = "pal_endpoints")]
pub static ENDPOINTS: HashMap<EndpointKey, EndpointValue> =
    HashMap::with_max_entries(ENDPOINTS_MAX, 0);

#[map(name = "pal_calls_in")]
pub static CALLS_IN: ProgramArray = ProgramArray::with_max_entries(calls::COUNT, 0);
#[map(name = "pal_calls_eg")]
pub static CALLS_EG: ProgramArray = ProgramArray::with_max_entries(calls::COUNT, 0);

#[map(name = "pal_frag4")]
pub static FRAG4: LruHashMap<FragKey4, FragValue> = LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
#[map(name = "pal_frag6")]
pub static FRAG6: LruHashMap<FragKey6, FragValue> = LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);

#[map(name = "pal_ct_space")]
pub static CT_SPACE: Array<Space> = Array::with_max_entries(1, 0);
#[map(name = "pal_ct4")]
pub static CT4: Array<Set<CtKey4>> = Array::with_max_entries(CT_SETS, BPF_F_MMAPABLE);
#[map(name = "pal_ct6")]
pub static CT6: Array<Set<CtKey6>> = Array::with_max_entries(CT_SETS, BPF_F_MMAPABLE);
/// Flows that lived and had to make room, by [`palisade_abi::flows`]'s kinds.
#[map(name = "pal_evicted")]
pub static CT_EVICTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(evicted::COUNT, 0);

#[map(name = "pal_buckets4")]
pub static BUCKETS4: Array<Buckets> = Array::with_max_entries(SLOTS as u32, BPF_F_MMAPABLE);
#[map(name = "pal_ipcache4")]
pub static IPCACHE4: Array<Segment> = Array::with_max_entries(POOL_ELEMENTS, BPF_F_MMAPABLE);
#[map(name = "pal_index6")]
pub static INDEX6: Array<ipcache6::Index> = Array::with_max_entries(SLOTS as u32, BPF_F_MMAPABLE);
#[map(name = "pal_ipcache6")]
pub static IPCACHE6: HashMap<u32, ipcache6::Chunk> =
    HashMap::with_max_entries((SLOTS * ipcache6::CHUNKS) as u32, BPF_F_NO_PREALLOC);

#[map(name = "pal_rows")]
pub static ROWS: Array<Rows> = Array::with_max_entries(ROWS_ELEMENTS, BPF_F_MMAPABLE);
#[map(name = "pal_blocks")]
pub static BLOCKS: Array<Block> = Array::with_max_entries(BLOCKS_ELEMENTS, BPF_F_MMAPABLE);

#[map(name = "pal_counters")]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_MAX, 0);
#[map(name = "pal_rules")]
pub static RULES: PerCpuArray<Counter> = PerCpuArray::with_max_entries(RULES_MAX, 0);

#[map(name = "pal_events")]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map(name = "pal_budget")]
pub static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(2, 0);
#[map(name = "pal_lost")]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lost::COUNT, 0);
