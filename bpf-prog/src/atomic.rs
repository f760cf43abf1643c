//! Atomic operations on words of a map's value. The language has none for this
//! target, the machine does (BPF_ATOMIC, Linux 5.12): each is a full barrier.

use core::arch::asm;

/// Puts `new` where `old` stands; false if something else stands there.
///
/// # Safety
/// `word` is an aligned word of a map's value.
#[inline(always)]
pub unsafe fn exchange_if(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack),
        );
    }
    found == old
}

/// Puts `new` there, whatever stands there.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn publish(word: *mut u64, new: u64) {
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "{new} = xchg_64({word} + 0, {new})",
            word = in(reg) word,
            new = inout(reg) new => _,
            options(nostack),
        );
    }
}

/// Counts up.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn increment(word: *mut u64) {
    // SAFETY: the caller's word.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {one}",
            word = in(reg) word,
            one = in(reg) 1u64,
            options(nostack),
        );
    }
}
