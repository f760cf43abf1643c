//! The trials: each makes the thing itself, small, and lets it go.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::calls::load;
use super::code::{
    DONE, EXIT, FRAME, Instruction, add, call, clear, copy, exchange_if, jump_if_less, map, set,
    skip_if_zero, skip_if_zero32,
};
use super::{calls, global};
use crate::datapath::kernel::{clsact, links, sys};
use crate::datapath::netns;
use crate::policy::Direction;

/// One trial.
pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) since: (u32, u32),
    /// What is done where it is missing; None: nothing can be.
    pub(super) instead: Option<&'static str>,
    pub(super) trial: fn() -> io::Result<()>,
}

const fn needed(name: &'static str, since: (u32, u32), trial: fn() -> io::Result<()>) -> Probe {
    Probe {
        name,
        since,
        instead: None,
        trial,
    }
}

const fn better(
    name: &'static str,
    since: (u32, u32),
    instead: &'static str,
    trial: fn() -> io::Result<()>,
) -> Probe {
    Probe {
        name,
        since,
        instead: Some(instead),
        trial,
    }
}

pub(super) const TCX: &str = "TCX links";

/// What is asked for at every start.
pub(super) const ALL: &[Probe] = &[
    needed("bpf(2)", (3, 18), || create(array(0)).map(drop)),
    needed("programs on devices (sched_cls)", (4, 1), || {
        load(&DONE).map(drop)
    }),
    needed("global functions (BTF)", (5, 12), global::functions),
    needed("32-bit jumps", (5, 1), || {
        load(&[set(0, 0), skip_if_zero32(0, 0), EXIT]).map(drop)
    }),
    needed("bounded loops", (5, 3), || {
        load(&[
            set(0, 0),
            add(0, 1),
            jump_if_less(0, 8, -2),
            DONE[0],
            DONE[1],
        ])
        .map(drop)
    }),
    needed("tail calls", (4, 2), tail_calls),
    needed("per-CPU arrays", (4, 6), || {
        create(shape(sys::MAP_TYPE_PERCPU_ARRAY, 4, 0)).map(drop)
    }),
    needed("LRU hashes", (4, 10), || {
        create(shape(sys::MAP_TYPE_LRU_HASH, 4, 0)).map(drop)
    }),
    needed("LPM tries", (4, 11), || {
        create(shape(sys::MAP_TYPE_LPM_TRIE, 8, NO_PREALLOC)).map(drop)
    }),
    needed("memory-mapped arrays", (5, 5), || {
        create(array(MMAPABLE)).map(drop)
    }),
    needed("ring buffers", (5, 8), ring_buffer),
    needed("atomic compare and exchange", (5, 12), atomics),
    needed("bpf_jiffies64", (5, 6), || {
        load(&[call(JIFFIES64), DONE[0], DONE[1]]).map(drop)
    }),
    needed("bpf_fib_lookup", (4, 18), fib_lookup),
    needed("bpf_skc_lookup_tcp", (5, 2), socket_lookup),
    better(
        "maps in maps",
        (4, 12),
        "the flip waits with membarrier(2)",
        maps_in_maps,
    ),
    better(
        "BPF compiler (JIT)",
        (3, 16),
        "programs are interpreted, which is slow",
        jit,
    ),
    better(TCX, (6, 6), "clsact filters", tcx),
];

/// Asked for where TCX is missing.
pub(super) const WITHOUT_TCX: Probe = needed("clsact filters", (4, 5), clsact_filter);

// Flags and helpers of <linux/bpf.h>.
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;
const TAIL_CALL: i32 = 12;
const FIB_LOOKUP: i32 = 69;
const SK_RELEASE: i32 = 86;
const SKC_LOOKUP_TCP: i32 = 99;
const JIFFIES64: i32 = 118;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;

/// The loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

const fn shape(map_type: u32, key_size: u32, flags: u32) -> (sys::MapShape, u32) {
    let shape = sys::MapShape {
        map_type,
        key_size,
        value_size: 4,
        max_entries: 16,
    };
    (shape, flags)
}

const fn array(flags: u32) -> (sys::MapShape, u32) {
    shape(sys::MAP_TYPE_ARRAY, 4, flags)
}

fn create((shape, flags): (sys::MapShape, u32)) -> io::Result<OwnedFd> {
    calls::map_create(shape, flags, None)
}

fn tail_calls() -> io::Result<()> {
    let programs = create(shape(sys::MAP_TYPE_PROG_ARRAY, 4, 0))?;
    let [low, high] = map(2, programs.as_raw_fd());
    load(&[low, high, set(3, 0), call(TAIL_CALL), DONE[0], DONE[1]]).map(drop)
}

fn ring_buffer() -> io::Result<()> {
    let shape = sys::MapShape {
        map_type: sys::MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        max_entries: u32::try_from(rustix::param::page_size()).map_err(io::Error::other)?,
    };
    let ring = create((shape, 0))?;
    let [low, high] = map(1, ring.as_raw_fd());
    load(&[
        low,
        high,
        set(2, 8),
        set(3, 0),
        call(RINGBUF_RESERVE),
        skip_if_zero(0, 3),
        copy(1, 0),
        set(2, 0),
        call(RINGBUF_SUBMIT),
        DONE[0],
        DONE[1],
    ])
    .map(drop)
}

fn atomics() -> io::Result<()> {
    load(&[
        clear(-8),
        set(0, 0),
        set(1, 0),
        exchange_if(FRAME, -8, 1),
        DONE[0],
        DONE[1],
    ])
    .map(drop)
}

fn fib_lookup() -> io::Result<()> {
    /// `sizeof(struct bpf_fib_lookup)`.
    const PARAMETERS: i16 = 64;
    let mut code: Vec<Instruction> = (1..=PARAMETERS / 8).map(|word| clear(-8 * word)).collect();
    code.extend([
        copy(2, FRAME),
        add(2, -i32::from(PARAMETERS)),
        set(3, i32::from(PARAMETERS)),
        set(4, 0),
        call(FIB_LOOKUP),
    ]);
    code.extend(DONE);
    load(&code).map(drop)
}

fn socket_lookup() -> io::Result<()> {
    /// `sizeof` of the IPv4 part of `struct bpf_sock_tuple`.
    const TUPLE: i32 = 12;
    const CURRENT_NAMESPACE: i32 = -1;
    load(&[
        clear(-8),
        clear(-16),
        copy(2, FRAME),
        add(2, -16),
        set(3, TUPLE),
        set(4, CURRENT_NAMESPACE),
        set(5, 0),
        call(SKC_LOOKUP_TCP),
        skip_if_zero(0, 2),
        copy(1, 0),
        call(SK_RELEASE),
        DONE[0],
        DONE[1],
    ])
    .map(drop)
}

fn maps_in_maps() -> io::Result<()> {
    let inner = create(array(0))?;
    let (outer, flags) = shape(sys::MAP_TYPE_ARRAY_OF_MAPS, 4, 0);
    calls::map_create(outer, flags, Some(inner.as_fd())).map(drop)
}

fn jit() -> io::Result<()> {
    let program = load(&DONE)?;
    if sys::prog_info(program.as_fd())?.jited_len == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(())
}

fn tcx() -> io::Result<()> {
    links::on_hook(LOOPBACK, sys::TCX_INGRESS).map(drop)
}

/// Puts a filter on the loopback device of a network that ends with the thread.
fn clsact_filter() -> io::Result<()> {
    let program = load(&DONE)?;
    let trial = || {
        netns::enter_new()?;
        clsact::add_qdisc(LOOPBACK)?;
        clsact::put(LOOPBACK, Direction::Ingress, program.as_fd(), "pal_probe")
    };
    std::thread::scope(|scope| {
        scope
            .spawn(trial)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the trial panicked")))
    })
}
