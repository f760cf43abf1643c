//! Floors: what one operation of the kernel costs, as a program that does it
//! and nothing else; and wrappers, which give each run of a test another
//! tuple before they jump into the shipped programs.
//!
//! For `cargo xtask bench datapath`. Nothing here is ever attached.
#![no_std]
#![no_main]

mod family;
mod floors;
mod layout;
mod maps;
mod operations;
mod walk;

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{
    family::{V4, V6},
    layout::calls,
    walk::{FAILED, NEXT, wrap},
};

/// Nothing at all: the cost of a test run itself.
#[classifier]
pub fn f_empty(_context: TcContext) -> i32 {
    NEXT
}

/// The walk over the tuples, which is in every floor that needs a key.
#[classifier]
pub fn f_walk(_context: TcContext) -> i32 {
    match walk::next() {
        // SAFETY: a reference from a lookup; read, as every floor reads it.
        Some((_, tuple)) if unsafe { (&raw const tuple[0]).read_volatile() } != 0 => NEXT,
        _ => FAILED,
    }
}

macro_rules! programs {
    ($($name:ident = $run:expr;)*) => {
        $(
            #[classifier]
            pub fn $name(context: TcContext) -> i32 {
                $run(&context)
            }
        )*
    };
}

programs! {
    f_lpm4 = floors::trie::<V4>;
    f_lpm6 = floors::trie::<V6>;
    f_hit4 = floors::flow::<V4, true>;
    f_hit6 = floors::flow::<V6, true>;
    f_miss4 = floors::flow::<V4, false>;
    f_miss6 = floors::flow::<V6, false>;
    f_insert4 = floors::insert::<V4>;
    f_insert6 = floors::insert::<V6>;
    f_ringbuf = floors::record;

    w_in4 = (|context: &TcContext| wrap::<V4>(context, calls::INGRESS));
    w_in6 = (|context: &TcContext| wrap::<V6>(context, calls::INGRESS));
    w_eg4 = (|context: &TcContext| wrap::<V4>(context, calls::EGRESS));
    w_eg6 = (|context: &TcContext| wrap::<V6>(context, calls::EGRESS));
    w_own4 = (|context: &TcContext| wrap::<V4>(context, calls::NOTHING));
    w_own6 = (|context: &TcContext| wrap::<V6>(context, calls::NOTHING));

    o_fib4 = operations::route4::<false>;
    o_fib6 = operations::route6::<false>;
    o_forward4 = operations::route4::<true>;
    o_forward6 = operations::route6::<true>;
    o_socket4 = operations::socket4;
    o_socket6 = operations::socket6;
    o_counter = operations::counter;
    o_two_counters = operations::two_counters;
    o_jiffies = operations::jiffies;
    o_ktime = operations::ktime;
    o_tail_call = operations::tail_call;
    o_load_bytes = operations::load_bytes;
    o_direct = operations::direct;
    o_cb = operations::control_block;
    o_hash_hit = operations::hash_hit;
    o_hash_fill = operations::hash_fill;
    o_update4 = operations::lru_update::<V4>;
    o_update6 = operations::lru_update::<V6>;
}

/// The kernel's helpers reserved for GPL-compatible programs need this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: no path of these programs panics; the verifier refuses a program
    // in which this could be reached.
    unsafe { core::hint::unreachable_unchecked() }
}
