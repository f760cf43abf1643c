//! The next tuple of a run, and the wrappers that write it into the packet.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};

use crate::{
    family::Family,
    layout::{TUPLE_PORT, Tuple, Walk, walk},
    maps::{CALLS, TUPLES, WALK},
};

/// `TCX_NEXT`.
pub const NEXT: i32 = -1;
/// What a program here returns that could not do its work.
pub const FAILED: i32 = 1;

/// The run's description and its next tuple, in the order of the array: the
/// array is shuffled, so the tuples are random and the walk costs little.
#[inline(always)]
pub fn next() -> Option<(&'static Walk, &'static Tuple)> {
    let state = WALK.get_ptr_mut(0)?;
    // SAFETY: a non-null pointer from a lookup; one run at a time.
    unsafe {
        let done = (*state)[walk::DONE];
        (*state)[walk::DONE] = done.wrapping_add(1);
        let tuple = TUPLES.get((*state)[walk::BASE] + (done & (*state)[walk::MASK]))?;
        Some((&*state, tuple))
    }
}

/// Writes the next tuple into the packet and jumps. The checksums become
/// wrong, which no program here looks at.
#[inline(always)]
pub fn wrap<F: Family>(context: &TcContext, entry: u32) -> i32 {
    let skb = context.as_ptr().cast::<__sk_buff>();
    let Some((state, tuple)) = next() else {
        return FAILED;
    };
    let address_at = (state[walk::ADDRESS_AT] & 0x3f) as usize;
    let port_at = (state[walk::PORT_AT] & 0x7f) as usize;
    // SAFETY: `skb` is the context; each write lies between data and data_end,
    // which the verifier proves.
    unsafe {
        let (data, end) = ((*skb).data as usize, (*skb).data_end as usize);
        let address = (data + address_at) as *mut F::Addr;
        if data + address_at + size_of::<F::Addr>() > end {
            return FAILED;
        }
        *address = F::address(tuple);
        let port = (data + port_at) as *mut u16;
        if data + port_at + 2 > end {
            return FAILED;
        }
        *port = tuple[TUPLE_PORT] as u16;
        CALLS.tail_call(context, entry);
    }
    FAILED
}
