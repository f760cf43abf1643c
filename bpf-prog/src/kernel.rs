//! Questions to the kernel: the time, and its own tables of routes and sockets.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup, bpf_sock_tuple},
    helpers::generated::{
        bpf_fib_lookup as fib_lookup, bpf_jiffies64, bpf_sk_release,
        bpf_skc_lookup_tcp as skc_lookup_tcp,
    },
};

/// Results of `bpf_fib_lookup` that mean: this packet leaves the host again
/// (`BPF_FIB_LKUP_RET_*`: success, tunnel, neighbour unknown, too large).
const FORWARDED: [i64; 4] = [0, 6, 7, 8];

/// Now, in jiffies.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }
}

/// Whether the routing table sends the packet on to another host.
#[inline(always)]
pub fn is_forwarded(skb: *mut __sk_buff, parameters: &mut bpf_fib_lookup) -> bool {
    // SAFETY: the context and a parameter block of the size that is passed.
    let result = unsafe {
        parameters.ifindex = (*skb).ifindex;
        fib_lookup(
            skb.cast(),
            parameters,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    FORWARDED.contains(&(result as i64))
}

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// State of the TCP socket that matches the tuple; 0 if there is none.
#[inline(always)]
pub fn socket_state(skb: *mut __sk_buff, tuple: &mut bpf_sock_tuple, size: u32) -> u32 {
    // SAFETY: the reference that the lookup takes is released on the only path
    // on which it was taken.
    unsafe {
        let socket = skc_lookup_tcp(skb.cast(), tuple, size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return 0;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state
    }
}
