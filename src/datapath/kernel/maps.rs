//! The maps by name: what they must look like, element access as plain values.
//!
//! Any thread: a [`Map`] is a descriptor, and the kernel serialises element
//! access. Who may write which map is said where it is written.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use palisade_abi::commit::CommitWord;
use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6};
use palisade_abi::control::{self, EndpointKey, EndpointValue, Mark};
use palisade_abi::event::Event;
use palisade_abi::flows::{Set, Space};
use palisade_abi::reason::Counter;
use palisade_abi::settings::{FailsafeKey, Settings};
use palisade_abi::{ipcache, ipcache6, reason, settings, table};

use super::meta::SlotMeta;
use super::sys;
use crate::datapath::DatapathError;

/// Values that may be copied to and from the kernel as bytes.
///
/// # Safety
/// `repr(C)`, no padding that is not an explicit field, every bit pattern valid.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: an ABI type: `repr(C)` with explicit padding, integers only.
            unsafe impl Plain for $type {}
        )+
    };
}
plain!(
    u32,
    u64,
    [u32; 2],
    CommitWord,
    CtKey4,
    CtKey6,
    CtEntry,
    Space,
    Counter,
    EndpointKey,
    EndpointValue,
    Event,
    ipcache6::Chunk,
    Mark,
    Settings,
    SlotMeta,
);

/// Key of a trie of prefixes: the length of the prefix in bits, then the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TrieKey<A> {
    pub(crate) prefix_len: u32,
    pub(crate) address: A,
}
// SAFETY: a word and an ABI type of words, without padding.
unsafe impl Plain for TrieKey<FailsafeKey> {}

/// The bytes of a value.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` has no uninitialised padding; the borrow keeps it alive.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A value from its bytes.
pub(crate) fn value_of<T: Plain>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>(), "value of another size");
    // SAFETY: the length was checked, every bit pattern is valid, the read is unaligned.
    unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) }
}

/// A value from its first bytes; what is missing is zero.
pub(crate) fn prefix_of<T: Plain>(bytes: &[u8]) -> T {
    if bytes.len() == size_of::<T>() {
        return value_of(bytes);
    }
    let mut whole = vec![0; size_of::<T>()];
    let known = bytes.len().min(whole.len());
    whole[..known].copy_from_slice(&bytes[..known]);
    value_of(&whole)
}

/// Our maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum MapName {
    Commit,
    Settings,
    Failsafe,
    CallsIn,
    CallsEg,
    Buckets4,
    Ipcache4,
    Index6,
    Ipcache6,
    CtSpace,
    Ct4,
    Ct6,
    CtEvicted,
    Frag4,
    Frag6,
    Rows,
    Blocks,
    Counters,
    Rules,
    Events,
    Budget,
    Lost,
    Vlans,
    Meta,
    Mark,
    Endpoints,
}

/// What a map must look like to be ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapSpec {
    pub(crate) map: MapName,
    pub(crate) name: &'static str,
    pub(crate) map_type: u32,
    pub(crate) key_size: usize,
    pub(crate) value_size: usize,
    /// None: configurable.
    pub(crate) max_entries: Option<u32>,
}

const fn spec(
    map: MapName,
    name: &'static str,
    map_type: u32,
    sizes: (usize, usize),
    max_entries: Option<u32>,
) -> MapSpec {
    MapSpec {
        map,
        name,
        map_type,
        key_size: sizes.0,
        value_size: sizes.1,
        max_entries,
    }
}

const ARRAY: u32 = sys::MAP_TYPE_ARRAY;
const PERCPU: u32 = sys::MAP_TYPE_PERCPU_ARRAY;
const LRU: u32 = sys::MAP_TYPE_LRU_HASH;
const LPM: u32 = sys::MAP_TYPE_LPM_TRIE;

/// All maps, in the order of [`MapName`].
pub(crate) const SPECS: [MapSpec; 26] = [
    spec(MapName::Commit, "pal_commit", ARRAY, (4, 8), Some(1)),
    spec(
        MapName::Settings,
        "pal_settings",
        ARRAY,
        (4, size_of::<Settings>()),
        Some(2),
    ),
    spec(
        MapName::Failsafe,
        "pal_failsafe",
        LPM,
        (28, 4),
        Some(settings::FAILSAFE_MAX),
    ),
    spec(
        MapName::CallsIn,
        "pal_calls_in",
        sys::MAP_TYPE_PROG_ARRAY,
        (4, 4),
        Some(4),
    ),
    spec(
        MapName::CallsEg,
        "pal_calls_eg",
        sys::MAP_TYPE_PROG_ARRAY,
        (4, 4),
        Some(4),
    ),
    spec(
        MapName::Buckets4,
        "pal_buckets4",
        ARRAY,
        (4, size_of::<ipcache::Buckets>()),
        Some(2),
    ),
    spec(
        MapName::Ipcache4,
        "pal_ipcache4",
        ARRAY,
        (4, size_of::<ipcache::Segment>()),
        Some(ipcache::POOL_ELEMENTS),
    ),
    spec(
        MapName::Index6,
        "pal_index6",
        ARRAY,
        (4, size_of::<ipcache6::Index>()),
        Some(2),
    ),
    spec(
        MapName::Ipcache6,
        "pal_ipcache6",
        sys::MAP_TYPE_HASH,
        (4, size_of::<ipcache6::Chunk>()),
        Some(ipcache6::chunk_key(2, 0)),
    ),
    spec(
        MapName::CtSpace,
        "pal_ct_space",
        ARRAY,
        (4, size_of::<Space>()),
        Some(1),
    ),
    spec(
        MapName::Ct4,
        "pal_ct4",
        ARRAY,
        (4, size_of::<Set<CtKey4>>()),
        None,
    ),
    spec(
        MapName::Ct6,
        "pal_ct6",
        ARRAY,
        (4, size_of::<Set<CtKey6>>()),
        None,
    ),
    spec(MapName::CtEvicted, "pal_evicted", PERCPU, (4, 8), None),
    spec(MapName::Frag4, "pal_frag4", LRU, (12, 8), None),
    spec(MapName::Frag6, "pal_frag6", LRU, (40, 8), None),
    spec(
        MapName::Rows,
        "pal_rows",
        ARRAY,
        (4, size_of::<table::Rows>()),
        Some(table::ROWS_ELEMENTS),
    ),
    spec(
        MapName::Blocks,
        "pal_blocks",
        ARRAY,
        (4, size_of::<table::Block>()),
        Some(table::BLOCKS_ELEMENTS),
    ),
    spec(
        MapName::Counters,
        "pal_counters",
        PERCPU,
        (4, 16),
        Some(reason::COUNTERS),
    ),
    spec(
        MapName::Rules,
        "pal_rules",
        PERCPU,
        (4, 16),
        Some(table::RULES_MAX),
    ),
    spec(
        MapName::Events,
        "pal_events",
        sys::MAP_TYPE_RINGBUF,
        (0, 0),
        None,
    ),
    spec(MapName::Budget, "pal_budget", PERCPU, (4, 16), None),
    spec(MapName::Lost, "pal_lost", PERCPU, (4, 8), None),
    spec(
        MapName::Vlans,
        "pal_vlans",
        sys::MAP_TYPE_HASH,
        (4, 4),
        Some(settings::VLANS_MAX),
    ),
    spec(
        MapName::Meta,
        "pal_meta",
        ARRAY,
        (4, size_of::<SlotMeta>()),
        Some(2),
    ),
    spec(
        MapName::Mark,
        "pal_mark",
        ARRAY,
        (4, size_of::<Mark>()),
        Some(1),
    ),
    spec(
        MapName::Endpoints,
        "pal_endpoints",
        sys::MAP_TYPE_HASH,
        (size_of::<EndpointKey>(), size_of::<EndpointValue>()),
        Some(control::ENDPOINTS_MAX),
    ),
];

/// One map of the kernel.
pub(crate) struct Map {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) max_entries: u32,
    /// Octets of a value, as the kernel has them.
    pub(crate) value_size: usize,
    pub(crate) fd: OwnedFd,
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.id)
    }
}

impl MapSpec {
    /// Why the map behind `fd` is not one of this layout; None if it is.
    pub(crate) fn mismatch(&self, info: &sys::MapInfo) -> Option<String> {
        let expected = [
            ("type", self.map_type as usize, info.map_type as usize),
            ("key size", self.key_size, info.key_size as usize),
            ("value size", self.value_size, info.value_size as usize),
            (
                "entries",
                self.max_entries
                    .map_or(info.max_entries as usize, |max| max as usize),
                info.max_entries as usize,
            ),
        ];
        let (what, want, is) = expected.into_iter().find(|(_, want, is)| want != is)?;
        Some(format!("{}: {what} is {is}, expected {want}", self.name))
    }

    /// Takes the map behind `fd`, whose layout must be this one.
    pub(crate) fn open(&self, fd: OwnedFd) -> Result<Map, DatapathError> {
        let info = sys::map_info(fd.as_fd()).map_err(kernel("map info"))?;
        if let Some(mismatch) = self.mismatch(&info) {
            return Err(DatapathError::Other(format!(
                "pinned map of another layout ({mismatch}); run `palisade detach` and start again"
            )));
        }
        Ok(Map {
            name: self.name,
            id: info.id,
            max_entries: info.max_entries,
            value_size: info.value_size as usize,
            fd,
        })
    }
}

/// Wraps an I/O error with the operation that failed.
pub(crate) fn kernel(operation: impl Into<String>) -> impl FnOnce(io::Error) -> DatapathError {
    let operation = operation.into();
    move |source| DatapathError::Kernel { operation, source }
}

impl Map {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn fails(&self, what: &str) -> impl FnOnce(io::Error) -> DatapathError {
        kernel(format!("{what} of map {}", self.name))
    }

    pub(crate) fn get<K: Plain, V: Plain>(&self, key: &K) -> Result<Option<V>, DatapathError> {
        let mut value = MaybeUninit::<V>::zeroed();
        // SAFETY: `V` is plain: the zeroed value is a valid buffer of its size.
        let buffer = unsafe {
            std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<V>())
        };
        let found =
            sys::map_lookup(self.fd(), bytes_of(key), buffer).map_err(self.fails("read"))?;
        // SAFETY: every bit pattern of a plain value is valid.
        Ok(found.then(|| unsafe { value.assume_init() }))
    }

    pub(crate) fn put<K: Plain, V: Plain>(&self, key: &K, value: &V) -> Result<(), DatapathError> {
        sys::map_update(self.fd(), bytes_of(key), bytes_of(value), 0).map_err(self.fails("write"))
    }

    pub(crate) fn remove<K: Plain>(&self, key: &K) -> Result<bool, DatapathError> {
        sys::map_delete(self.fd(), bytes_of(key)).map_err(self.fails("delete"))
    }

    /// The values of one element of a per-CPU map, one for each possible CPU.
    pub(crate) fn per_cpu<V: Plain>(
        &self,
        index: u32,
        cpus: usize,
    ) -> Result<Vec<V>, DatapathError> {
        let stride = size_of::<V>().next_multiple_of(8);
        let mut buffer = vec![0u8; stride * cpus];
        sys::map_lookup(self.fd(), bytes_of(&index), &mut buffer).map_err(self.fails("read"))?;
        Ok(buffer
            .chunks_exact(stride)
            .map(|chunk| value_of(&chunk[..size_of::<V>()]))
            .collect())
    }

    /// The program id in an entry of a program array; 0 where there is none.
    pub(crate) fn program_id(&self, index: u32) -> Result<u32, DatapathError> {
        Ok(self.get::<u32, u32>(&index)?.unwrap_or(0))
    }

    /// All keys by walking the map; made for maps that only we write.
    pub(crate) fn keys<K: Plain>(&self) -> Keys<'_, K> {
        self.keys_after(None)
    }

    /// The keys behind one of them.
    pub(crate) fn keys_after<K: Plain>(&self, last: Option<&K>) -> Keys<'_, K> {
        Keys {
            map: self,
            last: last.map(|key| bytes_of(key).to_vec()),
            key: PhantomData,
        }
    }
}

/// Iterator over the keys of a map.
#[derive(Debug)]
pub(crate) struct Keys<'a, K> {
    map: &'a Map,
    last: Option<Vec<u8>>,
    key: PhantomData<K>,
}

impl<K: Plain> Iterator for Keys<'_, K> {
    type Item = Result<K, DatapathError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next = vec![0u8; size_of::<K>()];
        match sys::map_next_key(self.map.fd(), self.last.as_deref(), &mut next) {
            Ok(true) => {
                let key = value_of(&next);
                self.last = Some(next);
                Some(Ok(key))
            }
            Ok(false) => None,
            Err(error) => Some(Err(self.map.fails("walk")(error))),
        }
    }
}

/// Every map of the datapath.
#[derive(Debug)]
pub(crate) struct Maps(pub(crate) [Map; SPECS.len()]);

impl Maps {
    pub(crate) fn of(&self, name: MapName) -> &Map {
        &self.0[name as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_stand_in_the_order_of_the_names() {
        for (index, spec) in SPECS.iter().enumerate() {
            assert_eq!(spec.map as usize, index, "{}", spec.name);
            assert!(
                spec.name.len() <= 15,
                "{} is too long for the kernel",
                spec.name
            );
        }
    }
}
