//! Operations that are no floor of a case, to be known when the programs are
//! made faster.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_fib_lookup, bpf_sock_tuple},
    helpers::generated::{
        bpf_fib_lookup as fib_lookup, bpf_jiffies64, bpf_ktime_get_ns, bpf_sk_release,
        bpf_skb_load_bytes, bpf_skc_lookup_tcp as skc_lookup_tcp,
    },
    programs::TcContext,
};

use crate::{
    family::{Family, V4},
    floors::FLOW,
    layout::{calls, walk as word},
    maps::{CALLS, COUNTERS, HASH4},
    walk::{self, FAILED, NEXT},
};

/// The local end of every flow of the benchmark: 10.0.0.1 and fd00::1.
const HOST4: u32 = u32::from_ne_bytes([10, 0, 0, 1]);
const HOST6: [u32; 4] = [
    u32::from_ne_bytes([0xfd, 0, 0, 0]),
    0,
    0,
    u32::from_ne_bytes([0, 0, 0, 1]),
];

const PEER4: u32 = u32::from_ne_bytes([10, 0, 0, 2]);
const PEER6: [u32; 4] = [HOST6[0], 0, 0, u32::from_ne_bytes([0, 0, 0, 2])];
/// Where the namespace of the benchmark has a route to: 10.99.0.1, fd99::1.
const ELSEWHERE4: u32 = u32::from_ne_bytes([10, 99, 0, 1]);
const ELSEWHERE6: [u32; 4] = [u32::from_ne_bytes([0xfd, 0x99, 0, 0]), 0, 0, HOST6[3]];

#[inline(always)]
fn skb(context: &TcContext) -> *mut __sk_buff {
    context.as_ptr().cast()
}

/// The routing table's answer on a packet for this host, or for elsewhere.
#[inline(always)]
pub fn route4<const FORWARDS: bool>(context: &TcContext) -> i32 {
    let skb = skb(context);
    // SAFETY: all-zero bytes are a valid parameter block, the union members
    // are plain words.
    unsafe {
        let mut route: bpf_fib_lookup = core::mem::zeroed();
        route.family = 2;
        route.__bindgen_anon_3.ipv4_src = PEER4;
        route.__bindgen_anon_4.ipv4_dst = if FORWARDS { ELSEWHERE4 } else { HOST4 };
        route_of(skb, &mut route, FORWARDS)
    }
}

#[inline(always)]
pub fn route6<const FORWARDS: bool>(context: &TcContext) -> i32 {
    let skb = skb(context);
    // SAFETY: as above.
    unsafe {
        let mut route: bpf_fib_lookup = core::mem::zeroed();
        route.family = 10;
        route.__bindgen_anon_3.ipv6_src = PEER6;
        route.__bindgen_anon_4.ipv6_dst = if FORWARDS { ELSEWHERE6 } else { HOST6 };
        route_of(skb, &mut route, FORWARDS)
    }
}

#[inline(always)]
fn route_of(skb: *mut __sk_buff, route: &mut bpf_fib_lookup, forwards: bool) -> i32 {
    route.l4_protocol = 6;
    // SAFETY: the context and a parameter block of the size that is passed.
    let answer = unsafe {
        route.ifindex = (*skb).ifindex;
        fib_lookup(skb.cast(), route, size_of::<bpf_fib_lookup>() as i32, 0)
    };
    // `BPF_FIB_LKUP_RET_SUCCESS`, and `_NOT_FWDED`: for this host.
    let expected = if forwards { 0 } else { 4 };
    if answer as i32 == expected {
        NEXT
    } else {
        FAILED
    }
}

/// The kernel's sockets, where none matches.
#[inline(always)]
pub fn socket4(context: &TcContext) -> i32 {
    // SAFETY: all-zero bytes are a valid tuple; a reference is released.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let ipv4 = &mut tuple.__bindgen_anon_1.ipv4;
        ipv4.daddr = HOST4;
        ipv4.dport = 22_u16.to_be();
        ipv4.saddr = PEER4;
        ipv4.sport = 40_000_u16.to_be();
        nobody(skb(context), &mut tuple, 12)
    }
}

#[inline(always)]
pub fn socket6(context: &TcContext) -> i32 {
    // SAFETY: as above.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let ipv6 = &mut tuple.__bindgen_anon_1.ipv6;
        ipv6.daddr = HOST6;
        ipv6.dport = 22_u16.to_be();
        ipv6.saddr = PEER6;
        ipv6.sport = 40_000_u16.to_be();
        nobody(skb(context), &mut tuple, 36)
    }
}

#[inline(always)]
fn nobody(skb: *mut __sk_buff, tuple: &mut bpf_sock_tuple, size: u32) -> i32 {
    // SAFETY: the context, and a tuple of the family that the size selects.
    unsafe {
        let socket = skc_lookup_tcp(skb.cast(), tuple, size, u64::MAX, 0);
        if socket.is_null() {
            return NEXT;
        }
        bpf_sk_release(socket.cast());
    }
    FAILED
}

#[inline(always)]
fn count(skb: *mut __sk_buff, index: u32) -> i32 {
    let Some(counter) = COUNTERS.get_ptr_mut(index) else {
        return FAILED;
    };
    // SAFETY: a non-null pointer into this CPU's element.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += u64::from((*skb).len);
    }
    NEXT
}

/// Packets and bytes in a per-CPU array.
#[inline(always)]
pub fn counter(context: &TcContext) -> i32 {
    count(skb(context), 1)
}

/// The same twice, as reason and rule are counted.
#[inline(always)]
pub fn two_counters(context: &TcContext) -> i32 {
    if count(skb(context), 1) == NEXT {
        count(skb(context), 300)
    } else {
        FAILED
    }
}

#[inline(always)]
pub fn jiffies(_context: &TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    if unsafe { bpf_jiffies64() } != 0 {
        NEXT
    } else {
        FAILED
    }
}

#[inline(always)]
pub fn ktime(_context: &TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    if unsafe { bpf_ktime_get_ns() } != 0 {
        NEXT
    } else {
        FAILED
    }
}

/// A jump to the empty program by a constant index.
#[inline(always)]
pub fn tail_call(context: &TcContext) -> i32 {
    // SAFETY: nothing here needs dropping.
    unsafe { CALLS.tail_call(context, calls::NOTHING) };
    FAILED
}

/// IPv4 and TCP header by the helper.
#[inline(always)]
pub fn load_bytes(context: &TcContext) -> i32 {
    let mut headers = [0_u32; 10];
    // SAFETY: the context and a buffer of the size that is passed.
    let failed =
        unsafe { bpf_skb_load_bytes(skb(context).cast(), 14, headers.as_mut_ptr().cast(), 40) };
    if failed == 0 && headers[0] as u8 == 0x45 {
        NEXT
    } else {
        FAILED
    }
}

/// The same by direct access.
#[inline(always)]
pub fn direct(context: &TcContext) -> i32 {
    let skb = skb(context);
    // SAFETY: the reads lie between data and data_end, as the verifier proves.
    unsafe {
        let start = (*skb).data as usize + 14;
        if start + 40 > (*skb).data_end as usize {
            return FAILED;
        }
        let words = start as *const u32;
        let mut sum = 0;
        for index in [0, 2, 3, 4, 5, 8] {
            sum |= words.add(index).read_volatile();
        }
        if sum != 0 { NEXT } else { FAILED }
    }
}

/// Three words left in the control block and read again.
#[inline(always)]
pub fn control_block(context: &TcContext) -> i32 {
    let skb = skb(context);
    // SAFETY: `skb` is the context.
    unsafe {
        for index in 0..3 {
            (&raw mut (*skb).cb[index]).write_volatile(1);
        }
        let mut sum = 0;
        for index in 0..3 {
            sum += (&raw const (*skb).cb[index]).read_volatile();
        }
        if sum == 3 { NEXT } else { FAILED }
    }
}

/// A lookup in a hash of the size of conntrack, without its LRU lists.
#[inline(always)]
pub fn hash_hit(_context: &TcContext) -> i32 {
    let Some((state, tuple)) = walk::next() else {
        return FAILED;
    };
    let key = V4::key(tuple, state[word::LOCAL_PORT] as u16);
    match HASH4.get_ptr(&key) {
        // SAFETY: a non-null pointer from a lookup.
        Some(entry) if unsafe { (*entry)[0] } != 0 => NEXT,
        _ => FAILED,
    }
}

/// A flow that is there, written again whole.
#[inline(always)]
pub fn lru_update<F: Family>(_context: &TcContext) -> i32 {
    let Some((state, tuple)) = walk::next() else {
        return FAILED;
    };
    let key = F::key(tuple, state[word::LOCAL_PORT] as u16);
    match F::flows().insert(&key, FLOW, 0) {
        Ok(()) => NEXT,
        Err(_) => FAILED,
    }
}

/// Fills the hash of `hash_hit`.
#[inline(always)]
pub fn hash_fill(_context: &TcContext) -> i32 {
    let Some((state, tuple)) = walk::next() else {
        return FAILED;
    };
    let key = V4::key(tuple, state[word::LOCAL_PORT] as u16);
    match HASH4.insert(&key, FLOW, 0) {
        Ok(()) => NEXT,
        Err(_) => FAILED,
    }
}
