//! What differs between the keys of the two families.

use aya_ebpf::maps::{LpmTrie, LruHashMap};
use palisade_abi::{
    conntrack::{CtKey4, CtKey6, kind},
    proto,
    table::IpcacheValue,
};

use crate::{
    floors::Entry,
    layout::{TUPLE_PORT, Tuple},
    maps::{LPM4, LPM6, LRU4, LRU6, NEW4, NEW6},
};

pub trait Family {
    type Addr: Copy + 'static;
    type Key: Copy + 'static;
    const BITS: u32;

    fn address(tuple: &Tuple) -> Self::Addr;
    /// The conntrack key of a flow of the host with the tuple's peer.
    fn key(tuple: &Tuple, local_port: u16) -> Self::Key;
    fn trie() -> &'static LpmTrie<Self::Addr, IpcacheValue>;
    fn flows() -> &'static LruHashMap<Self::Key, Entry>;
    fn new_flows() -> &'static LruHashMap<Self::Key, Entry>;
}

pub struct V4;

impl Family for V4 {
    type Addr = u32;
    type Key = CtKey4;
    const BITS: u32 = 32;

    #[inline(always)]
    fn address(tuple: &Tuple) -> u32 {
        tuple[0]
    }
    #[inline(always)]
    fn key(tuple: &Tuple, local_port: u16) -> CtKey4 {
        CtKey4 {
            local: 0x0100_000a,
            remote: tuple[0],
            local_port,
            remote_port: tuple[TUPLE_PORT] as u16,
            proto: proto::TCP,
            kind: kind::TUPLE,
            pad: 0,
        }
    }
    #[inline(always)]
    fn trie() -> &'static LpmTrie<u32, IpcacheValue> {
        &LPM4
    }
    #[inline(always)]
    fn flows() -> &'static LruHashMap<CtKey4, Entry> {
        &LRU4
    }
    #[inline(always)]
    fn new_flows() -> &'static LruHashMap<CtKey4, Entry> {
        &NEW4
    }
}

pub struct V6;

impl Family for V6 {
    type Addr = [u32; 4];
    type Key = CtKey6;
    const BITS: u32 = 128;

    #[inline(always)]
    fn address(tuple: &Tuple) -> [u32; 4] {
        [tuple[0], tuple[1], tuple[2], tuple[3]]
    }
    #[inline(always)]
    fn key(tuple: &Tuple, local_port: u16) -> CtKey6 {
        CtKey6 {
            local: [0xfd, 0, 0, 0x0100_0000],
            remote: Self::address(tuple),
            local_port,
            remote_port: tuple[TUPLE_PORT] as u16,
            proto: proto::TCP,
            kind: kind::TUPLE,
            pad: 0,
        }
    }
    #[inline(always)]
    fn trie() -> &'static LpmTrie<[u32; 4], IpcacheValue> {
        &LPM6
    }
    #[inline(always)]
    fn flows() -> &'static LruHashMap<CtKey6, Entry> {
        &LRU6
    }
    #[inline(always)]
    fn new_flows() -> &'static LruHashMap<CtKey6, Entry> {
        &NEW6
    }
}
